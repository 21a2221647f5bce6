// Any bytes as what the control socket carries, both ways: parsing never crashes, and what is accepted is within the
// stated limits and prints to what is accepted again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "api/control_json.h"
#include "base/check.h"

namespace shoal {
namespace {

void TryRequests(std::string_view body) {
  const Result<PlaceCommand> place = ParsePlaceRequest(body);
  if (place.ok()) {
    SHOAL_CHECK(place->model.size() <= kControlNameBytesMax && place->nodes.size() <= kControlNodesMax);
    SHOAL_CHECK(ParsePlaceRequest(DumpJson(ToJson(*place))).ok());
  } else {
    SHOAL_CHECK(place.error().code == ErrorCode::kInvalidArgument);
  }
  const Result<std::string> field = ParseOneField(body, "model");
  SHOAL_CHECK(field.ok() ? field->size() <= kControlNameBytesMax : field.error().code == ErrorCode::kInvalidArgument);
  static_cast<void>(ParseEmptyRequest(body));
}

void TryAnswers(std::string_view body) {
  if (const auto status = ParseClusterStatus(body); status.ok()) {
    SHOAL_CHECK(ParseClusterStatus(DumpJson(ToJson(*status))).ok());
  }
  if (const auto invite = ParseInviteStatus(body); invite.ok()) {
    SHOAL_CHECK(ParseInviteStatus(DumpJson(ToJson(*invite))).ok());
  }
  if (const auto placed = ParsePlacementStatus(body); placed.ok()) {
    SHOAL_CHECK(ParsePlacementStatus(DumpJson(ToJson(*placed))).ok());
  }
  static_cast<void>(ParseControlError(503, body));
}

}  // namespace
}  // namespace shoal

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  shoal::TryRequests(body);
  shoal::TryAnswers(body);
  return 0;
}
