// The head of a simulated placement: the real scheduler, and around it what pipeline/Pipeline does on its loop, without
// its threads and links. Knows no streams: frames come and go by calls.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "schedule/scheduler.h"
#include "transport/transport.h"
#include "wire/messages.h"

namespace shoal::sim {

class SimHead {
 public:
  using Sink = std::function<void(const ScheduleEvent&)>;
  struct Hooks {
    std::function<void(FrameBytes)> to_first;
    std::function<void(std::function<void()>)> soon;        // runs it after what runs now
    std::function<void(const std::string& why)> on_broken;  // once; not after Stop
  };

  SimHead(const ScheduleOptions& options, Epoch epoch, Hooks hooks);

  // Errors: as Scheduler::Submit; kUnavailable when it is broken. `request.id` is set here.
  Result<GenerationId> Submit(GenerationRequest request, Sink sink);
  void Cancel(GenerationId id);
  void OnResultFrame(const FrameBytes& frame);
  void Break(const std::string& why);
  void Stop();
  std::string Describe() const;  // for a person
  ScheduleStats stats() const { return scheduler_.stats(); }
  bool broken() const { return broken_; }

 private:
  void TakeInventory(InventoryMessage inventory);
  void Pump();
  void PumpSoon();
  void Dispatch(const std::vector<ScheduleEvent>& events);

  const Epoch epoch_;
  const Hooks hooks_;
  Scheduler scheduler_;
  std::vector<std::optional<InventoryMessage>> inventories_;  // [stages], until all are there
  bool adopted_ = false;
  std::map<GenerationId, Sink> sinks_;
  GenerationId last_id_ = 0;
  bool pump_posted_ = false, broken_ = false, stopped_ = false;
  std::string why_;
};

}  // namespace shoal::sim
