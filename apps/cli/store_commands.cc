// The store of this device from the command line.
#include "apps/cli/store_commands.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/holders.h"
#include "apps/cli/named_models.h"
#include "apps/cli/status_text.h"
#include "apps/cli/terminal.h"
#include "apps/cli/transfer_bar.h"
#include "base/environment.h"
#include "base/units.h"
#include "node/model_library.h"
#include "weights/local_file.h"
#include "weights/part_file.h"
#include "weights/pull.h"
#include "weights/whole_file.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::json;

std::int32_t LayersOf(const Manifest& manifest) {
  return static_cast<std::int32_t>(std::count_if(manifest.ranges.begin(), manifest.ranges.end(),
                                                 [](const WeightRange& r) { return r.kind == RangeKind::kLayer; }));
}

Json ToJson(const StoredModel& model) {
  Json layers = Json::array();
  bool whole = true;
  for (std::size_t i = 0; i < model.held.size(); ++i) {
    const WeightRange& range = model.manifest->ranges[i];
    whole = whole && model.held[i];
    if (model.held[i] && range.kind == RangeKind::kLayer) layers.push_back(range.layer);
  }
  return {{"name", model.name},
          {"id", HexOf(model.id)},
          {"origin", model.origin},
          {"bytes", model.manifest->file_bytes},
          {"held_bytes", model.held_bytes},
          {"whole", whole},
          {"layers_held", layers},
          {"path", model.local_path}};
}

// The layers that are here.
std::string LayersText(const StoredModel& model) {
  return cli::LayersText(HeldLayers(*model.manifest, model.held), LayersOf(*model.manifest));
}

// `reason`: why this file of several was taken; empty: there was no choice.
int PrintPulled(const PullCommand& command, const WeightStore& store, const std::string& name,
                const std::string& reason = "") {
  const Result<StoredModel> model = store.Find(name);
  if (!model.ok()) return Fail(model.error());
  if (command.json) {
    Json json = ToJson(*model);
    if (!reason.empty()) json["chosen"] = reason;
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else if (std::find(model->held.begin(), model->held.end(), false) != model->held.end()) {
    std::printf("%s of %s: %s layers are here\n", FormatBytes(model->held_bytes).c_str(), name.c_str(),
                LayersText(*model).c_str());
  } else {
    std::printf("%s is here: %s. Try: shoal run %s\n", name.c_str(), FormatBytes(model->manifest->file_bytes).c_str(),
                name.c_str());
  }
  return kExitOk;
}

// What another process has changed here, the node here tells the others at once.
void TellNode() {
  if (NodeHere().NodeRuns()) (void)NodeHere().TellModels();  // else it finds out by itself, some seconds later
}

// The model as a cluster's nodes get to know it: from then on planning for it wants no network. A model that is here
// already, in that state, stays as it is. Errors: as CheckNameFree and Add.
Status KeepMetadata(WeightStore& store, const RemoteTarget& target, const RemoteModel& remote) {
  const Manifest manifest = SourcedManifest(target.files, remote);
  if (const Result<StoredModel> known = store.Find(target.name); known.ok()) {
    const Manifest& there = *known->manifest;
    const bool same = there.header == manifest.header && there.file_bytes == manifest.file_bytes;
    if (same && (!there.sourced() || IsSameState(there.sources, manifest.sources))) return {};
  }
  SHOAL_RETURN_IF_ERROR(store.CheckNameFree(target.name, target.origin, manifest));
  const Result<ModelId> added = store.Add(manifest, target.name, target.origin);
  return added.ok() ? Status() : Status(added.error());
}

int PullMetadata(const PullCommand& command, WeightStore& store, const RemoteTarget& target) {
  const Result<RemoteModel> remote = DescribeRemote(target.files, target.http);
  if (!remote.ok()) return Fail(remote.error());
  const Status kept = KeepMetadata(store, target, *remote);
  if (!kept.ok()) std::fprintf(stderr, "shoal: not kept: %s\n", kept.error().message.c_str());
  TellNode();
  const Result<std::shared_ptr<const ModelFile>> model = ModelOf(remote->manifest, target.name, nullptr);
  if (!model.ok()) return Fail(model.error());
  const ModelInfo& info = (*model)->info;
  if (command.json) {
    const Json json{{"name", target.name},
                    {"origin", target.origin},
                    {"chosen", target.chosen},
                    {"bytes", info.file_bytes},
                    {"metadata_bytes", remote->manifest.header.size()},
                    {"kept", kept.ok()},
                    {"layers", info.n_layer},
                    {"architecture", info.architecture},
                    {"layer_bytes", info.layer_bytes},
                    {"quantization", info.quantization}};
    std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s: %s, %d layers, %s, %s (read %s of it)\n", target.name.c_str(), info.architecture.c_str(),
                info.n_layer, info.quantization.c_str(), FormatBytes(info.file_bytes).c_str(),
                FormatBytes(remote->manifest.header.size()).c_str());
  }
  return kExitOk;
}

