// `shoal bench`: this device's kernels and speed measured, a model run on it, and a row of both for docs/devices.md.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/cli/answer.h"
#include "apps/cli/commands.h"
#include "apps/cli/device_bench.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/named_models.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "engine/cpu_kernels.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kPromptTokens = 512;
constexpr std::int32_t kAnswerTokens = 128, kContextTokens = 1024;

struct ModelFigures {
  std::string name, quantization;
  std::uint64_t bytes = 0;
  std::size_t prompt_tokens = 0, answer_tokens = 0;
  double prompt_tokens_s = 0, answer_tokens_s = 0;  // 0: not known
  std::int32_t threads = 0;
};

// A text that is no test of anything, long enough for any tokenizer.
std::string LongText() {
  std::string text;
  for (int i = 0; i < 1000; ++i)
    text += "Number " + std::to_string(i) + " follows number " + std::to_string(i - 1) + ". ";
  return text;
}

Result<ModelFigures> RunModel(Node& node) {
  SHOAL_ASSIGN_OR_RETURN(std::vector<TokenId> prompt, node.vocabulary().Tokenize(LongText(), true, true));
  const auto context = static_cast<std::size_t>(std::max(node.model().context_tokens_max, 2));
  prompt.resize(std::min({prompt.size(), kPromptTokens, context / 2}));
  AnswerRequest request;
  request.prompt = prompt;
  request.sampling.temperature = 0;
  request.tokens_max = kAnswerTokens;
  SHOAL_ASSIGN_OR_RETURN(const Answer answer, GenerateAnswer(node, std::move(request), [](TextKind, const auto&) {}));
  ModelFigures figures;
  figures.name = node.model().id;
  figures.quantization = node.model_info().quantization;
  figures.bytes = node.model_info().file_bytes;
  figures.prompt_tokens = prompt.size();
  figures.answer_tokens = answer.tokens.size();
  if (answer.prompt_s > 0) figures.prompt_tokens_s = static_cast<double>(prompt.size()) / answer.prompt_s;
  if (answer.decode_s > 0) figures.answer_tokens_s = static_cast<double>(answer.tokens.size() - 1) / answer.decode_s;
  for (const StageReport& stage : node.Report()) figures.threads = stage.threads;
  return figures;
}

// Nothing that would end a cell of a table.
std::string Cell(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '|' || static_cast<unsigned char>(c) < 0x20; }, ' ');
  return text.empty() ? "unknown" : text;
}

std::string CoresText(const Topology& topology) {
  std::string text;
  for (const CoreGroup& group : topology.groups) {
    text += (text.empty() ? "" : " + ") + std::to_string(group.cpus.size()) + " x " +
            (group.name.empty() ? CoreKindName(group.kind) : group.name);
  }
  return text;
}

std::string KernelsUsed(const DeviceFigures& figures) {
  const KernelChoice* const choice = ChoiceOf(figures.choices, figures.quantization);
  if (choice != nullptr && choice->quantization == figures.quantization) return KernelTrialText(choice->chosen());
  const Result<CpuKernels>& kernels = LoadedCpuKernels();
  return kernels.ok() ? kernels->variant : "unknown";
}

std::string Report(const DeviceProfile& profile, const DeviceFigures& figures,
                   const std::optional<ModelFigures>& model) {
  char speed[160], ran[200] = "not run";
  const DeviceSpeed& s = *figures.speed;
  std::snprintf(speed, sizeof speed, "%s | %.1f | %.1f | %.1f", s.quantization.c_str(), s.matrix.one_row_bytes_s / 1e9,
                s.matrix.rows_bytes_s / 1e9, s.memory_bytes_s / 1e9);
  if (model) {
    std::snprintf(ran, sizeof ran, "%s (%s): %.1f; %.1f", model->name.c_str(), FormatBytes(model->bytes).c_str(),
                  model->prompt_tokens_s, model->answer_tokens_s);
  }
  const std::string memory = profile.memory.total_bytes ? FormatBytes(*profile.memory.total_bytes) : "";
  return "| device | chip: cores | memory | system | CPU kernels | weights | answers, GB/s | prompts, GB/s | memory, "
         "GB/s "
         "| model: tokens/s of a prompt; of an answer | ggml |\n|---|---|---|---|---|---|---|---|---|---|---|\n| " +
         Cell(profile.topology.board) + " | " + Cell(profile.topology.chip + ": " + CoresText(profile.topology)) +
         " | " + Cell(memory) + " | " + Cell(profile.os + " " + profile.machine) + " | " + Cell(KernelsUsed(figures)) +
         " | " + speed + " | " + Cell(ran) + " | " + Cell(GgmlVersion()) + " |\n";
}

