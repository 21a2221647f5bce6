// What a node's terminal asks and hears, as JSON text both ways.
//
// Pure: knows no socket. Text from the other side is untrusted: what breaks the shape is an Error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/control_service.h"
#include "api/errors.h"
#include "api/json_input.h"

namespace shoal {

inline constexpr std::size_t kControlBodyBytesMax = 64U << 10;  // of a request
inline constexpr std::size_t kControlNameBytesMax = 255;        // of a model, a node, a cut
inline constexpr std::size_t kControlCodeBytesMax = 1024;       // of an invite's code or link
inline constexpr std::size_t kControlNodesMax = 256;            // of one placement
inline constexpr std::int32_t kControlContextTokensMax = 1 << 22;
inline constexpr std::int32_t kControlSlotsMax = 1024;
inline constexpr std::int32_t kControlStandbyMax = 8;

// Answers. Layer ranges show "first" and "last", the last one included.
Json ToJson(const ClusterStatus& status);
Json ToJson(const InviteStatus& invite);
Json ToJson(const PlacementStatus& placement);
Json ToJson(const PlaceCommand& options);
Json ToJson(const JoinCommand& command);
std::string DumpJson(const Json& json);

// {"error":{"code","message"}}; the code is ErrorCodeName's.
std::string ControlErrorBody(const Error& error);

// Requests. Errors: kInvalidArgument (not JSON, an unknown or wrong field, over a limit above).
Result<PlaceCommand> ParsePlaceRequest(std::string_view body);
Result<JoinCommand> ParseJoinRequest(std::string_view body);
// {"field": "text"} of 1 to kControlNameBytesMax bytes and nothing else.
Result<std::string> ParseOneField(std::string_view body, const char* field);
// An empty body or {}.
Status ParseEmptyRequest(std::string_view body);

// Answers, on the client's side. Errors: kCorrupt.
Result<ClusterStatus> ParseClusterStatus(std::string_view body);
Result<InviteStatus> ParseInviteStatus(std::string_view body);
Result<PlacementStatus> ParsePlacementStatus(std::string_view body);
// The nodes in an event of a placement that is being made.
std::vector<NodeStatus> NodesIn(const Json& json);
// The error in an answer with this HTTP status. Also understands the shape of api/errors.h.
Error ParseControlError(int status, std::string_view body);

}  // namespace shoal
