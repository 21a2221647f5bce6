// The GGUF files of this node, and what is read from them once and shared: headers, vocabularies, chat templates.
//
// A model's fingerprint says that two nodes mean the same file: it hashes the header (metadata and tensor table) and
// the size, not the weights. Knows no cluster. Any thread; the first use of a model blocks on the disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/vocabulary.h"
#include "model/model_info.h"
#include "text/chat.h"
#include "weights/local_file.h"
#include "weights/manifest.h"

namespace shoal {

// The name that clients use: "dir/SmolLM2.gguf" -> "SmolLM2", "dir/Big-00001-of-00003.gguf" -> "Big".
std::string ModelNameOf(const std::string& path);
// When the file was last written, in seconds since 1970; 0 when it is not there.
std::int64_t FileTimeS(const std::string& path);

struct LibraryModel {
  std::string name;
  ModelFingerprint fingerprint = 0;
  std::shared_ptr<const ModelFile> file;
};

class ModelLibrary {
 public:
  explicit ModelLibrary(std::vector<std::string> folders) : folders_(std::move(folders)) {}

  // Looks through the folders again (not below them), and at what is known: files that changed are read again; those
  // that are no GGUF, or parts without all the others, are logged once and left out. Of two files with one name the
  // first folder's counts.
  void Scan();
  std::vector<LibraryModel> models() const;
  // By name, or by the path of a file, which is then added. Errors: kNotFound (says where it looked), kCorrupt, kIo.
  Result<LibraryModel> Find(const std::string& name_or_path);
  // Errors: kNotFound.
  Result<LibraryModel> FindFingerprint(ModelFingerprint fingerprint) const;
  // Opened at most once at a time; kept while someone holds it. Errors: as Vocabulary::Open.
  Result<std::shared_ptr<const Vocabulary>> OpenVocabulary(const LibraryModel& model);

 private:
  struct Known {
    LibraryModel model;
    LocalFile file;  // as it was when it was read
  };
  Result<LibraryModel> Add(const std::string& path);  // the mutex is held

  const std::vector<std::string> folders_;
  mutable std::mutex mutex_;
  std::map<std::string, Known> by_path_;
  std::map<std::string, LocalFile> refused_;                             // by path: as it was then
  std::map<std::string, std::weak_ptr<const Vocabulary>> vocabularies_;  // by path
};

}  // namespace shoal