// A part that `shoal split` wrote.
int PullPart(const PullCommand& command, WeightStore& store, const std::string& path) {
  TransferBar bar(!command.quiet);
  std::error_code ignored;
  const std::uint64_t all = std::filesystem::file_size(path, ignored);
  const Result<std::string> name = TakePartFile(store, path, command.name, [&](std::uint64_t done) {
    bar.Update("copying", done, all);
    return !Interrupted();
  });
  if (!name.ok()) return Fail(name.error());
  TellNode();
  return PrintPulled(command, store, *name);
}

int PullLocal(const PullCommand& command, WeightStore& store, const std::string& path) {
  if (IsPartFile(path)) return PullPart(command, store, path);
  const std::string name = command.name.empty() ? ModelNameOf(path) : command.name;
  TransferBar bar(!command.quiet);
  const Result<LocalFile> file = LookAtLocalFile(path);
  if (!file.ok()) return Fail(file.error());
  const Result<ModelId> id = store.AddLocal(path, name, [&](std::uint64_t done) {
    bar.Update("verifying", done, file->bytes);
    return !Interrupted();
  });
  if (!id.ok()) return Fail(id.error());
  TellNode();
  return PrintPulled(command, store, name);
}

// One range that is here, read anew.
Status VerifyRange(WeightStore& store, const StoredModel& model, std::size_t range) {
  if (model.local_path.empty()) return store.Verify(*model.manifest, range);
  for (std::uint64_t chunk = 0; chunk < model.manifest->ChunkCount(range); ++chunk) {
    const auto bytes = store.ReadChunk(model, range, chunk);
    if (!bytes.ok()) return bytes.error();
  }
  return {};
}

// A model whose hashes were made as it came, against what the hub says of its whole files. All others were held
// against that, or against their own file, before they got a name.
constexpr char kWrong[] = "wrong";
struct WholeFile {
  std::string state, text;  // "right", "wrong", "unknown"; for people
};
WholeFile VerifyWhole(const std::shared_ptr<WeightStore>& store, const StoredModel& model) {
  const Manifest& manifest = *model.manifest;
  if (!manifest.sourced()) return {"right", ""};
  const bool told = std::any_of(manifest.sources.begin(), manifest.sources.end(),
                                [](const SourceFile& file) { return file.sha256.has_value(); });
  if (!told) return {"unknown", "; its source tells no hash of the whole file"};
  if (std::find(model.held.begin(), model.held.end(), false) != model.held.end()) {
    return {"unknown", "; the hub's hash is of the whole file, not all of which is here"};
  }
  HttpOptions http;
  http.cancelled = Interrupted;
  http.attempts_max = 2;
  http.token = TokenFor(HubFromEnvironment(), manifest.sources);
  const Status whole = CheckWholeFiles(store, model, http);
  if (whole.ok()) {
    (void)store->KeepCheckedWhole(model.id);
    return {"right", "; the whole file has the hash that its source says"};
  }
  if (whole.error().code == ErrorCode::kCorrupt) return {kWrong, whole.error().message};
  return {"unknown", "; its whole file cannot be held against the hub's hash: " + whole.error().message};
}

// What `shoal models` shows.
struct Models {
  std::vector<StoredModel> stored;
  std::vector<LibraryModel> files;
  std::vector<ModelStatus> elsewhere;  // known to other nodes alone
  ClusterStatus cluster;               // empty where no node runs
};

