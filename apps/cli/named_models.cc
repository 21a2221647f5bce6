// Looks here, then at the cluster, then at the hub.
#include "apps/cli/named_models.h"

#include <algorithm>
#include <optional>

#include "apps/cli/commands.h"
#include "apps/cli/holders.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/check.h"
#include "model/split_gguf.h"
#include "node/model_library.h"
#include "weights/store.h"

namespace shoal::cli {
namespace {

// Which of a repository's files is meant.
Result<Choice> ChooseOf(const std::vector<HubFile>& files, const ModelName& model,
                        const std::function<AtHand()>& at_hand) {
  if (model.file.empty()) {
    return ChooseFile(files, model.quantization, model.quantization.empty() ? at_hand() : AtHand{});
  }
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const HubFile& f) { return f.path == FirstPartOf(model.file); });
  if (found != files.end()) return Choice{static_cast<std::size_t>(found - files.begin()), ""};
  return Error{ErrorCode::kNotFound, ParseSplitName(model.file)
                                         ? "not all parts of '" + model.file + "' are in " + model.repository
                                         : "there is no model file '" + model.file + "' in " + model.repository};
}

// A model of the store that came from what `model` names; nothing where that does not say which.
std::optional<StoredModel> FindByOrigin(const WeightStore& store, const ModelName& model) {
  std::string origin = model.text;
  if (model.kind == ModelNameKind::kHub) {
    origin = "hf:" + model.repository;
    if (!model.quantization.empty()) origin += ":" + model.quantization;
    if (!model.file.empty()) origin += "/" + FirstPartOf(model.file);
  }
  const bool any_file = model.kind == ModelNameKind::kHub && model.quantization.empty() && model.file.empty();
  std::optional<StoredModel> found;
  for (StoredModel& one : store.Models()) {
    const bool same = one.origin == origin ||
                      (any_file && (one.origin.starts_with(origin + ":") || one.origin.starts_with(origin + "/")));
    if (!same) continue;
    if (found) return std::nullopt;
    found = std::move(one);
  }
  return found;
}

bool IsWhole(const StoredModel& model) {
  return std::find(model.held.begin(), model.held.end(), false) == model.held.end();
}

bool HasModel(const ClusterStatus& cluster, const std::function<bool(const ModelStatus&)>& is_it) {
  return std::any_of(cluster.nodes.begin(), cluster.nodes.end(), [&](const NodeStatus& node) {
    return node.state == "alive" && std::any_of(node.models.begin(), node.models.end(), is_it);
  });
}

bool HasModel(const ClusterStatus& cluster, const std::string& name) {
  return HasModel(cluster, [&](const ModelStatus& model) { return model.name == name; });
}

// What the cluster is to place: the very model, where nodes have all layers of it under that name; else the model by
// its header, which is all that is read here: its nodes fetch what each needs. One that this device knows by an older
// state of its source is known anew.
Result<std::string> KnowModel(WeightStore& store, ClusterStatus cluster, const RemoteTarget& target) {
  const Result<StoredModel> known = store.Find(target.name);
  const bool sourced = known.ok() && known->manifest->sourced();
  if (sourced) {
    SHOAL_ASSIGN_OR_RETURN(const bool same, IsInState(target.files, *known->manifest, target.http));
    if (same) return target.name;
  }
  SHOAL_ASSIGN_OR_RETURN(const RemoteModel remote, DescribeRemote(target.files, target.http));
  const Manifest manifest = SourcedManifest(target.files, remote);
  const ModelFingerprint fingerprint = FingerprintOf(manifest.header, manifest.file_bytes);
  if (!known.ok() && !ResolveModel(target.name).ok()) {  // it was removed here since the node looked
    for (NodeStatus& node : cluster.nodes) {
      if (node.self) node.models.clear();
    }
  }
  const bool there = HasModel(cluster, [&](const ModelStatus& model) {
    return model.name == target.name && model.fingerprint == fingerprint &&
           AllLayersHeld(HoldersOf(cluster, fingerprint), model.layers);
  });
  if (there && !sourced) return target.name;
  SHOAL_RETURN_IF_ERROR(store.CheckNameFree(target.name, target.origin, manifest));
  SHOAL_RETURN_IF_ERROR(store.Add(manifest, target.name, target.origin));
  return target.name;
}

}  // namespace