void PrintFigures(const BenchOptions& options, const DeviceProfile& profile, const DeviceFigures& figures,
                  const std::optional<ModelFigures>& model) {
  if (options.report) {
    std::fputs(Report(profile, figures, model).c_str(), stdout);
    return;
  }
  if (options.json) {
    Json json{{"kernel_choices", Json::parse(KernelChoicesJson(figures.choices, ""))["choices"]},
              {"speed", Json::parse(SpeedJson({{*figures.speed}, {}}, ""))["speeds"][0]},
              {"model", nullptr}};
    if (model) {
      json["model"] = {{"name", model->name},
                       {"quantization", model->quantization},
                       {"bytes", model->bytes},
                       {"threads", model->threads},
                       {"prompt_tokens", model->prompt_tokens},
                       {"answer_tokens", model->answer_tokens},
                       {"prompt_tokens_s", model->prompt_tokens_s},
                       {"answer_tokens_s", model->answer_tokens_s}};
    }
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    return;
  }
  if (const KernelChoice* const choice = ChoiceOf(figures.choices, figures.quantization)) {
    std::printf("%s\n", KernelsTable(*choice).c_str());
  }
  std::fputs(SpeedTable(*figures.speed).c_str(), stdout);
  if (!model) return;
  std::printf("\n%s with %d threads: a prompt of %zu tokens at %.1f tokens/s, an answer of %zu at %.1f\n",
              model->name.c_str(), model->threads, model->prompt_tokens, model->prompt_tokens_s, model->answer_tokens,
              model->answer_tokens_s);
}

}  // namespace

int RunBench(const BenchOptions& options) {
  WatchSignals();
  ModelOptions model_options;
  model_options.model = options.model;
  model_options.quiet = options.json || options.report;
  std::shared_ptr<const ModelFile> file;
  if (!options.model.empty()) {
    const Result<std::string> obtained = ObtainModel(options.model, nullptr, model_options.quiet);
    if (!obtained.ok()) return Fail(obtained.error());
    Result<std::shared_ptr<const ModelFile>> opened = OpenModelHere(*obtained);
    if (!opened.ok()) return Fail(opened.error());
    file = *std::move(opened);
    model_options.model = *obtained;
    model_options.context =
        std::min(kContextTokens, file->info.n_ctx_train > 0 ? file->info.n_ctx_train : kContextTokens);
  }
  const DeviceProfile profile = ReadDeviceProfile();
  const std::string type = options.quantization.empty() && file ? file->info.quantization : options.quantization;
  const Result<DeviceFigures> figures = FiguresOf(profile, AdviseDevice(profile), type, true);
  if (!figures.ok()) return Fail(figures.error());
  std::optional<ModelFigures> model;
  if (file) {
    Result<NodeOptions> node_options = OpenNodeOptions(model_options);  // with what was found just now
    if (!node_options.ok()) return Fail(node_options.error());
    const Result<std::shared_ptr<Node>> node = Node::Open(*node_options);
    if (!node.ok()) return Fail(node.error());
    Result<ModelFigures> ran = RunModel(**node);
    (*node)->Stop();
    if (!ran.ok()) return Fail(ran.error());
    if (Interrupted()) return kExitInterrupted;
    model = *std::move(ran);
  }
  PrintFigures(options, profile, *figures, model);
  return kExitOk;
}

}  // namespace shoal::cli