ModelFingerprint FingerprintOf(const StoredModel& model) {
  return shoal::FingerprintOf(model.manifest->header, model.manifest->file_bytes);
}

Models FindModels(const WeightStore& store) {
  Models models;
  models.stored = store.Models();
  ModelLibrary library({ShoalHome() + "/models"});
  library.Scan();
  models.files = library.models();
  if (Result<ClusterStatus> status = NodeHere().GetStatus(); status.ok()) models.cluster = *std::move(status);
  std::vector<ModelFingerprint> here;
  for (const StoredModel& model : models.stored) here.push_back(FingerprintOf(model));
  for (const LibraryModel& model : models.files) here.push_back(model.fingerprint);
  models.elsewhere = OtherModels(models.cluster, here);
  return models;
}

void PrintJson(const Models& models, const StoreUsage& usage, std::uint64_t quota_bytes) {
  Json json{{"models", Json::array()},
            {"files", Json::array()},
            {"elsewhere", Json::array()},
            {"store",
             {{"bytes", usage.blob_bytes},
              {"in_use_bytes", usage.pinned_bytes},
              {"partial_bytes", usage.partial_bytes},
              {"max_bytes", quota_bytes}}}};
  const auto add = [&](const char* list, Json model, ModelFingerprint fingerprint) {
    const std::vector<Holder> holders = HoldersOf(models.cluster, fingerprint);
    model["nodes"] = Json::array();
    for (const Holder& holder : holders) model["nodes"].push_back(holder.node);
    model["holders"] = HoldersJson(holders);
    json[list].push_back(std::move(model));
  };
  for (const StoredModel& model : models.stored) {
    Json one = ToJson(model);
    one["layers"] = LayersOf(*model.manifest);
    add("models", std::move(one), FingerprintOf(model));
  }
  for (const LibraryModel& model : models.files) {
    const ModelInfo& info = model.file->info;
    add("files",
        {{"name", model.name}, {"path", model.file->path}, {"bytes", info.file_bytes}, {"layers", info.n_layer}},
        model.fingerprint);
  }
  for (const ModelStatus& model : models.elsewhere) {
    add("elsewhere", {{"name", model.name}, {"bytes", model.file_bytes}, {"layers", model.layers}}, model.fingerprint);
  }
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

void PrintTables(const Models& models, const StoreUsage& usage) {
  std::vector<std::vector<std::string>> rows{{"model", "size", "here", "layers here", "from"}};
  std::vector<std::vector<std::string>> held{{"held by", "model", "layers", "bytes"}};
  std::set<ModelFingerprint> seen;
  const auto add_holders = [&](const std::string& name, ModelFingerprint fingerprint, std::int32_t layers) {
    if (!seen.insert(fingerprint).second) return;
    for (const Holder& holder : HoldersOf(models.cluster, fingerprint)) {
      held.push_back({Shown(holder.node), name, cli::LayersText(holder.layers, layers), FormatBytes(holder.bytes)});
    }
  };
  for (const StoredModel& model : models.stored) {
    rows.push_back({model.name, FormatBytes(model.manifest->file_bytes), FormatBytes(model.held_bytes),
                    LayersText(model), WithoutQuery(model.origin)});
    add_holders(model.name, FingerprintOf(model), LayersOf(*model.manifest));
  }
  for (const LibraryModel& model : models.files) {
    const std::string size = FormatBytes(model.file->info.file_bytes);
    const std::int32_t layers = model.file->info.n_layer;
    rows.push_back({model.name, size, size, "all " + std::to_string(layers), model.file->path});
    add_holders(model.name, model.fingerprint, layers);
  }
  for (const ModelStatus& model : models.elsewhere) {
    rows.push_back(
        {Shown(model.name), FormatBytes(model.file_bytes), "-", cli::LayersText({}, model.layers), "the cluster"});
    add_holders(Shown(model.name), model.fingerprint, model.layers);
  }
  std::fputs(FormatTable(rows).c_str(), stdout);
  if (held.size() > 1) std::printf("\n%s", FormatTable(held).c_str());
  std::printf("\nstore: %s, %s of it in use, %s unfinished\n", FormatBytes(usage.blob_bytes).c_str(),
              FormatBytes(usage.pinned_bytes).c_str(), FormatBytes(usage.partial_bytes).c_str());
}

}  // namespace

