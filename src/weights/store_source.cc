// A stored model read as if it were one file: each byte from the range that has it.
#include <algorithm>
#include <cstring>
#include <map>

#include "engine/shard.h"
#include "engine/split_rules.h"
#include "model/tensor_source.h"
#include "weights/store.h"

namespace shoal {
namespace {

// Where an extent's bytes begin inside its range.
struct Piece {
  std::uint64_t offset, bytes;  // in the model file
  std::size_t range;
  std::uint64_t at;
};

std::vector<Piece> PiecesOf(const Manifest& manifest) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    std::uint64_t at = 0;
    for (const Extent& extent : manifest.ranges[i].extents) {
      pieces.push_back({extent.offset, extent.bytes, i, at});
      at += extent.bytes;
    }
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
  return pieces;
}

class StoreReader final : public TensorReader {
 public:
  StoreReader(std::shared_ptr<const WeightStore> store, std::string name, std::shared_ptr<const Manifest> manifest)
      : store_(std::move(store)),
        name_(std::move(name)),
        manifest_(std::move(manifest)),
        pieces_(PiecesOf(*manifest_)) {}

  Status Read(std::uint64_t offset, std::span<std::uint8_t> out) override {
    while (!out.empty()) {
      std::uint64_t n = 0;
      if (offset < manifest_->header.size()) {
        n = std::min<std::uint64_t>(out.size(), manifest_->header.size() - offset);
        std::memcpy(out.data(), manifest_->header.data() + offset, n);
      } else {
        const Piece* piece = PieceAt(offset);
        if (piece == nullptr) return Error{ErrorCode::kIo, name_ + " ends before byte " + std::to_string(offset)};
        n = std::min<std::uint64_t>(out.size(), piece->bytes - (offset - piece->offset));
        SHOAL_ASSIGN_OR_RETURN(const int fd, Fd(piece->range));
        SHOAL_RETURN_IF_ERROR(ReadAt(fd, name_ + ", " + manifest_->ranges[piece->range].Name(),
                                     piece->at + (offset - piece->offset), out.first(n)));
      }
      out = out.subspan(n);
      offset += n;
    }
    return {};
  }

  bool Waits(std::uint64_t offset) override {
    const Piece* piece = PieceAt(offset);
    if (piece == nullptr) return false;
    const Result<int> fd = Fd(piece->range);
    return fd.ok() && WaitsAt(*fd, piece->at + (offset - piece->offset));
  }

 private:
  // Null: no range has that byte.
  const Piece* PieceAt(std::uint64_t offset) const {
    const auto next = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                       [](std::uint64_t at, const Piece& p) { return at < p.offset; });
    if (next == pieces_.begin() || offset - std::prev(next)->offset >= std::prev(next)->bytes) return nullptr;
    return &*std::prev(next);
  }

  Result<int> Fd(std::size_t range) {
    if (const auto known = pins_.find(range); known != pins_.end()) return known->second.get();
    Result<OwnedFd> pin = store_->Pin(*manifest_, range);
    if (!pin.ok()) {
      return Error{pin.error().code, manifest_->ranges[range].Name() + " of " + name_ + " is not on this node"};
    }
    return pins_.emplace(range, *std::move(pin)).first->second.get();
  }

  const std::shared_ptr<const WeightStore> store_;
  const std::string name_;
  const std::shared_ptr<const Manifest> manifest_;
  const std::vector<Piece> pieces_;
  std::map<std::size_t, OwnedFd> pins_;  // by range
};

class StoreSource final : public TensorSource {
 public:
  StoreSource(std::shared_ptr<const WeightStore> store, const StoredModel& model)
      : store_(std::move(store)), name_(model.name), local_path_(model.local_path), manifest_(model.manifest) {}
  Result<std::unique_ptr<TensorReader>> Open() const override {
    if (!local_path_.empty()) return store_->OpenLocal(local_path_, manifest_->file_bytes);
    return std::unique_ptr<TensorReader>(std::make_unique<StoreReader>(store_, name_, manifest_));
  }

 private:
  const std::shared_ptr<const WeightStore> store_;
  const std::string name_, local_path_;
  const std::shared_ptr<const Manifest> manifest_;
};

}  // namespace

std::shared_ptr<const TensorSource> MakeStoreSource(std::shared_ptr<const WeightStore> store,
                                                    const StoredModel& model) {
  return std::make_shared<StoreSource>(std::move(store), model);
}

Result<std::vector<std::size_t>> RangesOf(const Manifest& manifest, LayerRange layers) {
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelFile> model, ModelOf(manifest, "model", nullptr));
  const bool whole = layers.first == 0 && layers.last == model->info.n_layer;
  SHOAL_ASSIGN_OR_RETURN(
      const Shard shard,
      MakeShard(model, layers, whole && !RulesFor(*model).splittable ? ShardHead::kAsStored : ShardHead::kSeparate));
  const std::vector<Piece> pieces = PiecesOf(manifest);
  std::vector<bool> needed(manifest.ranges.size());
  const auto mark = [&](std::uint64_t offset) {
    auto piece = std::upper_bound(pieces.begin(), pieces.end(), offset,
                                  [](std::uint64_t at, const Piece& p) { return at < p.offset; });
    if (piece != pieces.begin()) needed[std::prev(piece)->range] = true;
  };
  // A tensor lies in one range: its first byte tells which.
  for (const ShardSegment& segment : shard.segments) {
    if (segment.source_offset >= 0) mark(static_cast<std::uint64_t>(segment.source_offset));
  }
  std::vector<std::size_t> ranges;
  for (std::size_t i = 0; i < needed.size(); ++i) {
    const bool looked_up = manifest.ranges[i].kind == RangeKind::kEmbedding && layers.first == 0;
    if (needed[i] || looked_up) ranges.push_back(i);
  }
  return ranges;
}

}  // namespace shoal
