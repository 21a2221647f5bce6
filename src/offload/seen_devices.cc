// One question to each process; what it answers is checked like a stranger's words.
#include "offload/seen_devices.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/program_path.h"
#include "engine/backend_files.h"
#include "offload/channel.h"
#include "offload/messages.h"
#include "offload/process.h"

namespace shoal {
namespace {

using SteadyClock = std::chrono::steady_clock;

// A process that was asked.
class Asked {
 public:
  Asked(const std::string& backend, const std::vector<std::string>& command) : backend_(backend) {
    Result<OffloadProcess::Started> started = OffloadProcess::Start(command);
    if (!started.ok()) {
      unknown_ = started.error().message;
      return;
    }
    process_ = std::move(started->process);
    channel_ = std::make_unique<OffloadChannel>(started->socket);
    const auto* const name = reinterpret_cast<const std::uint8_t*>(backend.data());
    (void)channel_->Send(OffloadKind::kSee, {name, backend.size()});  // one that is gone already is not heard of either
  }

  BackendDevices Answer(std::chrono::milliseconds time_max) {
    BackendDevices answer;
    answer.backend = backend_;
    if (channel_ != nullptr) {
      Result<std::vector<SeenDevice>> seen = Seen(time_max);
      if (seen.ok()) answer.devices = *std::move(seen);
      if (!seen.ok()) unknown_ = seen.error().message;
      channel_->Shutdown();
      (void)process_->End();
    }
    answer.unknown = unknown_;
    return answer;
  }

 private:
  Result<std::vector<SeenDevice>> Seen(std::chrono::milliseconds time_max) {
    Result<OffloadChannel::Message> message = channel_->Receive(kOffloadSmallBytesMax, time_max);
    if (!message.ok()) {
      const bool silent = message.error().code == ErrorCode::kCancelled;
      channel_->Shutdown();
      const std::string how = process_->End();
      return Error{ErrorCode::kUnavailable, silent ? "its process did not answer in time" : "its process " + how};
    }
    if (message->kind != OffloadKind::kReply) return Error{ErrorCode::kCorrupt, "its process answers something else"};
    SHOAL_ASSIGN_OR_RETURN(const OffloadReply reply, DecodeReply(message->bytes, 0));
    SHOAL_RETURN_IF_ERROR(reply.status);
    return DecodeSeen(reply.data);
  }

  const std::string backend_;
  std::string unknown_;
  std::unique_ptr<OffloadProcess> process_;
  std::unique_ptr<OffloadChannel> channel_;
};

}  // namespace

std::vector<BackendDevices> SeeDevices(const std::vector<std::string>& command, std::chrono::milliseconds time_max) {
  const std::vector<std::string> words =
      command.empty() ? std::vector{ProgramPath(), std::string(kOffloadCommand)} : command;
  const SteadyClock::time_point end = SteadyClock::now() + time_max;
  std::vector<std::string> backends = OtherBackends();
  backends.emplace_back();
  std::vector<std::unique_ptr<Asked>> asked;
  for (const std::string& backend : backends) asked.push_back(std::make_unique<Asked>(backend, words));
  std::vector<BackendDevices> answers;
  for (const std::unique_ptr<Asked>& one : asked) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - SteadyClock::now());
    BackendDevices answer = one->Answer(std::max(left, std::chrono::milliseconds(1)));
    if (!answer.backend.empty() || !answer.devices.empty()) answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace shoal
