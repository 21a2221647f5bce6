// One task for each model that is helped with.
#include "weights/source_helper.h"

#include <algorithm>

#include "base/log.h"

namespace shoal {
namespace {

constexpr std::chrono::milliseconds kFailedMax = std::chrono::hours(1);

Error NoRoom() { return {ErrorCode::kIo, "it has no room to spare"}; }

}  // namespace

Status SourceHelper::Fetch(const StoredModel& model, const std::vector<std::size_t>& ranges) {
  const Manifest& manifest = *model.manifest;
  if (!manifest.sourced()) return Error{ErrorCode::kUnsupported, "it knows no source of the model"};
  std::uint64_t bytes = 0;
  std::vector<std::size_t> missing;
  for (const std::size_t range : ranges) {
    if (range >= manifest.ranges.size()) return Error{ErrorCode::kNotFound, "the model has no such range"};
    if (store_->Has(manifest, range)) continue;
    missing.push_back(range);
    bytes += manifest.ranges[range].bytes;
  }
  if (missing.empty()) return {};
  const std::lock_guard lock(mutex_);
  const auto idle = [&](const auto& one) {
    return !one.second.running && Clock::now() - one.second.failed_at > one.second.failed_for;
  };
  std::erase_if(helps_, [&](const auto& one) { return one.first != model.id && idle(one); });
  const auto known = helps_.find(model.id);
  if (known != helps_.end() && known->second.running) {
    known->second.wanted.insert(missing.begin(), missing.end());
    return {};
  }
  if (known != helps_.end() && !idle(*known)) return known->second.failed;
  if (!store_->Fits(bytes)) return NoRoom();
  const auto running = std::count_if(helps_.begin(), helps_.end(), [](const auto& one) { return one.second.running; });
  if (static_cast<std::size_t>(running) >= kHelpedModelsMax) {
    return Error{ErrorCode::kOverloaded, "it fetches other models for others already"};
  }
  const auto failed_for =
      known == helps_.end() ? options_.failed_for : std::min(2 * known->second.failed_for, kFailedMax);
  helps_[model.id] = Help{model, {missing.begin(), missing.end()}, true, {}, failed_for, {}};
  if (options_.run([this, id = model.id] { Work(id); })) return {};
  helps_.erase(model.id);
  return Error{ErrorCode::kOverloaded, "it does too much at a time"};
}

// Room is looked for here too: more may have been asked for since, or of another model.
Status SourceHelper::FetchNow(const StoredModel& model, const std::vector<std::size_t>& ranges) {
  std::uint64_t bytes = 0;
  for (const std::size_t range : ranges) bytes += model.manifest->ranges[range].bytes;
  return store_->Fits(bytes) ? options_.fetch(model, ranges) : NoRoom();
}

void SourceHelper::Work(const ModelId& id) {
  for (;;) {
    StoredModel model;
    std::vector<std::size_t> ranges;
    {
      const std::lock_guard lock(mutex_);
      Help& help = helps_.at(id);
      if (help.wanted.empty()) {
        helps_.erase(id);
        return;
      }
      ranges.assign(help.wanted.begin(), help.wanted.end());
      help.wanted.clear();
      model = help.model;
    }
    model.manifest = store_->WithHashes(id, model.manifest);
    std::erase_if(ranges, [&](std::size_t range) { return store_->Has(*model.manifest, range); });
    {
      const std::lock_guard lock(mutex_);
      for (const std::size_t range : ranges) fetched_[{id, range}] = Clock::time_point::max();  // Keep may take it out
    }
    const Status fetched = ranges.empty() ? Status() : FetchNow(model, ranges);
    const std::lock_guard lock(mutex_);
    for (const std::size_t range : ranges) {  // also of a failure: some may have come
      if (const auto it = fetched_.find({id, range}); it != fetched_.end())
        it->second = Clock::now() + options_.kept_for;
    }
    if (fetched.ok()) continue;
    Log(LogLevel::kInfo, "weights", "not fetched of " + model.name + " for others: " + fetched.error().message);
    Help& help = helps_.at(id);
    help.wanted.clear();
    help.running = false;
    help.failed = fetched;
    help.failed_at = Clock::now();
    return;
  }
}

void SourceHelper::Keep(const ModelId& id, const std::vector<std::size_t>& ranges) {
  const std::lock_guard lock(mutex_);
  for (const std::size_t range : ranges) fetched_.erase({id, range});
}

void SourceHelper::Tidy() {
  std::vector<std::pair<ModelId, std::size_t>> over;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = fetched_.begin(); it != fetched_.end();) {
      if (Clock::now() < it->second) {
        ++it;
      } else {
        over.push_back(it->first);
        it = fetched_.erase(it);
      }
    }
  }
  for (const auto& [id, range] : over) {
    const Result<std::shared_ptr<const Manifest>> manifest = store_->FindManifest(id);
    if (manifest.ok()) store_->Drop(**manifest, range);
  }
}

}  // namespace shoal
