// The routes of /control/: JSON in, a call of a ControlService, JSON out.
//
// Knows no socket: server.cc serves it, on a Unix socket only, for whoever may open that may rule the node.
#pragma once

#include <string_view>

#include "api/control_service.h"
#include "api/reply.h"

namespace shoal {

struct ControlRoute {
  std::string_view path;
  bool posted;  // POST, else GET
};
inline constexpr ControlRoute kControlRoutes[] = {
    {"/control/status", false},      {"/control/invite", true},  {"/control/place", true},
    {"/control/place/stream", true}, {"/control/unplace", true}, {"/control/join", true},
    {"/control/leave", true},        {"/control/revoke", true},  {"/control/models", true},
};

// Answers a request to one of kControlRoutes. Errors are {"error":{"code","message"}}, the code by ErrorCodeName.
// Blocks as the service does. A connection's thread.
Reply AnswerControl(ControlService& service, std::string_view path, std::string_view body);

}  // namespace shoal
