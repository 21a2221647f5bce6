// A copy hears of one stream, the latest; what it held before that one is forgotten.
#include "sim/copies.h"

#include <utility>

#include "wire/copy_messages.h"

namespace shoal::sim {

SimCopies::SimCopies(Network& network, int self, const std::vector<FakeModel>& models, const Hardware& hardware,
                     CopyRules rules, OnReady on_ready)
    : network_(network),
      self_(self),
      models_(models),
      hardware_(hardware),
      rules_(rules),
      on_ready_(std::move(on_ready)) {}

void SimCopies::Load(const PlacementRecord& placement, std::int32_t index) {
  const LayerRange layers = placement.LayersOf(index);
  const Key key{placement.model, layers.first, layers.last};
  const std::uint64_t serial = ++serials_;
  Copy& made = copies_[key] = {};
  made.serial = serial;
  made.fingerprint = placement.request.fingerprint;
  made.options_hash = OptionsHash(placement.request.options);
  network_.Post(self_, LoadTime(network_.rng(), hardware_), [this, key, serial, layers] {
    const auto found = copies_.find(key);
    if (found == copies_.end() || found->second.serial != serial) return;
    if (network_.rng().Uniform() < hardware_.load_failures) {
      copies_.erase(found);
      return on_ready_(std::get<0>(key), layers, Error{ErrorCode::kIo, "the disk failed"});
    }
    Copy& copy = found->second;
    copy.stage = std::make_unique<SimStage>(ModelOf(models_, std::get<0>(key)), layers);
    for (const FrameBytes& frame : std::exchange(copy.early, {})) (void)TakeFrame(copy, frame);
    on_ready_(std::get<0>(key), layers, {});
  });
}

void SimCopies::Drop(const std::string& model, LayerRange layers) { copies_.erase({model, layers.first, layers.last}); }

std::unique_ptr<SimStage> SimCopies::Take(const std::string& model, LayerRange layers) {
  const auto copy = copies_.extract({model, layers.first, layers.last});
  return copy.empty() ? nullptr : std::move(copy.mapped().stage);
}

std::int32_t SimCopies::layers() const {
  std::int32_t layers = 0;
  for (const auto& [key, copy] : copies_) layers += std::get<2>(key) - std::get<1>(key);
  return layers;
}

// Taken over, dropped, or told by a later stream: then a stream ends with its next frame.
void SimCopies::OnFrame(StreamId stream, FrameBytes frame) {
  Feed& feed = feeds_.at(stream);
  bool goes_on = false;
  if (!feed.greeted) {
    goes_on = Greet(stream, feed, frame);
  } else {
    const auto found = copies_.find(feed.key);
    goes_on = found != copies_.end() && found->second.serial == feed.serial && found->second.feeding == stream;
    if (goes_on) goes_on = TakeFrame(found->second, frame);
  }
  if (goes_on) return;
  feeds_.erase(stream);
  network_.Close(self_, stream);
}

bool SimCopies::Greet(StreamId stream, Feed& feed, const FrameBytes& frame) {
  const Result<CopyHello> hello = DecodeCopyHello(frame);
  SHOAL_CHECK(hello.ok());
  const auto found = copies_.find({hello->model, hello->first, hello->last});
  if (found == copies_.end()) return false;
  Copy& copy = found->second;
  if (copy.fingerprint != hello->fingerprint || copy.options_hash != hello->options_hash) return false;
  feed = {true, found->first, copy.serial};
  copy.feeding = stream;
  copy.early.clear();
  if (copy.stage) copy.stage->EmptyAll();
  return true;
}

// A sequence that has no room stays as it was, and its later rows are refused, until the stage forgets some of it.
bool SimCopies::TakeFrame(Copy& copy, const FrameBytes& frame) {
  if (copy.stage == nullptr) {
    copy.early.push_back(frame);
    return true;
  }
  const Result<CopyRows> rows = DecodeCopyRows(frame);
  SHOAL_CHECK(rows.ok());
  const Status taken = copy.stage->TakeRows(*rows, !rules_.break_rewind);
  return taken.ok() || taken.error().code != ErrorCode::kUnsupported;
}

}  // namespace shoal::sim
