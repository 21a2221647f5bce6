// Fetches a model from an HTTP server into the store: its header first, then ranges by several connections.
//
// Knows no hub: weights/hub.h turns names into URLs. Blocks; its threads end with the call.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "weights/http.h"
#include "weights/store.h"

namespace shoal {

inline constexpr int kPullConnectionsMax = 16;

struct PullProgress {
  std::uint64_t bytes_done = 0, bytes_total = 0;
  bool verifying = false;  // everything has come; the whole-file hash is made
};

struct PullOptions {
  HttpOptions http;  // its `cancelled` is called by several threads
  int connections = 4;
  std::optional<Digest> sha256;                          // of the whole file, when somebody said it
  std::function<void(const PullProgress&)> on_progress;  // from several threads, one at a time; may be empty
};

// What is known from the file's beginning alone, without any weights.
struct RemoteModel {
  HttpFacts facts;
  Manifest manifest;  // without hashes
};

// Errors: as HttpFile::Probe and DescribeRanges.
Result<RemoteModel> DescribeRemote(const Url& url, const HttpOptions& options);

// The whole model, under `name`. What an earlier call has fetched is not fetched again.
// Errors: as DescribeRemote, Draft::Begin and Draft::Finish.
Result<ModelId> PullModel(WeightStore& store, const Url& url, const std::string& name, const std::string& origin,
                          const PullOptions& options);

}  // namespace shoal
