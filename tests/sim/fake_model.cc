// Hashes for layers.
#include "sim/fake_model.h"

#include <algorithm>

#include "cluster/member.h"

namespace shoal::sim {
namespace {

constexpr int kEmbd = 8;  // one byte of a hash each: small integers, which every wire type carries exactly

std::uint64_t Embedding(const FakeModel& model, TokenId token) {
  return MixHash(model.fingerprint, static_cast<std::uint64_t>(token));
}

std::uint64_t Cached(std::uint64_t before, std::uint64_t in, Position position, std::int32_t layer) {
  return MixHash(MixHash(before, in), static_cast<std::uint64_t>(position) << 16 | static_cast<std::uint64_t>(layer));
}

SampledToken Draw(const FakeModel& model, std::uint64_t state, std::uint64_t seed) {
  const std::uint64_t draw = MixHash(state, seed);
  SampledToken token;
  token.token = static_cast<TokenId>(draw % static_cast<std::uint64_t>(model.vocabulary));
  token.end = (draw >> 40) % model.end_every == 0;
  return token;
}

std::uint64_t FromFloats(const float* values) {
  std::uint64_t hash = 0;
  for (int i = 0; i < kEmbd; ++i) hash |= static_cast<std::uint64_t>(values[i]) << (8 * i);
  return hash;
}

void AppendFloats(std::uint64_t hash, std::vector<float>& out) {
  for (int i = 0; i < kEmbd; ++i) out.push_back(static_cast<float>((hash >> (8 * i)) & 0xFF));
}

Error Refused(std::string why) { return {ErrorCode::kInvalidArgument, std::move(why)}; }

}  // namespace

OneNodeRun RunOnOneNode(const FakeModel& model, const std::vector<TokenId>& prompt, std::uint64_t seed,
                        std::int32_t tokens_max) {
  OneNodeRun run;
  std::vector<TokenId> tokens = prompt;
  std::vector<std::uint64_t> caches(static_cast<std::size_t>(model.layers), 0);
  for (std::size_t i = 0; static_cast<std::int32_t>(run.tokens.size()) < tokens_max; ++i) {
    std::uint64_t state = Embedding(model, tokens[i]);
    for (std::int32_t layer = 0; layer < model.layers; ++layer) {
      std::uint64_t& cache = caches[static_cast<std::size_t>(layer)];
      cache = Cached(cache, state, static_cast<Position>(i), layer);
      state = cache;
    }
    if (i + 1 < tokens.size()) continue;
    const SampledToken token = Draw(model, state, seed);
    run.tokens.push_back(token.token);
    tokens.push_back(token.token);
    if (token.end) {
      run.stopped = true;
      break;
    }
  }
  return run;
}

SimStage::SimStage(const FakeModel& model, LayerRange layers)
    : model_(model),
      layers_(layers),
      caches_(static_cast<std::size_t>(layers.count()),
              std::vector<std::vector<std::uint64_t>>(static_cast<std::size_t>(model.slots))),
      tokens_(static_cast<std::size_t>(model.slots)),
      samplers_(static_cast<std::size_t>(model.slots)) {}

Status SimStage::Apply(const ControlMessage& control, StageIndex self) {
  const auto known = [&](SequenceId sequence) { return sequence >= 0 && sequence < model_.slots; };
  for (const ControlOp& op : control.ops) {
    bool ok = false;
    if (const auto* copy = std::get_if<CopySequence>(&op)) ok = known(copy->from) && known(copy->to);
    if (const auto* open = std::get_if<OpenSequence>(&op)) ok = known(open->sequence);
    if (const auto* rewind = std::get_if<RewindSequence>(&op)) ok = known(rewind->sequence);
    if (const auto* close = std::get_if<CloseSequence>(&op)) ok = known(close->sequence);
    if (!ok) return Refused("a sequence out of range");
  }
  for (const ControlOp& op : control.ops) {
    if (const auto* rewind = std::get_if<RewindSequence>(&op)) {
      if (rewind->stage != kAllStages && rewind->stage != self) continue;
      auto& tokens = tokens_[static_cast<std::size_t>(rewind->sequence)];
      tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(rewind->position)));
      for (auto& layer : caches_) {
        auto& cells = layer[static_cast<std::size_t>(rewind->sequence)];
        cells.resize(std::min(cells.size(), static_cast<std::size_t>(rewind->position)));
      }
    } else if (const auto* copy = std::get_if<CopySequence>(&op)) {
      const auto& tokens = tokens_[static_cast<std::size_t>(copy->from)];
      const auto count = std::min(tokens.size(), static_cast<std::size_t>(copy->position));
      tokens_[static_cast<std::size_t>(copy->to)] = {tokens.begin(),
                                                     tokens.begin() + static_cast<std::ptrdiff_t>(count)};
      for (auto& layer : caches_) {
        const auto& from = layer[static_cast<std::size_t>(copy->from)];
        const auto length = std::min(from.size(), static_cast<std::size_t>(copy->position));
        layer[static_cast<std::size_t>(copy->to)] = {from.begin(), from.begin() + static_cast<std::ptrdiff_t>(length)};
      }
    } else if (const auto* open = std::get_if<OpenSequence>(&op)) {
      samplers_[static_cast<std::size_t>(open->sequence)] = {open->generation, open->sampling.seed};
    } else if (const auto* close = std::get_if<CloseSequence>(&op)) {
      Sampler& sampler = samplers_[static_cast<std::size_t>(close->sequence)];
      if (sampler.generation == close->generation) sampler = {};
    }
  }
  return {};
}

