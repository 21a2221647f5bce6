// Any text as an invite: parsing never crashes, and what it accepts is printed to the same invite again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "identity/invite.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto code = shoal::ParseInviteCode(text);
  if (code.ok()) {
    const std::string printed = shoal::InviteCode(*code);
    SHOAL_CHECK(printed.size() == 19);
    SHOAL_CHECK(*shoal::ParseInviteCode(printed) == *code);
  } else {
    SHOAL_CHECK(code.error().code == shoal::ErrorCode::kInvalidArgument);
  }
  const auto invite = shoal::ParseInvite(text);
  if (!invite.ok()) {
    SHOAL_CHECK(invite.error().code == shoal::ErrorCode::kInvalidArgument);
    return 0;
  }
  SHOAL_CHECK(invite->addresses.size() <= shoal::kInviteAddressesMax);
  const auto again = shoal::ParseInvite(shoal::InviteUrl(*invite));
  SHOAL_CHECK(again.ok() && again->secret == invite->secret && again->addresses == invite->addresses);
  return 0;
}
