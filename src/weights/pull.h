// Fetches a model from an HTTP server into the store: its header first, then ranges by several connections. A model may
// be in one file or in parts (model/split_gguf.h), which are joined on the way.
//
// Knows no hub: weights/hub.h turns names into URLs. Blocks; its threads end with the call.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/split_gguf.h"
#include "weights/http.h"
#include "weights/range_pull.h"
#include "weights/store.h"

namespace shoal {

struct PullProgress {
  std::uint64_t bytes_done = 0, bytes_total = 0;
  bool verifying = false;  // everything has come; the whole-file hash is made
};

struct PullOptions {
  HttpOptions http;  // its `cancelled` is called by several threads
  int connections = 4;
  std::function<void(const PullProgress&)> on_progress;  // from several threads, one at a time; may be empty
};

// All files of the model that `url` is a part of, by their names.
std::vector<RemoteFile> RemoteFilesOf(const Url& url);

// What is known from the beginnings of its files alone, without any weights.
struct RemoteModel {
  std::vector<HttpFacts> facts;                  // [files]
  std::vector<std::vector<std::uint8_t>> heads;  // [files]: what comes before the data; empty for a model of one file
  std::vector<PartExtent> extents;               // where the model's bytes are in the files
  Manifest manifest;                             // without hashes
};

// Errors: as HttpFile::Probe (names the part that is missing), JoinGguf and DescribeRanges.
Result<RemoteModel> DescribeRemote(const std::vector<RemoteFile>& files, const HttpOptions& options);

// Whether both say the same files, each in the same state.
bool IsSameState(const std::vector<SourceFile>& a, const std::vector<SourceFile>& b);

// Whether the files are in the state that a sourced manifest says; reads one byte of each. Errors: as HttpFile::Probe.
Result<bool> IsInState(const std::vector<RemoteFile>& files, const Manifest& manifest, const HttpOptions& options);

// The model as a cluster's nodes get to know it, each of which fetches its own ranges.
Manifest SourcedManifest(const std::vector<RemoteFile>& files, const RemoteModel& model);

// The whole model, under `name`. What an earlier call has fetched is not fetched again.
// Errors: as DescribeRemote, Draft::Begin and Draft::Finish.
Result<ModelId> PullModel(WeightStore& store, const std::vector<RemoteFile>& files, const std::string& name,
                          const std::string& origin, const PullOptions& options);

}  // namespace shoal
