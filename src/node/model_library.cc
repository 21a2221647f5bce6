// Folders scanned for GGUF files; what was read is kept by path.
#include "node/model_library.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "base/log.h"
#include "model/split_gguf.h"

namespace shoal {
namespace {

constexpr std::size_t kModelsMax = 1024;

// Of the models in a folder.
std::set<std::string> GgufFilesIn(const std::string& folder) {
  std::set<std::string> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".gguf" && it->is_regular_file(error)) paths.insert(FirstPartOf(it->path().string()));
    if (paths.size() >= kModelsMax) break;
  }
  return paths;
}

// Without a path where it, or one of its parts, is not there.
LocalFile LookAt(const std::string& path) {
  Result<LocalFile> file = LookAtLocalFile(path);
  return file.ok() ? *std::move(file) : LocalFile{};
}

}  // namespace

std::string ModelNameOf(const std::string& path) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  if (const auto split = ParseSplitName(name)) name = split->stem + ".gguf";
  const std::string ending = ".gguf";
  if (name.size() > ending.size() && name.ends_with(ending)) name.resize(name.size() - ending.size());
  return name;
}

std::int64_t FileTimeS(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? static_cast<std::int64_t>(info.st_mtime) : 0;
}

Result<LibraryModel> ModelLibrary::Add(const std::string& path) {
  LocalFile as_it_is = LookAt(path);
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const ModelFile> file, OpenModelFile(path));
  SHOAL_ASSIGN_OR_RETURN(const ModelFingerprint fingerprint, FingerprintOf(*file));
  LibraryModel model{ModelNameOf(path), fingerprint, std::move(file)};
  by_path_[path] = {model, std::move(as_it_is)};
  return model;
}

void ModelLibrary::Scan() {
  const std::lock_guard lock(mutex_);
  for (auto it = by_path_.begin(); it != by_path_.end();) {
    it = LookAt(it->first).SameFile(it->second.file) ? std::next(it) : by_path_.erase(it);
  }
  for (const std::string& folder : folders_) {
    for (const std::string& path : GgufFilesIn(folder)) {
      if (by_path_.contains(path) || by_path_.size() >= kModelsMax) continue;
      LocalFile as_it_is = LookAt(path);  // before it is read: it may be written meanwhile, and whole afterwards
      const auto refused = refused_.find(path);
      if (refused != refused_.end() && refused->second.SameFile(as_it_is)) continue;
      if (const Result<LibraryModel> added = Add(path); !added.ok()) {
        refused_[path] = std::move(as_it_is);
        Log(LogLevel::kWarning, "models", path + " is left out: " + added.error().message);
      }
    }
  }
}

std::vector<LibraryModel> ModelLibrary::models() const {
  const std::lock_guard lock(mutex_);
  std::vector<LibraryModel> models;
  for (const auto& [path, known] : by_path_) models.push_back(known.model);
  return models;
}

Result<LibraryModel> ModelLibrary::Find(const std::string& name_or_path) {
  if (name_or_path.find('/') == std::string::npos) {
    const auto named = [&](const LibraryModel& model) {
      return model.name == name_or_path || model.name + ".gguf" == name_or_path;
    };
    for (int attempt = 0; attempt < 2; ++attempt) {
      const std::vector<LibraryModel> all = models();
      const auto found = std::find_if(all.begin(), all.end(), named);
      if (found != all.end()) return *found;
      Scan();
    }
    std::string where;
    for (const std::string& folder : folders_) where += (where.empty() ? "" : ", ") + folder;
    return Error{ErrorCode::kNotFound,
                 "there is no model '" + name_or_path + "' here; this node looks for GGUF files in " + where};
  }
  const std::lock_guard lock(mutex_);
  const std::string path = FirstPartOf(name_or_path);
  const auto known = by_path_.find(path);
  return known != by_path_.end() && known->second.file.SameFile(LookAt(path)) ? known->second.model : Add(path);
}

Result<LibraryModel> ModelLibrary::FindFingerprint(ModelFingerprint fingerprint) const {
  for (LibraryModel& model : models()) {
    if (model.fingerprint == fingerprint) return std::move(model);
  }
  return Error{ErrorCode::kNotFound, "this node does not have the model's file"};
}

Result<std::shared_ptr<const Vocabulary>> ModelLibrary::OpenVocabulary(const LibraryModel& model) {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const Vocabulary>& kept = vocabularies_[model.file->path];
  if (std::shared_ptr<const Vocabulary> vocabulary = kept.lock()) return vocabulary;
  SHOAL_ASSIGN_OR_RETURN(std::shared_ptr<const Vocabulary> vocabulary, Vocabulary::Open(model.file));
  kept = vocabulary;
  return vocabulary;
}

}  // namespace shoal
