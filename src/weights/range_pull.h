// Fetches ranges of a model from its files on an HTTP server, by several connections.
//
// Knows no store: who calls says what a range is written with. Blocks; its threads end with the call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "model/split_gguf.h"
#include "weights/http.h"
#include "weights/manifest.h"
#include "weights/range_writer.h"

namespace shoal {

inline constexpr int kPullConnectionsMax = 16;

// A file of the model at its server: the only one, or one part.
struct RemoteFile {
  Url url;
  std::optional<Digest> sha256;  // when somebody said it
};

// Where a model's bytes are.
struct RemoteBytes {
  std::vector<RemoteFile> files;
  std::vector<HttpFacts> facts;     // [files]; what must stay
  std::vector<PartExtent> extents;  // of the model, in the files
};
// Of a sourced manifest. Errors: kInvalidArgument (a URL that is none).
Result<RemoteBytes> RemoteBytesOf(const Manifest& manifest);

// What takes the ranges. Called by several threads, but one at a time.
struct RangeSink {
  std::function<Result<std::shared_ptr<RangeWriter>>(std::size_t range)> begin;
  std::function<Status(std::size_t range, RangeWriter::Finished)> finished;
  std::function<void(std::uint64_t more)> on_bytes;  // that are here, what a writer had before too; may be empty
};

// `ranges`, in this order, each with its own writer; what that has already is not fetched. Of a failed call what came
// stays with the writers. Errors: as HttpFile::Read, RangeWriter::Put and Finish, and as the sink's.
Status PullRanges(const Manifest& manifest, const std::vector<std::size_t>& ranges, const RemoteBytes& from,
                  const RangeSink& sink, const HttpOptions& http, int connections);

}  // namespace shoal
