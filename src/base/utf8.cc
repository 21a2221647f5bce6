// Finds the front character by its lead byte; everything else follows from that.
#include "base/utf8.h"

namespace shoal {

Utf8Character FirstUtf8Character(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {Utf8Character::kValid, 1};
  std::size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // what the second byte may be
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;   // else overlong
    if (lead == 0xED) high = 0x9F;  // else a surrogate
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;   // else overlong
    if (lead == 0xF4) high = 0x8F;  // else above U+10FFFF
  } else {
    return {Utf8Character::kBroken, 1};
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8Character::kUnfinished, i};
    if (at(i) < low || at(i) > high) return {Utf8Character::kBroken, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Character::kValid, length};
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character c = FirstUtf8Character(text);
    if (c.state != Utf8Character::kValid) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

std::string ValidUtf8(std::string_view text, std::size_t bytes_max) {
  std::string out;
  while (!text.empty()) {
    const Utf8Character c = FirstUtf8Character(text);
    const std::string_view shown = c.state == Utf8Character::kValid ? text.substr(0, c.bytes) : kUtf8Replacement;
    if (out.size() + shown.size() > bytes_max) break;
    out.append(shown);
    text.remove_prefix(c.bytes);
  }
  return out;
}

}  // namespace shoal
