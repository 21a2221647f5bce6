// Any bytes as a JSON schema: the conversion to a grammar ends, quickly, with a grammar or a refusal.
#include <cstddef>
#include <cstdint>
#include <string>

#include "text/chat.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  [[maybe_unused]] const bool fine =
      shoal::GrammarFromJsonSchema(std::string(reinterpret_cast<const char*>(data), size)).ok();
  return 0;
}
