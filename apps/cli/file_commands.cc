// `shoal quantize` and `shoal split`: model files made from model files.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/named_models.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "engine/quantize.h"
#include "engine/split_rules.h"
#include "node/model_library.h"
#include "node/stage_plan.h"
#include "weights/local_file.h"
#include "weights/part_file.h"
#include "weights/store.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::json;
constexpr std::uint64_t kCopyPieceBytes = 8U << 20;

struct QuantizeCommand {
  std::string input, output;
  QuantizeOptions options;
  bool json = false;
};

struct SplitCommand {
  std::string model, stages = "2", output;
  bool json = false;
};

// What the quantizer reads, which is one file. Of a model of the store that is a copy, gone with this.
class QuantizerInput {
 public:
  // `beside`: the copy's name begins with it. `header_only`: no weights are needed. Errors: as ObtainModel and
  // OpenModelHere; kCancelled, kIo.
  static Result<std::unique_ptr<QuantizerInput>> Open(const std::string& name, const std::string& beside,
                                                      bool header_only, bool quiet) {
    std::unique_ptr<QuantizerInput> input(new QuantizerInput);
    SHOAL_ASSIGN_OR_RETURN(const std::string model, ObtainModel(name, nullptr, quiet));
    if (const Result<std::string> file = ResolveModel(model); file.ok()) {
      input->path_ = *file;
      return input;
    }
    SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<const ModelFile> stored, OpenModelHere(model));
    input->path_ = input->copy_ = beside + "." + std::to_string(getpid()) + ".input";
    SHOAL_RETURN_IF_ERROR(Copy(*stored, input->path_, header_only));
    return input;
  }
  ~QuantizerInput() {
    std::error_code ignored;
    if (!copy_.empty()) std::filesystem::remove(copy_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  static Status Copy(const ModelFile& model, const std::string& path, bool header_only) {
    SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<TensorReader> reader, model.source->Open());
    const std::uint64_t all = model.gguf.file_bytes, end = header_only ? model.gguf.data_offset : all;
    std::ofstream out(path, std::ios::binary);
    std::vector<std::uint8_t> piece;
    for (std::uint64_t at = 0; at < end && out; at += piece.size()) {
      if (Interrupted()) return Error{ErrorCode::kCancelled, "interrupted"};
      piece.resize(std::min<std::uint64_t>(kCopyPieceBytes, end - at));
      SHOAL_RETURN_IF_ERROR(reader->Read(at, piece));
      out.write(reinterpret_cast<const char*>(piece.data()), static_cast<std::streamsize>(piece.size()));
    }
    out.close();
    std::error_code error;
    if (out) std::filesystem::resize_file(path, all, error);  // what is not needed is a hole
    if (!out || error) return Error{ErrorCode::kIo, "cannot write " + path + ": is the disk full?"};
    return {};
  }

  QuantizerInput() = default;
  std::string path_, copy_;
};

int RunQuantize(const QuantizeCommand& command) {
  WatchSignals();
  if (!command.options.dry_run && command.output.empty()) {
    return Fail({ErrorCode::kInvalidArgument, "name the file to write, or say --dry-run"});
  }
  std::error_code error;
  if (!command.options.dry_run && std::filesystem::exists(command.output, error)) {
    return Fail({ErrorCode::kInvalidArgument, command.output + " is there already; remove it first"});
  }
  const std::string output = command.output.empty()
                                 ? (std::filesystem::temp_directory_path(error) / "shoal-quantized").string()
                                 : command.output;
  const auto input = QuantizerInput::Open(command.input, output, command.options.dry_run, command.json);
  if (!input.ok()) return Fail(input.error());
  const Result<QuantizeResult> done = QuantizeModel((*input)->path(), output, command.options);
  if (!done.ok()) return Fail(done.error());
  if (command.json) {
    std::printf("%s\n", Json{{"type", command.options.type},
                             {"bytes_before", done->bytes_before},
                             {"bytes_after", done->bytes_after},
                             {"written", !command.options.dry_run}}
                            .dump(2)
                            .c_str());
  } else {
    std::printf("%s: %s -> %s%s\n", command.options.type.c_str(), FormatBytes(done->bytes_before).c_str(),
                FormatBytes(done->bytes_after).c_str(), command.options.dry_run ? " (nothing written)" : "");
  }
  return kExitOk;
}

