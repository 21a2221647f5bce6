// Questions of members, answered from the store.
#include <algorithm>

#include "base/log.h"
#include "weights/peers.h"

namespace shoal {
namespace {

constexpr std::size_t kKnownMax = 64;

}  // namespace

WeightServer::WeightServer(std::shared_ptr<const WeightStore> store,
                           std::function<Result<StoredModel>(ModelFingerprint)> find, FetchForOthers fetch)
    : store_(std::move(store)), find_(std::move(find)), fetch_(std::move(fetch)) {}

// Not locked while it finds: a file may be hashed first, and other models are served meanwhile.
Result<std::shared_ptr<WeightServer::Known>> WeightServer::ByFingerprint(ModelFingerprint fingerprint, bool anew) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(fingerprint);
    if (found != known_.end() && !(anew && found->second->model.manifest->sourced())) return found->second;
  }
  auto known = std::make_shared<Known>();
  SHOAL_ASSIGN_OR_RETURN(known->model, find_(fingerprint));
  known->manifest = EncodeManifest(*known->model.manifest);
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kKnownMax) known_.erase(known_.begin());
  return known_.insert_or_assign(fingerprint, known).first->second;
}

// Of a sourced model hashes become known meanwhile.
std::shared_ptr<WeightServer::Known> WeightServer::Renewed(std::shared_ptr<Known> known) {
  StoredModel& model = known->model;
  std::shared_ptr<const Manifest> now = store_->WithHashes(model.id, model.manifest);
  if (now == model.manifest) return known;
  const std::lock_guard lock(mutex_);
  auto renewed = std::make_shared<Known>(*known);
  renewed->model.manifest = std::move(now);
  for (auto& [fingerprint, one] : known_) {
    if (one->model.id == model.id) one = renewed;
  }
  return renewed;
}

Result<std::shared_ptr<WeightServer::Known>> WeightServer::ById(const ModelId& id, std::optional<std::size_t> range) {
  std::shared_ptr<Known> one;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [fingerprint, known] : known_) {
      if (known->model.id == id) {
        one = known;
        break;
      }
    }
  }
  if (one != nullptr) {
    const std::vector<WeightRange>& ranges = one->model.manifest->ranges;
    if (range && *range < ranges.size() && ranges[*range].known()) return one;
    return Renewed(std::move(one));
  }
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Manifest> manifest, store_->FindManifest(id));
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<Known> known,
                         ByFingerprint(FingerprintOf(manifest->header, manifest->file_bytes), true));
  if (known->model.id != id) return Error{ErrorCode::kNotFound, "another file of the same name is here"};
  return known;
}

// What is damaged on this disk is told once, and offered to nobody any more.
Result<WeightAnswer> WeightServer::ReplyChunk(Known& known, const ChunkAsk& ask) {
  Result<std::vector<std::uint8_t>> bytes = store_->ReadChunk(known.model, ask.range, ask.chunk);
  if (bytes.ok()) return WeightAnswer(ChunkAnswer{*std::move(bytes)});
  if (bytes.error().code == ErrorCode::kCorrupt) {
    const std::uint64_t bit = known.model.manifest->ChunksBefore(ask.range) + ask.chunk;
    const std::lock_guard lock(mutex_);
    if (known.damaged.insert(bit).second) Log(LogLevel::kWarning, "weights", bytes.error().message);
  }
  return bytes.error();
}

WeightAnswer WeightServer::ReplyRanges(const Known& known) const {
  RangesAnswer answer;
  for (std::size_t i = 0; i < known.model.manifest->ranges.size(); ++i) {
    const bool here = known.model.manifest->ranges[i].known() && store_->Has(*known.model.manifest, i);
    answer.states.push_back(here ? RangeState::kHere : store_->claims().Of(known.model.id, i));
  }
  return answer;
}

Result<WeightAnswer> WeightServer::ReplyFetch(const FetchAsk& ask) {
  if (!fetch_) return Error{ErrorCode::kUnsupported, "it fetches nothing for others"};
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<Known> known, ById(ask.id));
  SHOAL_RETURN_IF_ERROR(fetch_(known->model, {ask.ranges.begin(), ask.ranges.end()}));
  return WeightAnswer(FetchAnswer{});
}

Result<WeightAnswer> WeightServer::Reply(const WeightAsk& ask) {
  if (const auto* manifest = std::get_if<ManifestAsk>(&ask)) {
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const Known> known,
                           ByFingerprint(manifest->fingerprint, manifest->offset == 0));
    const std::vector<std::uint8_t>& bytes = known->manifest;
    const std::uint64_t from = std::min<std::uint64_t>(manifest->offset, bytes.size());
    const std::uint64_t to = std::min<std::uint64_t>(bytes.size(), from + kManifestPieceBytesMax);
    ManifestPiece piece{known->model.id, bytes.size(), {}};
    piece.bytes.assign(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                       bytes.begin() + static_cast<std::ptrdiff_t>(to));
    return WeightAnswer(std::move(piece));
  }
  if (const auto* have = std::get_if<HaveAsk>(&ask)) {
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<Known> known, ById(have->id));
    HaveAnswer answer{store_->HaveBits(known->model)};
    const std::lock_guard lock(mutex_);
    for (const std::uint64_t bit : known->damaged)
      answer.bits[bit / 8] &= static_cast<std::uint8_t>(~(1U << (bit % 8)));
    return WeightAnswer(std::move(answer));
  }
  if (const auto* ranges = std::get_if<RangesAsk>(&ask)) {
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<Known> known, ById(ranges->id));
    return ReplyRanges(*known);
  }
  if (const auto* hashes = std::get_if<HashesAsk>(&ask)) {
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<Known> known, ById(hashes->id, hashes->range));
    const Manifest& manifest = *known->model.manifest;
    if (hashes->range >= manifest.ranges.size() || !manifest.ranges[hashes->range].known()) {
      return Error{ErrorCode::kNotFound, "its hashes are not known here"};
    }
    return WeightAnswer(HashesAnswer{manifest.ranges[hashes->range].chunks});
  }
  if (const auto* fetch = std::get_if<FetchAsk>(&ask)) return ReplyFetch(*fetch);
  const auto& chunk = std::get<ChunkAsk>(ask);
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<Known> known, ById(chunk.id, chunk.range));
  return ReplyChunk(*known, chunk);
}

std::vector<std::uint8_t> WeightServer::Answer(std::span<const std::uint8_t> question) {
  const Result<WeightAsk> ask = ParseWeightAsk(question);
  if (!ask.ok()) return Encode(WeightAnswer(Refusal{ask.error().message}));
  const Result<WeightAnswer> reply = Reply(*ask);
  return Encode(reply.ok() ? *reply : WeightAnswer(Refusal{reply.error().message}));
}

}  // namespace shoal
