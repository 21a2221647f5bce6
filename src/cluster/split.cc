// Shares by speed, capped by memory; cuts moved to where they are allowed.
#include "cluster/split.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/units.h"

namespace shoal {
namespace {

constexpr std::int32_t kContextTokensDefault = 4096;

std::int32_t StagesMax(const ModelShape& shape) { return static_cast<std::int32_t>(shape.cuts.size()) + 1; }

Status CheckRanges(const ModelShape& shape, const std::vector<LayerRange>& ranges) {
  std::int32_t next = 0;
  for (const LayerRange& range : ranges) {
    if (range.first != next || range.last <= range.first || range.last > shape.layers()) {
      return Error{ErrorCode::kInvalidArgument, "the ranges must cover layers 0 to " +
                                                    std::to_string(shape.layers() - 1) + " in order, without gaps"};
    }
    if (range.first > 0 && std::find(shape.cuts.begin(), shape.cuts.end(), range.first) == shape.cuts.end()) {
      return Error{ErrorCode::kInvalidArgument, "the model cannot be cut before layer " + std::to_string(range.first)};
    }
    next = range.last;
  }
  if (next == shape.layers()) return {};
  return Error{ErrorCode::kInvalidArgument, "the ranges end before the model's last layer"};
}

// Layers from `first` that fit into `device`, taking a cut or the end; at least up to the first cut after `first`.
std::int32_t LastThatFits(const ModelShape& shape, std::int32_t first, std::uint64_t memory,
                          const PlaceOptions& options) {
  std::int32_t best = first;
  for (const std::int32_t cut : shape.cuts) {
    if (cut > first && StageBytes(shape, {first, cut}, options) <= memory) best = cut;
  }
  if (StageBytes(shape, {first, shape.layers()}, options) <= memory) best = shape.layers();
  return best;
}

// Stages of about the share that speed asks for, no larger than memory allows, leaving a cut for each that follows.
std::vector<LayerRange> Cut(const ModelShape& shape, const std::vector<SplitDevice>& devices,
                            const PlaceOptions& options) {
  const std::uint64_t all = StageBytes(shape, {0, shape.layers()}, options);
  double speed_left = 0;
  for (const SplitDevice& device : devices) speed_left += device.speed;
  std::vector<LayerRange> ranges;
  std::int32_t first = 0;
  std::uint64_t done = 0;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    std::int32_t last = shape.layers();
    if (i + 1 < devices.size()) {
      const double want = static_cast<double>(all - done) * devices[i].speed / std::max(speed_left, 1e-9);
      const auto after = static_cast<std::int32_t>(devices.size() - i - 1);
      std::int32_t best = -1;
      double best_off = 0;
      for (std::size_t c = 0; c < shape.cuts.size(); ++c) {
        const std::int32_t cut = shape.cuts[c];
        const auto cuts_after = static_cast<std::int32_t>(shape.cuts.size() - c) - 1;
        if (cut <= first || cuts_after < after - 1) continue;
        const std::uint64_t bytes = StageBytes(shape, {first, cut}, options);
        if (best >= 0 && bytes > devices[i].memory_bytes) break;
        const double off = std::abs(static_cast<double>(bytes) - want);
        if (best < 0 || off < best_off) {
          best = cut;
          best_off = off;
        }
      }
      last = best < 0 ? shape.layers() : best;
    }
    ranges.push_back({first, last});
    done += StageBytes(shape, {first, last}, options);
    done = std::min(done, all);
    speed_left -= devices[i].speed;
    first = last;
  }
  return ranges;
}

bool Fits(const ModelShape& shape, const std::vector<SplitDevice>& devices, const std::vector<LayerRange>& ranges,
          const PlaceOptions& options) {
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].count() < 1 || StageBytes(shape, ranges[i], options) > devices[i].memory_bytes) return false;
  }
  return true;
}

// As many layers as fit on each in turn: where shares by speed do not fit, this does, if anything does.
std::vector<LayerRange> Fill(const ModelShape& shape, const std::vector<SplitDevice>& devices,
                             const PlaceOptions& options) {
  std::vector<LayerRange> ranges;
  std::int32_t first = 0;
  for (std::size_t i = 0; i < devices.size() && first < shape.layers(); ++i) {
    const auto after = static_cast<std::int32_t>(devices.size() - i - 1);
    std::int32_t last = LastThatFits(shape, first, devices[i].memory_bytes, options);
    // Everybody chosen gets a layer: leave cuts for those that follow.
    const std::int32_t latest =
        after == 0 ? shape.layers() : shape.cuts[shape.cuts.size() - static_cast<std::size_t>(after)];
    last = std::min(last, latest);
    ranges.push_back({first, last});
    first = last;
  }
  return ranges;
}