// The model by its name in the store; a file is hashed into it first.
Result<StoredModel> TakeModel(WeightStore& store, const std::string& name) {
  if (Result<StoredModel> stored = store.Find(name); stored.ok()) return stored;
  const std::string called = ModelNameOf(name);
  const Result<ModelId> id = store.AddLocal(name, called, [](std::uint64_t) { return !Interrupted(); });
  if (!id.ok()) return id.error();
  return store.Find(called);
}

int RunSplit(const SplitCommand& command) {
  WatchSignals();
  const Result<std::shared_ptr<WeightStore>> store = OpenStoreHere();
  if (!store.ok()) return Fail(store.error());
  const Result<StoredModel> model = TakeModel(**store, command.model);
  if (!model.ok()) return Fail(model.error());
  const Result<std::shared_ptr<const ModelFile>> file = ModelOf(*model->manifest, model->name, nullptr);
  if (!file.ok()) return Fail(file.error());
  const Result<std::vector<LayerRange>> stages = ChooseStages(**file, command.stages);
  if (!stages.ok()) return Fail(stages.error());
  const std::string output = command.output.empty() ? model->name + "-stages" : command.output;
  std::error_code error;
  std::filesystem::create_directories(output, error);
  if (error) return Fail({ErrorCode::kIo, "cannot create " + output + ": " + error.message()});
  Json parts = Json::array();
  for (std::size_t i = 0; i < stages->size(); ++i) {
    const LayerRange layers = (*stages)[i];
    const std::string path = output + "/" + model->name + "-stage-" + std::to_string(i + 1) + "-of-" +
                             std::to_string(stages->size()) + ".shoal";
    const Result<std::vector<std::size_t>> ranges = RangesOf(*model->manifest, layers);
    if (!ranges.ok()) return Fail(ranges.error());
    const auto bytes = WritePartFile(**store, *model, *ranges, path, [](std::uint64_t) { return !Interrupted(); });
    if (!bytes.ok()) return Fail(bytes.error());
    parts.push_back({{"file", path}, {"first", layers.first}, {"last", layers.last - 1}, {"bytes", *bytes}});
    if (!command.json) {
      std::printf("%s: layers %d-%d, %s\n", path.c_str(), layers.first, layers.last - 1, FormatBytes(*bytes).c_str());
    }
  }
  if (command.json) {
    std::printf("%s\n", Json{{"model", model->name}, {"stages", parts}}.dump(2).c_str());
  } else {
    std::puts("Copy each to the device that is to run it, and there: shoal pull FILE");
  }
  return kExitOk;
}

std::string TypesText() {
  std::string text;
  for (const std::string_view name : QuantizationNames()) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

}  // namespace

// The options live as long as the program.
void AddFileCommands(CLI::App& app, int& code) {
  static QuantizeCommand quantize;
  static SplitCommand split;
  CLI::App* command = app.add_subcommand("quantize", "Make a smaller model file of one of high precision");
  command->add_option("input", quantize.input, "A model, F16, BF16 or F32: a GGUF file, or what `shoal run` takes")
      ->required();
  command->add_option("type", quantize.options.type, TypesText())->required();
  command->add_option("output", quantize.output, "The file to write");
  command->add_option("--imatrix", quantize.options.imatrix, "An importance matrix of llama.cpp")
      ->check(CLI::ExistingFile);
  command->add_option("--threads", quantize.options.threads, "Threads (0: all cores)")
      ->capture_default_str()
      ->check(CLI::Range(0, 512));
  command->add_flag("--dry-run", quantize.options.dry_run, "Only say the sizes");
  command->add_flag("--from-quantized", quantize.options.from_quantized, "Take a quantized file: loses quality twice");
  command->add_flag("--json", quantize.json, "One JSON object on stdout");
  command->callback([&code] { code = RunQuantize(quantize); });
  command =
      app.add_subcommand("split", "Write the parts of a model that each stage needs, to copy to devices by cable");
  command->add_option("model", split.model, "A GGUF file, or a model of the store")->required();
  command->add_option("--stages", split.stages, "A number of stages, or layer ranges: 0-9,10-29")
      ->capture_default_str();
  command->add_option("--out", split.output, "The folder to write (else MODEL-stages)");
  command->add_flag("--json", split.json, "One JSON object on stdout");
  command->callback([&code] { code = RunSplit(split); });
}

}  // namespace shoal::cli