InventoryMessage SimStage::Inventory(StageIndex self) const {
  InventoryMessage inventory{self, {}};
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].empty()) continue;
    const auto log_from = is_last() ? static_cast<Position>(tokens_[i].size()) : 0;
    inventory.sequences.push_back({static_cast<SequenceId>(i), log_from, tokens_[i]});
  }
  return inventory;
}

void SimStage::CloseAll() { samplers_.assign(samplers_.size(), {}); }

// What it sent is what its last layer's cache holds.
Status SimStage::Replay(BatchMessage& batch) const {
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const auto sequence = static_cast<std::size_t>(batch.rows[i].sequence);
    const auto position = static_cast<std::size_t>(batch.rows[i].position);
    if (sequence >= tokens_.size() || position >= tokens_[sequence].size() ||
        tokens_[sequence][position] != batch.tokens[i]) {
      return Error{ErrorCode::kNotFound, "what was sent is gone"};
    }
    AppendFloats(caches_.back()[sequence][position], batch.hidden);
  }
  batch.n_embd = kEmbd;
  return {};
}

Status SimStage::CheckRows(const BatchMessage& batch) const {
  const bool tokens = layers_.first == 0;
  if (batch.tokens.size() != batch.rows.size() || batch.hidden.size() != (tokens ? 0 : batch.rows.size() * kEmbd)) {
    return Refused("rows without tokens or hidden states");
  }
  std::map<SequenceId, Position> next;
  for (const BatchRow& row : batch.rows) {
    if (row.sequence < 0 || row.sequence >= model_.slots) return Refused("a sequence out of range");
    const auto length = static_cast<Position>(caches_[0][static_cast<std::size_t>(row.sequence)].size());
    Position& position = next.try_emplace(row.sequence, length).first->second;
    if (row.position != position++) return Refused("a row that does not continue its sequence");
  }
  return {};
}

Status SimStage::Forward(BatchMessage& batch, ResultMessage& result, std::vector<FailureMessage>& failures) {
  SHOAL_RETURN_IF_ERROR(CheckRows(batch));
  result.batch = batch.batch;
  std::vector<float> out;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const BatchRow& row = batch.rows[i];
    const auto sequence = static_cast<std::size_t>(row.sequence);
    std::uint64_t state =
        layers_.first == 0 ? Embedding(model_, batch.tokens[i]) : FromFloats(&batch.hidden[i * kEmbd]);
    for (std::size_t layer = 0; layer < caches_.size(); ++layer) {
      auto& cells = caches_[layer][sequence];
      cells.push_back(Cached(cells.empty() ? 0 : cells.back(), state, row.position,
                             layers_.first + static_cast<std::int32_t>(layer)));
      state = cells.back();
    }
    tokens_[sequence].push_back(batch.tokens[i]);
    if (!is_last()) {
      AppendFloats(state, out);
    } else if (row.output) {
      const Sampler& sampler = samplers_[sequence];
      if (sampler.generation != row.generation) {
        failures.push_back(
            {batch.batch, row.generation, 0, ErrorCode::kNotFound, "the sequence was not opened for it"});
        continue;
      }
      result.rows.push_back({row.sequence, row.generation, row.position + 1, Draw(model_, state, sampler.seed)});
    }
  }
  batch.hidden = std::move(out);
  batch.n_embd = is_last() ? 0 : kEmbd;
  return {};
}

}  // namespace shoal::sim
