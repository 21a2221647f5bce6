// One stream at a time for each copy.
#include "sim/outlets.h"

#include <algorithm>
#include <utility>

namespace shoal::sim {
namespace {

constexpr DurationUs kAgainMinUs = 500 * kMillisecond, kAgainMaxUs = 30 * kSecond;
constexpr std::size_t kFramesMax = 2;                   // one on its way, one ready
constexpr std::size_t kWayFramesMax = 3;                // that the way itself holds
constexpr DurationUs kRoomEveryUs = 20 * kMillisecond;  // looked for so often

}  // namespace

SimOutlet::SimOutlet(SimOutlets& all, int peer, CopyHello hello)
    : all_(all), peer_(peer), hello_(std::move(hello)), again_us_(kAgainMinUs) {}

void SimOutlet::Later(DurationUs delay, void (SimOutlet::*what)()) {
  all_.network_.Post(all_.self_, delay, [weak = weak_from_this(), what] {
    const std::shared_ptr<SimOutlet> outlet = weak.lock();
    if (outlet != nullptr && !outlet->stopped_) (*outlet.*what)();
  });
}

void SimOutlet::Stop() {
  if (std::exchange(stopped_, true)) return;
  session_ = 0;
  frames_.clear();
  if (stream_ == 0) return;
  all_.by_stream_.erase(stream_);
  all_.network_.Close(all_.self_, stream_);
}

void SimOutlet::Open() {
  stream_ = all_.network_.Open(all_.self_, peer_, Protocol::kCopy);
  all_.by_stream_[stream_] = this;
  all_.network_.Post(all_.self_, kStreamOpenUs, [weak = weak_from_this(), stream = stream_] {
    const std::shared_ptr<SimOutlet> outlet = weak.lock();
    if (outlet == nullptr || outlet->stream_ != stream || outlet->session_ != 0) return;
    outlet->all_.network_.Close(outlet->all_.self_, stream);
    outlet->all_.by_stream_.erase(stream);
    outlet->OnEnd();
  });
}

void SimOutlet::OnOpened() {
  all_.network_.Send(all_.self_, stream_, EncodeCopyHello(hello_));
  session_ = ++all_.sessions_;
  sent_ = 0;
}

// Not once it is stopped.
void SimOutlet::OnEnd() {
  if (sent_ > 2) again_us_ = kAgainMinUs;  // fewer fit into the way itself
  session_ = sent_ = 0;
  stream_ = 0;
  frames_.clear();
  Later(again_us_, &SimOutlet::Open);
  again_us_ = std::min(2 * again_us_, kAgainMaxUs);
}

bool SimOutlet::TryPut(FrameBytes& frame) {
  if (session_ == 0 || frames_.size() >= kFramesMax) return false;
  frames_.push_back(std::move(frame));
  if (!passing_) Pass();
  return true;
}

void SimOutlet::Pass() {
  while (!frames_.empty() && all_.network_.Unread(all_.self_, stream_) < kWayFramesMax) {
    all_.network_.Send(all_.self_, stream_, std::move(frames_.front()));
    frames_.pop_front();
    ++sent_;
  }
  passing_ = !frames_.empty();
  if (passing_) Later(kRoomEveryUs, &SimOutlet::Pass);
}

std::shared_ptr<SimOutlet> SimOutlets::Start(int peer, CopyHello hello) {
  auto outlet = std::make_shared<SimOutlet>(*this, peer, std::move(hello));
  outlet->Open();
  return outlet;
}

void SimOutlets::OnOpened(StreamId stream) {
  if (const auto found = by_stream_.find(stream); found != by_stream_.end()) found->second->OnOpened();
}

void SimOutlets::OnStreamEnd(StreamId stream) {
  const auto found = by_stream_.find(stream);
  SimOutlet& outlet = *found->second;
  by_stream_.erase(found);
  outlet.OnEnd();
}

}  // namespace shoal::sim