Result<std::shared_ptr<WeightStore>> OpenStoreHere() {
  StoreOptions options;
  options.folder = ShoalHome() + "/store";
  if (const std::string most = Environment("SHOAL_STORE_MAX"); !most.empty()) {
    SHOAL_ASSIGN_OR_RETURN(options.quota_bytes, ParseBytes(most));
  }
  SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<WeightStore> store, WeightStore::Open(std::move(options)));
  return std::shared_ptr<WeightStore>(std::move(store));
}

Result<std::shared_ptr<const ModelFile>> OpenModelHere(const std::string& name) {
  const Result<std::string> path = ResolveModel(name);
  if (path.ok()) return OpenModelFile(*path);
  if (!CheckModelName(name).ok()) return path.error();
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<WeightStore> store, OpenStoreHere());
  const Result<StoredModel> model = store->Find(name);
  if (!model.ok()) return model.error().code == ErrorCode::kNotFound ? path.error() : model.error();
  for (std::size_t i = 0; i < model->held.size(); ++i) {
    if (model->held[i]) continue;
    return Error{ErrorCode::kNotFound, model->manifest->ranges[i].Name() + " of " + name + " is not on this device (" +
                                           LayersText(*model) +
                                           " layers are); `shoal pull` fetches all, or place it "
                                           "over the cluster"};
  }
  return ModelOf(*model->manifest, name, MakeStoreSource(store, *model));
}

int RunPull(const PullCommand& command) {
  WatchSignals();
  const Result<ModelName> model = ParseModelName(command.model, false);
  if (!model.ok()) return Fail(model.error());
  const Result<std::shared_ptr<WeightStore>> store = OpenStoreHere();
  if (!store.ok()) return Fail(store.error());
  if (model->kind == ModelNameKind::kPath) return PullLocal(command, **store, model->text);

  Puller puller(!command.quiet);
  Result<RemoteTarget> target = FindRemote(*model, puller.http(), [&] {
    AtHand at_hand = LookAtHand();
    if (!command.prefer.empty()) at_hand.q4_0_is_fast = command.prefer == "speed";
    return at_hand;
  });
  if (!target.ok()) return Fail(target.error());
  if (!command.name.empty()) target->name = command.name;
  if (!target->chosen.empty()) puller.Say("taking " + target->chosen);
  if (command.metadata_only) return PullMetadata(command, **store, *target);
  const Result<ModelId> id = puller.Pull(**store, *target, command.connections);
  if (!id.ok()) return Fail(id.error());
  TellNode();
  return PrintPulled(command, **store, target->name, target->chosen);
}

int RunModels(const ModelsCommand& command) {
  if (command.catalogue) return RunCatalogue(command.json);
  const Result<std::shared_ptr<WeightStore>> store = OpenStoreHere();
  if (!store.ok()) return Fail(store.error());
  WatchSignals();
  const Models models = FindModels(**store);
  const StoreUsage usage = (*store)->Usage();
  if (command.json) {
    PrintJson(models, usage, (*store)->options().quota_bytes);
  } else if (models.stored.empty() && models.files.empty() && models.elsewhere.empty()) {
    std::puts("no models here yet. Try: shoal models --catalogue, then shoal pull NAME");
  } else {
    PrintTables(models, usage);
  }
  return kExitOk;
}

int RunRemoveModel(const std::string& name) {
  const Result<std::shared_ptr<WeightStore>> store = OpenStoreHere();
  if (!store.ok()) return Fail(store.error());
  const Status removed = (*store)->Remove(name);
  if (!removed.ok()) return Fail(removed.error());
  TellNode();
  std::printf("%s is removed\n", name.c_str());
  return kExitOk;
}

