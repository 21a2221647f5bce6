// UTF-8 of any bytes (RFC 3629). What is broken becomes U+FFFD once per maximal broken part, as the Unicode Standard
// (3.9) advises.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace shoal {

inline constexpr std::string_view kUtf8Replacement = "\xEF\xBF\xBD";

// What the bytes at the front of a text are. `bytes`: how many belong to it.
struct Utf8Character {
  enum { kValid, kUnfinished, kBroken } state;  // unfinished: the text ends within a character that may be valid
  std::size_t bytes;
};
// Precondition: `text` is not empty.
Utf8Character FirstUtf8Character(std::string_view text);

bool IsValidUtf8(std::string_view text);

// The text with what is broken replaced, cut between characters to at most `bytes_max` bytes.
std::string ValidUtf8(std::string_view text, std::size_t bytes_max);

}  // namespace shoal