Result<RemoteTarget> FindRemote(const ModelName& model, const HttpOptions& http,
                                const std::function<AtHand()>& at_hand) {
  SHOAL_CHECK(model.kind != ModelNameKind::kPath);
  RemoteTarget target;
  target.http = http;
  target.origin = model.text;
  const Hub hub = HubFromEnvironment();
  if (model.kind == ModelNameKind::kUrl) {
    SHOAL_ASSIGN_OR_RETURN(const Url url, ParseUrl(model.text));
    target.files = RemoteFilesOf(url);
    target.name = ModelNameOf(WithoutQuery(url.path));
    target.http.token = TokenFor(hub, url);
    return target;
  }
  target.http.token = hub.token;
  SHOAL_ASSIGN_OR_RETURN(const std::vector<HubFile> files, ListHub(hub, model.repository, target.http));
  SHOAL_ASSIGN_OR_RETURN(Choice choice, ChooseOf(files, model, at_hand));
  const HubFile& file = files[choice.index];
  target.chosen = std::move(choice.reason);
  const std::string variant = file.quantization.empty() ? file.path : file.quantization;
  target.origin = "hf:" + model.repository + (model.file.empty() ? ":" + variant : "/" + file.path);
  target.name = ModelNameOf(file.path);
  for (const HubFile::Part& part : file.parts) {
    SHOAL_ASSIGN_OR_RETURN(const Url url, HubUrl(hub, model.repository, part.path));
    target.files.push_back({url, part.sha256});
  }
  return target;
}

Result<ModelHeader> ReadModelHeader(const std::string& name, const std::function<AtHand()>& at_hand) {
  ModelHeader header;
  const Result<std::string> path = ResolveModel(name);
  if (path.ok()) {
    SHOAL_ASSIGN_OR_RETURN(header.file, OpenModelFile(*path));
    return header;
  }
  SHOAL_ASSIGN_OR_RETURN(const ModelName model, ParseModelName(name, false));
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<WeightStore> store, OpenStoreHere());
  std::optional<StoredModel> stored;
  if (CheckModelName(name).ok()) {
    if (Result<StoredModel> found = store->Find(name); found.ok()) stored = *std::move(found);
  }
  if (!stored && model.kind != ModelNameKind::kPath) stored = FindByOrigin(*store, model);
  if (stored) {
    SHOAL_ASSIGN_OR_RETURN(header.file, ModelOf(*stored->manifest, stored->name, nullptr));
    return header;
  }
  if (model.kind == ModelNameKind::kPath) return path.error();

  Puller puller(true);
  SHOAL_ASSIGN_OR_RETURN(RemoteTarget target, FindRemote(model, puller.http(), at_hand));
  SHOAL_ASSIGN_OR_RETURN(const RemoteModel remote, DescribeRemote(target.files, target.http));
  SHOAL_ASSIGN_OR_RETURN(header.file, ModelOf(remote.manifest, target.name, nullptr));
  header.origin = std::move(target.origin);
  header.chosen = std::move(target.chosen);
  header.read_bytes = remote.manifest.header.size();
  return header;
}

HttpOptions Puller::http() {
  HttpOptions http;
  http.cancelled = Interrupted;
  http.on_wait = [this](const std::string& why) { Say(why); };
  return http;
}

void Puller::Say(const std::string& text) {
  const std::lock_guard lock(mutex_);
  bar_.Say(text);
}

Result<ModelId> Puller::Pull(WeightStore& store, const RemoteTarget& target, int connections) {
  PullOptions options;
  options.http = target.http;
  options.connections = connections;
  options.on_progress = [this](const PullProgress& now) {
    const std::lock_guard lock(mutex_);
    bar_.Update(now.verifying ? "verifying" : "fetching", now.bytes_done, now.bytes_total);
  };
  return PullModel(store, target.files, target.name, target.origin, options);
}

Result<std::string> ObtainModel(const std::string& name, const ClusterStatus* cluster, bool quiet) {
  if (ResolveModel(name).ok()) return name;
  SHOAL_ASSIGN_OR_RETURN(const ModelName model, ParseModelName(name, false));
  if (model.kind == ModelNameKind::kPath) return name;  // who opens it says what is wrong
  if (cluster != nullptr && HasModel(*cluster, name)) return name;
  SHOAL_ASSIGN_OR_RETURN(const std::shared_ptr<WeightStore> store, OpenStoreHere());
  if (CheckModelName(name).ok() && store->Find(name).ok()) return name;
  const std::optional<StoredModel> stored = FindByOrigin(*store, model);
  if (stored && IsWhole(*stored)) return stored->name;

  Puller puller(!quiet);
  Result<RemoteTarget> found = FindRemote(model, puller.http(), LookAtHand);
  const bool known_there = cluster != nullptr && stored && HasModel(*cluster, stored->name);
  if (!found.ok() && found.error().code == ErrorCode::kUnavailable && known_there) return stored->name;
  if (!found.ok() && found.error().code == ErrorCode::kUnavailable && cluster != nullptr) {
    return Error{found.error().code, found.error().message +
                                         ". A node that reaches it can place it, by the same command there: it fetches "
                                         "for those that do not"};
  }
  if (!found.ok()) return found.error();
  RemoteTarget target = *std::move(found);
  if (stored && stored->origin == target.origin) target.name = stored->name;  // `pull --name` called it so
  puller.Say("fetching " + WithoutQuery(target.origin) +
             (model.quantization.empty() && !target.chosen.empty() ? ": " : "") +
             (model.quantization.empty() ? target.chosen : ""));
  if (cluster != nullptr) return KnowModel(*store, *cluster, target);
  SHOAL_RETURN_IF_ERROR(puller.Pull(*store, target, PullOptions{}.connections));
  return target.name;
}

}  // namespace shoal::cli
