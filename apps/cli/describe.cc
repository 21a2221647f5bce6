// `shoal model`: what a GGUF file is, what its layers weigh, and where it may be cut.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/named_models.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "engine/split_rules.h"

namespace shoal::cli {
namespace {

// "every layer", or "4, 8, 12".
std::string CutsText(const SplitRules& rules, std::int32_t n_layer) {
  if (!rules.splittable) return "no: " + rules.reason;
  if (static_cast<std::int32_t>(rules.cuts.size()) == n_layer - 1) return "before every layer";
  std::string text = "before layers ";
  for (std::size_t i = 0; i < rules.cuts.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(rules.cuts[i]);
  return text;
}

void PrintJson(const ModelInfo& info, const SplitRules& rules) {
  const LayerRange all{0, info.n_layer};
  const nlohmann::json json{
      {"path", info.path},
      {"name", info.name},
      {"architecture", info.architecture},
      {"quantization", info.quantization},
      {"layers", info.n_layer},
      {"embedding_length", info.n_embd},
      {"vocabulary", info.n_vocab},
      {"heads", info.n_head},
      {"context_length", info.n_ctx_train},
      {"experts", info.n_expert},
      {"parameters", info.parameters},
      {"file_bytes", info.file_bytes},
      {"layer_bytes", info.layer_bytes},
      {"embedding_bytes", info.embedding_bytes},
      {"output_bytes", info.output_bytes},
      {"tied_output", info.tied_output},
      {"recurrent", info.recurrent},
      {"kv_bytes_per_token",
       {{"f16", info.KvBytesPerToken(all, KvType::kF16)}, {"q8_0", info.KvBytesPerToken(all, KvType::kQ8_0)}}},
      {"splittable", rules.splittable},
      {"reason", rules.reason},
      {"cuts", rules.cuts}};
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

void PrintText(const ModelInfo& info, const SplitRules& rules) {
  const LayerRange all{0, info.n_layer};
  std::vector<std::vector<std::string>> facts{
      {"name", ": " + info.name},
      {"architecture", ": " + info.architecture + (info.recurrent ? " (recurrent)" : "")},
      {"size", ": " + FormatBytes(info.file_bytes) + ", " + info.quantization + ", " +
                   std::to_string(info.parameters / 1000000) + " M parameters"},
      {"layers", ": " + std::to_string(info.n_layer) + " of width " + std::to_string(info.n_embd)},
      {"vocabulary",
       ": " + std::to_string(info.n_vocab) + (info.tied_output ? ", embeddings serve as output too" : "")},
      {"context", ": " + std::to_string(info.n_ctx_train) + " tokens"},
      {"KV cache", ": " + FormatBytes(info.KvBytesPerToken(all, KvType::kF16)) + " a token (f16), " +
                       FormatBytes(info.KvBytesPerToken(all, KvType::kQ8_0)) + " (q8_0)"},
      {"can be cut", ": " + CutsText(rules, info.n_layer)}};
  std::fputs(FormatTable(facts).c_str(), stdout);
  std::vector<std::vector<std::string>> layers{{"\nlayer", "weights", "KV a token (f16)"}};
  layers.push_back({"embeddings", FormatBytes(info.embedding_bytes), ""});
  for (std::int32_t i = 0; i < info.n_layer; ++i) {
    layers.push_back({std::to_string(i), FormatBytes(info.layer_bytes[static_cast<std::size_t>(i)]),
                      FormatBytes(info.KvBytesPerToken({i, i + 1}, KvType::kF16))});
  }
  layers.push_back({"output", FormatBytes(info.output_bytes), ""});
  std::fputs(FormatTable(layers).c_str(), stdout);
}

}  // namespace

int RunDescribe(const DescribeOptions& options) {
  WatchSignals();
  const Result<ModelHeader> model = ReadModelHeader(options.model, LookAtHand);
  if (!model.ok()) return Fail(model.error());
  const SplitRules rules = RulesFor(*model->file);
  options.json ? PrintJson(model->file->info, rules) : PrintText(model->file->info, rules);
  return kExitOk;
}

}  // namespace shoal::cli