int RunVerify(const std::string& name, bool json) {
  const Result<std::shared_ptr<WeightStore>> store = OpenStoreHere();
  if (!store.ok()) return Fail(store.error());
  const Result<StoredModel> model = (*store)->Find(name);
  if (!model.ok()) return Fail(model.error());
  WatchSignals();
  Json damaged = Json::array();
  std::uint64_t verified = 0;
  for (std::size_t i = 0; i < model->held.size(); ++i) {
    if (Interrupted()) return kExitInterrupted;
    if (!model->held[i]) continue;
    const Status status = VerifyRange(**store, *model, i);
    if (status.ok()) {
      verified += model->manifest->ranges[i].bytes;
      continue;
    }
    damaged.push_back(model->manifest->ranges[i].Name());
    if (!json) std::fprintf(stderr, "shoal: %s\n", status.error().message.c_str());
  }
  if (!damaged.empty()) TellNode();
  const WholeFile whole = damaged.empty() ? VerifyWhole(*store, *model) : WholeFile{"damaged", ""};
  if (Interrupted()) return kExitInterrupted;
  if (json) {
    const Json found{{"name", name}, {"verified_bytes", verified}, {"damaged", damaged}, {"whole_file", whole.state}};
    std::printf("%s\n", found.dump(2).c_str());
  } else if (damaged.empty() && whole.state != kWrong) {
    std::printf("%s: %s verified, nothing is damaged%s\n", name.c_str(), FormatBytes(verified).c_str(),
                whole.text.c_str());
  }
  if (!json && whole.state == kWrong) std::fprintf(stderr, "shoal: %s\n", whole.text.c_str());
  return damaged.empty() && whole.state != kWrong ? kExitOk : kExitModel;
}

int RunCollect(bool drafts, bool json) {
  const Result<std::shared_ptr<WeightStore>> store = OpenStoreHere();
  if (!store.ok()) return Fail(store.error());
  const std::uint64_t removed = (*store)->Collect(drafts);
  if (json) {
    std::printf("%s\n", Json{{"removed_bytes", removed}}.dump(2).c_str());
  } else {
    std::printf("%s removed\n", FormatBytes(removed).c_str());
  }
  return kExitOk;
}

// The options live as long as the program.
void AddStoreCommands(CLI::App& app, int& code) {
  static PullCommand pull;
  static ModelsCommand models;
  static std::string removed, verified;
  static bool verify_json = false, collect_json = false, drafts = false;
  CLI::App* command = app.add_subcommand("pull", "Fetch a model: from the Hugging Face hub, a URL, or a file here");
  AddModelWords(*command, pull.model, "The path of a GGUF file");
  command->add_option("--name", pull.name, "What to call it (else as the file)");
  command->add_option("--connections", pull.connections, "Connections at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, kPullConnectionsMax));
  command->add_option("--prefer", pull.prefer, "speed or quality, where no quantization is named")
      ->check(CLI::IsMember({"speed", "quality"}));
  command->add_flag("--metadata-only", pull.metadata_only,
                    "Only say what it is, and keep that for planning: a few MB by range, no weights");
  command->add_flag("--json", pull.json, "One JSON object on stdout");
  command->add_flag("-q,--quiet", pull.quiet, "Nothing on stderr but errors");
  command->callback([command, &code] {
    RequireModel(*command, pull.model);
    code = RunPull(pull);
  });
  command = app.add_subcommand("models", "Show the models here and in the cluster, and which node has which layers");
  command->add_flag("--catalogue", models.catalogue, "Models that go well on a few phones: size, licence, what fits");
  command->add_flag("--json", models.json, "One JSON object on stdout");
  command->callback([&code] { code = RunModels(models); });
  command = app.add_subcommand("rm", "Remove a model from this device's store");
  command->add_option("model", removed, "Its name")->required();
  command->callback([&code] { code = RunRemoveModel(removed); });
  command = app.add_subcommand("verify", "Read a model's bytes here anew; damaged layers are removed");
  command->add_option("model", verified, "Its name")->required();
  command->add_flag("--json", verify_json, "One JSON object on stdout");
  command->callback([&code] { code = RunVerify(verified, verify_json); });
  command = app.add_subcommand("gc", "Remove what no model of the store needs");
  command->add_flag("--unfinished", drafts, "Also what was fetched only in part");
  command->add_flag("--json", collect_json, "One JSON object on stdout");
  command->callback([&code] { code = RunCollect(drafts, collect_json); });
}

}  // namespace shoal::cli