Error TooLarge(const ModelShape& shape, const std::vector<SplitDevice>& devices, const PlaceOptions& options) {
  const std::uint64_t need = StageBytes(shape, {0, shape.layers()}, options);
  std::uint64_t have = 0;
  for (const SplitDevice& device : devices) have += device.memory_bytes;
  const std::string missing = need > have ? FormatBytes(need - have) + " are missing"
                                          : std::string("no cut of the layers fits each device's share");
  return {ErrorCode::kOutOfMemory,
          "the model needs " + FormatBytes(need) + " with this context, the " + std::to_string(devices.size()) +
              (devices.size() == 1 ? " device has " : " devices have ") + FormatBytes(have) + " for it: " + missing +
              "; use a smaller context, a smaller model, or another device"};
}

}  // namespace

std::uint64_t StageBytes(const ModelShape& shape, LayerRange layers, const PlaceOptions& options) {
  const auto tokens =
      static_cast<std::uint64_t>(options.context_tokens > 0 ? options.context_tokens : kContextTokensDefault);
  const bool q8 = options.kv_type == KvType::kQ8_0;
  std::uint64_t bytes = layers.last == shape.layers() ? shape.output_bytes : 0;
  for (std::int32_t i = layers.first; i < layers.last; ++i) {
    const auto at = static_cast<std::size_t>(i);
    bytes += shape.layer_bytes[at];
    const std::uint64_t kv = (at < shape.kv_bytes.size() ? shape.kv_bytes[at] : 0) * tokens;
    bytes += q8 ? kv * 17 / 32 : kv;
  }
  return bytes;
}

Result<std::vector<SplitStage>> SplitModel(const ModelShape& shape, const std::vector<SplitDevice>& given,
                                           std::int32_t stages, const std::vector<LayerRange>& ranges,
                                           const PlaceOptions& options) {
  if (given.empty()) return Error{ErrorCode::kNotFound, "there is no device to place the model on"};
  if (shape.layers() < 1) return Error{ErrorCode::kInvalidArgument, "the model has no layers"};
  if (!ranges.empty()) stages = static_cast<std::int32_t>(ranges.size());
  const auto count = static_cast<std::int32_t>(given.size());
  if (stages > count) {
    return Error{ErrorCode::kInvalidArgument, std::to_string(stages) + " stages need as many devices; there " +
                                                  (count == 1 ? "is 1" : "are " + std::to_string(count)) +
                                                  " that hold the model"};
  }
  if (stages > StagesMax(shape)) {
    return Error{ErrorCode::kInvalidArgument,
                 "the model can be cut into " + std::to_string(StagesMax(shape)) + " stages at most"};
  }

  // Which devices: the ones with the most memory, in the order given.
  std::vector<std::int32_t> chosen(given.size());
  std::iota(chosen.begin(), chosen.end(), 0);
  const std::int32_t wanted = stages > 0 ? stages : std::min(count, StagesMax(shape));
  if (ranges.empty()) {
    std::stable_sort(chosen.begin(), chosen.end(), [&](std::int32_t a, std::int32_t b) {
      return given[static_cast<std::size_t>(a)].memory_bytes > given[static_cast<std::size_t>(b)].memory_bytes;
    });
  }
  chosen.resize(static_cast<std::size_t>(wanted));
  std::sort(chosen.begin(), chosen.end());

  std::vector<SplitDevice> devices;
  double known = 0;
  int known_count = 0;
  for (const std::int32_t index : chosen) {
    devices.push_back(given[static_cast<std::size_t>(index)]);
    if (devices.back().speed > 0) {
      known += devices.back().speed;
      ++known_count;
    }
  }
  for (SplitDevice& device : devices) {
    if (!(device.speed > 0)) device.speed = known_count > 0 ? known / known_count : 1.0;
  }

  std::vector<LayerRange> cut = ranges;
  if (!ranges.empty()) {
    SHOAL_RETURN_IF_ERROR(CheckRanges(shape, ranges));
    if (!Fits(shape, devices, cut, options)) return TooLarge(shape, devices, options);
  } else {
    cut = Cut(shape, devices, options);
    if (!Fits(shape, devices, cut, options)) cut = Fill(shape, devices, options);
    const bool whole = !cut.empty() && cut.back().last == shape.layers() && cut.size() == devices.size();
    if (!whole || !Fits(shape, devices, cut, options)) {
      // A device that is too small for a single layer is in the way of the others.
      if (stages == 0 && wanted > 1) { return SplitModel(shape, given, wanted - 1, ranges, options); }
      return TooLarge(shape, devices, options);
    }
  }
  std::vector<SplitStage> result;
  for (std::size_t i = 0; i < cut.size(); ++i) result.push_back({chosen[i], cut[i]});
  return result;
}

}  // namespace shoal
