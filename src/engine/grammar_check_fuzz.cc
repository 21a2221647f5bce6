// Any bytes: the check ends, quickly, with a verdict.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/grammar_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  [[maybe_unused]] const bool fine =
      shoal::CheckGrammar(std::string_view(reinterpret_cast<const char*>(data), size)).ok();
  return 0;
}
