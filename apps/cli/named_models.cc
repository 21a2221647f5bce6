// Looks here, then at the hub.
#include "apps/cli/named_models.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "apps/cli/commands.h"
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
    target.name = ModelNameOf(url.path.substr(0, url.path.find('?')));
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

  HttpOptions http;
  http.cancelled = Interrupted;
  http.on_wait = [](const std::string& why) { std::fprintf(stderr, "%s\n", why.c_str()); };
  SHOAL_ASSIGN_OR_RETURN(RemoteTarget target, FindRemote(model, http, at_hand));
  SHOAL_ASSIGN_OR_RETURN(const RemoteModel remote, DescribeRemote(target.files, target.http));
  SHOAL_ASSIGN_OR_RETURN(header.file, ModelOf(remote.manifest, target.name, nullptr));
  header.origin = std::move(target.origin);
  header.chosen = std::move(target.chosen);
  header.read_bytes = remote.manifest.header.size();
  return header;
}

}  // namespace shoal::cli
