// Hashes for layers.
#include "sim/fake_model.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "cluster/member.h"

namespace shoal::sim {
namespace {

constexpr std::size_t kCopyRowsAtOnce = 32;  // in one message to a copy
constexpr int kEmbd = 8;  // one byte of a hash each: small integers, which every wire type carries exactly

std::uint64_t Embedding(const FakeModel& model, TokenId token) {
  return MixHash(model.fingerprint, static_cast<std::uint64_t>(token));
}

std::uint64_t Cached(std::uint64_t before, std::uint64_t in, Position position, std::int32_t layer) {
  return MixHash(MixHash(before, in), static_cast<std::uint64_t>(position) << 16 | static_cast<std::uint64_t>(layer));
}

std::uint64_t Heard(std::uint64_t before, TokenId token) { return MixHash(before, static_cast<std::uint64_t>(token)); }

SampledToken Draw(const FakeModel& model, std::uint64_t state, std::uint64_t seed, std::uint64_t heard) {
  const std::uint64_t draw = MixHash(MixHash(state, seed), heard);
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

// As the bytes of a copy's rows.
void AppendBytes(std::uint64_t hash, std::vector<std::uint8_t>& out) {
  for (int i = 0; i < kEmbd; ++i) out.push_back(static_cast<std::uint8_t>(hash >> (8 * i)));
}

std::uint64_t FromBytes(const std::vector<std::uint8_t>& bytes, std::size_t row) {
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < kEmbd; ++i) hash |= std::uint64_t{bytes[row * kEmbd + i]} << (8 * i);
  return hash;
}

Error Refused(std::string why) { return {ErrorCode::kInvalidArgument, std::move(why)}; }

}  // namespace

const FakeModel& ModelOf(const std::vector<FakeModel>& models, const std::string& name) {
  const auto found = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.name == name; });
  SHOAL_CHECK(found != models.end());
  return *found;
}

OneNodeRun RunOnOneNode(const FakeModel& model, const std::vector<TokenId>& prompt, std::uint64_t seed,
                        std::int32_t tokens_max) {
  OneNodeRun run;
  std::vector<TokenId> tokens = prompt;
  std::vector<std::uint64_t> caches(static_cast<std::size_t>(model.layers), 0);
  std::uint64_t heard = 0;
  for (std::size_t i = 0; static_cast<std::int32_t>(run.tokens.size()) < tokens_max; ++i) {
    std::uint64_t state = Embedding(model, tokens[i]);
    for (std::int32_t layer = 0; layer < model.layers; ++layer) {
      std::uint64_t& cache = caches[static_cast<std::size_t>(layer)];
      cache = Cached(cache, state, static_cast<Position>(i), layer);
      state = cache;
    }
    heard = Heard(heard, tokens[i]);
    if (i + 1 < tokens.size()) continue;
    const SampledToken token = Draw(model, state, seed, heard);
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
      sent_(static_cast<std::size_t>(model.slots)),
      samplers_(static_cast<std::size_t>(model.slots)),
      told_(static_cast<std::size_t>(model.slots)) {}

void SimStage::Rewind(SequenceId sequence, Position position) {
  const auto length = static_cast<std::size_t>(position);
  const auto i = static_cast<std::size_t>(sequence);
  tokens_[i].resize(std::min(tokens_[i].size(), length));
  sent_[i].resize(std::min(sent_[i].size(), length));
  told_[i] = std::min(told_[i], length);
  for (auto& layer : caches_) layer[i].resize(std::min(layer[i].size(), length));
}

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
      Rewind(rewind->sequence, rewind->position);
    } else if (const auto* copy = std::get_if<CopySequence>(&op)) {
      const auto from = static_cast<std::size_t>(copy->from), to = static_cast<std::size_t>(copy->to);
      tokens_[to] = tokens_[from];
      sent_[to] = sent_[from];
      told_[to] = 0;  // its rows count where they came
      for (auto& layer : caches_) layer[to] = layer[from];
      Rewind(copy->to, copy->position);
    } else if (const auto* open = std::get_if<OpenSequence>(&op)) {
      samplers_[static_cast<std::size_t>(open->sequence)] = {
          open->generation, open->sampling.seed, static_cast<Position>(open->history.size()) - 1, open->history.back(),
          std::accumulate(open->history.begin(), open->history.end(), std::uint64_t{0}, Heard)};
      CountSpared(*open);
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
    const bool logged = !is_last() && sent_[i].size() == tokens_[i].size();
    const auto log_from = logged ? Position{0} : static_cast<Position>(tokens_[i].size());
    inventory.sequences.push_back({static_cast<SequenceId>(i), log_from, tokens_[i]});
  }
  return inventory;
}

void SimStage::CloseAll() { samplers_.assign(samplers_.size(), {}); }

