// Questions of members, answered from the store.
#include <algorithm>

#include "weights/peers.h"

namespace shoal {
namespace {

constexpr std::size_t kKnownMax = 64;

}  // namespace

WeightServer::WeightServer(std::shared_ptr<const WeightStore> store,
                           std::function<Result<StoredModel>(ModelFingerprint)> find)
    : store_(std::move(store)), find_(std::move(find)) {}

// Held over the hashing of a local file: whoever asks next waits for the same work.
Result<std::shared_ptr<const WeightServer::Known>> WeightServer::ByFingerprint(ModelFingerprint fingerprint) {
  const std::lock_guard lock(mutex_);
  if (const auto found = known_.find(fingerprint); found != known_.end()) return found->second;
  auto known = std::make_shared<Known>();
  SHOAL_ASSIGN_OR_RETURN(known->model, find_(fingerprint));
  known->manifest = EncodeManifest(*known->model.manifest);
  if (known_.size() >= kKnownMax) known_.erase(known_.begin());
  known_[fingerprint] = known;
  return std::shared_ptr<const Known>(known);
}

Result<std::shared_ptr<const WeightServer::Known>> WeightServer::ById(const ModelId& id) {
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [fingerprint, known] : known_) {
      if (known->model.id == id) return known;
    }
  }
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Manifest> manifest, store_->FindManifest(id));
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const Known> known,
                         ByFingerprint(FingerprintOf(manifest->header, manifest->file_bytes)));
  if (known->model.id != id) return Error{ErrorCode::kNotFound, "another file of the same name is here"};
  return known;
}

Result<WeightAnswer> WeightServer::Reply(const WeightAsk& ask) {
  if (const auto* manifest = std::get_if<ManifestAsk>(&ask)) {
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Known> known, ByFingerprint(manifest->fingerprint));
    const std::vector<std::uint8_t>& bytes = known->manifest;
    const std::uint64_t from = std::min<std::uint64_t>(manifest->offset, bytes.size());
    const std::uint64_t to = std::min<std::uint64_t>(bytes.size(), from + kManifestPieceBytesMax);
    ManifestPiece piece{known->model.id, bytes.size(), {}};
    piece.bytes.assign(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                       bytes.begin() + static_cast<std::ptrdiff_t>(to));
    return WeightAnswer(std::move(piece));
  }
  if (const auto* have = std::get_if<HaveAsk>(&ask)) {
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Known> known, ById(have->id));
    return WeightAnswer(HaveAnswer{store_->HaveBits(known->model)});
  }
  const auto& chunk = std::get<ChunkAsk>(ask);
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Known> known, ById(chunk.id));
  SHOAL_ASSIGN_OR_RETURN(std::vector<std::uint8_t> bytes, store_->ReadChunk(known->model, chunk.range, chunk.chunk));
  return WeightAnswer(ChunkAnswer{std::move(bytes)});
}

std::vector<std::uint8_t> WeightServer::Answer(std::span<const std::uint8_t> question) {
  const Result<WeightAsk> ask = ParseWeightAsk(question);
  if (!ask.ok()) return Encode(WeightAnswer(Refusal{ask.error().message}));
  const Result<WeightAnswer> reply = Reply(*ask);
  return Encode(reply.ok() ? *reply : WeightAnswer(Refusal{reply.error().message}));
}

}  // namespace shoal
