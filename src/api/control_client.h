// The other end of api/control_server.h: asks the node that serves a Unix socket.
//
// Knows HTTP and JSON shapes, no terminal. Every call ends soon once its caller wants no answer any more.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "api/control_json.h"
#include "base/result.h"

namespace shoal {

// All calls block; all but Stream, Place, Unplace and Leave for at most some seconds. One thread.
// Errors, besides those of ControlService: kUnavailable (no node runs here; it does not answer in time), kCancelled,
// kCorrupt (an answer that is none of ours), kInvalidArgument (the socket's path is too long).
class ControlClient {
 public:
  // `cancelled` is asked every 50 ms of a call, on a thread of its own; once true the call ends with kCancelled.
  ControlClient(std::string socket_path, std::function<bool()> cancelled)
      : socket_path_(std::move(socket_path)), cancelled_(std::move(cancelled)) {}

  // Whether a node accepts connections there.
  bool NodeRuns() const;

  Result<ClusterStatus> GetStatus() const;
  Result<InviteStatus> Invite() const;
  // `on_nodes`: now and then, what the nodes are doing while they load; may be empty.
  Result<PlacementStatus> Place(const PlaceCommand& command,
                                const std::function<void(const std::vector<NodeStatus>&)>& on_nodes = {}) const;
  Status Unplace(const std::string& model) const;
  Status Join(const JoinCommand& command) const;
  Status Leave() const;
  Status Revoke(const std::string& node) const;
  Status TellModels() const;

  // Posts `body` and hands over every event of the stream, until it ends or `take` returns false.
  // Errors: also what the node says in an event.
  Status Stream(const std::string& path, const std::string& body, const std::function<bool(const Json&)>& take) const;

 private:
  Result<std::string> Get(const std::string& path) const;
  Result<std::string> Post(const std::string& path, const std::string& body, int timeout_s) const;

  const std::string socket_path_;
  const std::function<bool()> cancelled_;
};

// Server-sent events from bytes as they come: the data of each, without comments and [DONE]. Knows no socket.
class EventReader {
 public:
  // Takes more bytes. False once `take` returned false, or what came is no event stream: then error() says so.
  bool Add(std::string_view bytes, const std::function<bool(const Json&)>& take);
  bool done() const { return done_; }  // [DONE] came
  const std::string& rest() const { return rest_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  bool AddEvent(std::string_view event, const std::function<bool(const Json&)>& take);

  std::string rest_;  // the start of an event whose end has not come
  bool done_ = false;
  std::optional<Error> error_;
};

}  // namespace shoal