Status SimStage::Replay(BatchMessage& batch) const {
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const auto sequence = static_cast<std::size_t>(batch.rows[i].sequence);
    const auto position = static_cast<std::size_t>(batch.rows[i].position);
    if (sequence >= tokens_.size() || position >= std::min(tokens_[sequence].size(), sent_[sequence].size()) ||
        tokens_[sequence][position] != batch.tokens[i]) {
      return Error{ErrorCode::kNotFound, "what was sent is gone"};
    }
    AppendFloats(sent_[sequence][position], batch.hidden);
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
      // A sequence whose beginning was not kept has nothing to be continued.
      if (sent_[sequence].size() == static_cast<std::size_t>(row.position)) sent_[sequence].push_back(state);
    } else if (row.output) {
      Sampler& sampler = samplers_[sequence];
      if (sampler.generation != row.generation) {
        failures.push_back(
            {batch.batch, row.generation, 0, ErrorCode::kNotFound, "the sequence was not opened for it"});
        continue;
      }
      const bool guessed_wrong = row.position != sampler.position || batch.tokens[i] != sampler.token;
      if (guessed_wrong && !model_.break_drafts) continue;
      const SampledToken drawn = Draw(model_, state, sampler.seed, sampler.heard);
      sampler.position = row.position + 1;
      sampler.token = drawn.token;
      sampler.heard = Heard(sampler.heard, drawn.token);
      result.rows.push_back({row.sequence, row.generation, sampler.position, drawn});
    }
  }
  batch.hidden = std::move(out);
  batch.n_embd = is_last() ? 0 : kEmbd;
  return {};
}

// ---- Copies ---------------------------------------------------------------------------------------------------------

std::optional<CopyRows> SimStage::RowsForCopy(CopyKnows& knows) const {
  knows.resize(tokens_.size());
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::vector<TokenId>& held = tokens_[i];
    std::vector<TokenId>& told = knows[i];
    const auto [end, told_end] = std::mismatch(held.begin(), held.end(), told.begin(), told.end());
    if (end == held.end() && told_end == told.end()) continue;
    const auto from = static_cast<std::size_t>(end - held.begin());
    const std::size_t to = from + std::min(held.size() - from, kCopyRowsAtOnce);
    CopyRows rows;
    rows.sequence = static_cast<SequenceId>(i);
    rows.from = static_cast<Position>(from);
    rows.tokens.assign(end, held.begin() + static_cast<std::ptrdiff_t>(to));
    for (const auto& layer : caches_) {
      for (std::size_t at = from; at < to; ++at) AppendBytes(layer[i][at], rows.cache);
    }
    for (std::size_t at = from; at < to && sent_[i].size() >= to; ++at) AppendBytes(sent_[i][at], rows.sent);
    told.resize(from);
    told.insert(told.end(), rows.tokens.begin(), rows.tokens.end());
    return rows;
  }
  return std::nullopt;
}

Status SimStage::TakeRows(const CopyRows& rows, bool forgets_first) {
  const auto i = static_cast<std::size_t>(rows.sequence), from = static_cast<std::size_t>(rows.from);
  const std::size_t count = rows.tokens.size();
  if (i >= tokens_.size() || from > tokens_[i].size()) return Refused("rows that do not follow what is held");
  if (rows.cache.size() != count * caches_.size() * kEmbd) return Error{ErrorCode::kCorrupt, "rows of other layers"};
  std::vector<std::vector<std::uint64_t>> kept;  // [layer]; none unless the rule is broken
  for (std::size_t layer = 0; !forgets_first && layer < caches_.size(); ++layer) kept.push_back(caches_[layer][i]);
  Rewind(rows.sequence, rows.from);
  std::size_t cells = count;
  for (const auto& tokens : tokens_) cells += tokens.size();
  if (cells > static_cast<std::size_t>(model_.context_tokens)) return Error{ErrorCode::kKvFull, "no room for the rows"};
  for (std::size_t layer = 0; layer < caches_.size(); ++layer) {
    for (std::size_t row = 0; row < count; ++row) {
      const bool stays = layer < kept.size() && from + row < kept[layer].size();
      caches_[layer][i].push_back(stays ? kept[layer][from + row] : FromBytes(rows.cache, layer * count + row));
    }
  }
  tokens_[i].insert(tokens_[i].end(), rows.tokens.begin(), rows.tokens.end());
  told_[i] = tokens_[i].size();
  const bool sent = rows.sent.size() == count * kEmbd && sent_[i].size() == from;
  for (std::size_t row = 0; sent && row < count; ++row) sent_[i].push_back(FromBytes(rows.sent, row));
  return {};
}

void SimStage::EmptyAll() {
  for (std::size_t i = 0; i < tokens_.size(); ++i) Rewind(static_cast<SequenceId>(i), 0);
}

bool SimStage::holds_rows() const {
  return std::any_of(tokens_.begin(), tokens_.end(), [](const auto& tokens) { return !tokens.empty(); });
}

// What its sequence still holds when a generation takes it is not computed again. The last row would have to run in any
// case: it gives the next token.
void SimStage::CountSpared(const OpenSequence& open) {
  std::size_t& told = told_[static_cast<std::size_t>(open.sequence)];
  const auto& tokens = tokens_[static_cast<std::size_t>(open.sequence)];
  const auto same = std::mismatch(tokens.begin(), tokens.end(), open.history.begin(), open.history.end()).first;
  const auto common = std::min(static_cast<std::size_t>(same - tokens.begin()), open.history.size() - 1);
  spared_ += std::min(common, std::exchange(told, 0)) * caches_.size();
}

}  // namespace shoal::sim
