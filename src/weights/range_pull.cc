// One queue of chunk runs, several threads that each have a connection of their own.
#include "weights/range_pull.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

namespace shoal {
namespace {

constexpr std::uint64_t kRunBytes = 16U << 20;  // of one request
constexpr std::uint64_t kPaddingBytes = 64U << 10;

// Chunks [first, last) of one range: one request.
struct ChunkRun {
  std::size_t range;
  std::uint64_t first, last;
};

class Pull {
 public:
  Pull(const Manifest& manifest, const RemoteBytes& from, const RangeSink& sink, const HttpOptions& http)
      : manifest_(manifest), from_(from), sink_(sink), http_(http) {}

  Status Run(const std::vector<std::size_t>& ranges, int connections) {
    SHOAL_RETURN_IF_ERROR(Plan(ranges));
    const auto most = static_cast<std::size_t>(std::clamp(connections, 1, kPullConnectionsMax));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < std::min(most, runs_.size()); ++i) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    return status_;
  }

 private:
  struct Open {
    std::shared_ptr<RangeWriter> writer;
    std::uint64_t chunks_left = 0;
  };

  Status Plan(const std::vector<std::size_t>& ranges);
  struct Connection {  // of one thread, which goes through the files in their order
    std::size_t part = 0;
    std::unique_ptr<HttpFile> file;  // null: none yet
  };
  using Take = std::function<Status(std::span<const std::uint8_t>)>;

  void Work();
  Status Fetch(Connection& connection, const HttpOptions& http, const ChunkRun& run);
  Status Read(Connection& connection, const HttpOptions& http, Extent extent, const Take& take);
  Status Done(const ChunkRun& run);
  void Report(std::uint64_t more);
  void Fail(const Status& why);

  const Manifest& manifest_;
  const RemoteBytes& from_;
  const RangeSink& sink_;
  const HttpOptions& http_;
  std::vector<ChunkRun> runs_;
  std::vector<Open> open_;  // [ranges]
  std::atomic<bool> failed_{false};

  std::mutex mutex_;
  std::size_t next_ = 0;  // guarded by mutex_; of runs_
  Status status_;         // guarded by mutex_
};

// Every range gets its writer here: only that knows which chunks have come before.
Status Pull::Plan(const std::vector<std::size_t>& ranges) {
  open_.resize(manifest_.ranges.size());
  const std::uint64_t run_chunks = std::max<std::uint64_t>(1, kRunBytes / manifest_.chunk_bytes);
  for (const std::size_t range : ranges) {
    SHOAL_ASSIGN_OR_RETURN(open_[range].writer, sink_.begin(range));
    Report(open_[range].writer->bytes_had());
    const std::vector<std::uint64_t> missing = open_[range].writer->Missing();
    open_[range].chunks_left = missing.size();
    for (std::size_t i = 0; i < missing.size();) {
      std::size_t n = 1;
      while (i + n < missing.size() && n < run_chunks && missing[i + n] == missing[i] + n) ++n;
      runs_.push_back({range, missing[i], missing[i] + n});
      i += n;
    }
    if (missing.empty()) SHOAL_RETURN_IF_ERROR(Done({range, 0, 0}));
  }
  return {};
}

void Pull::Report(std::uint64_t more) {
  const std::lock_guard lock(mutex_);
  if (sink_.on_bytes) sink_.on_bytes(more);
}

void Pull::Fail(const Status& why) {
  failed_ = true;
  const std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = why;
}

Status Pull::Done(const ChunkRun& run) {
  Open& open = open_[run.range];
  {
    const std::lock_guard lock(mutex_);
    open.chunks_left -= run.last - run.first;
    if (open.chunks_left > 0) return {};
  }
  SHOAL_ASSIGN_OR_RETURN(RangeWriter::Finished finished, open.writer->Finish());
  open.writer.reset();
  const std::lock_guard lock(mutex_);
  return sink_.finished(run.range, std::move(finished));
}

// Bytes of the model, from the files that have them. Between the parts' there is padding.
Status Pull::Read(Connection& connection, const HttpOptions& http, Extent extent, const Take& take) {
  while (extent.bytes > 0) {
    const auto [part, together] = PlaceIn(from_.extents, extent.offset, manifest_.file_bytes);
    std::uint64_t n = std::min(extent.bytes, together);
    if (part != nullptr) {
      if (connection.file == nullptr || connection.part != part->part) {
        connection = {part->part, std::make_unique<HttpFile>(from_.files[part->part].url, http)};
        connection.file->Expect(from_.facts[part->part]);
      }
      SHOAL_RETURN_IF_ERROR(connection.file->Read(part->part_offset + (extent.offset - part->offset), n, take));
    } else {
      n = std::min<std::uint64_t>(n, kPaddingBytes);
      SHOAL_RETURN_IF_ERROR(take(std::vector<std::uint8_t>(n)));
    }
    extent.offset += n;
    extent.bytes -= n;
  }
  return {};
}

Status Pull::Fetch(Connection& connection, const HttpOptions& http, const ChunkRun& run) {
  RangeWriter& writer = *open_[run.range].writer;
  std::vector<std::uint8_t> chunk;
  std::uint64_t at = run.first, bytes = 0;
  for (std::uint64_t i = run.first; i < run.last; ++i) bytes += writer.ChunkBytes(i);
  const auto take = [&](std::span<const std::uint8_t> piece) -> Status {
    if (failed_) return Error{ErrorCode::kCancelled, "another part failed"};
    while (!piece.empty()) {
      const std::uint64_t want = writer.ChunkBytes(at) - chunk.size();
      const std::span<const std::uint8_t> part = piece.first(std::min<std::uint64_t>(want, piece.size()));
      chunk.insert(chunk.end(), part.begin(), part.end());
      piece = piece.subspan(part.size());
      if (part.size() < want) continue;
      SHOAL_RETURN_IF_ERROR(writer.Put(at, chunk));
      Report(chunk.size());
      chunk.clear();
      ++at;
    }
    return {};
  };
  std::vector<Extent> parts;
  ForExtents(manifest_.ranges[run.range], run.first * manifest_.chunk_bytes, bytes,
             [&](std::uint64_t offset, std::uint64_t n) {
               parts.push_back({offset, n});
             });
  for (const Extent& part : parts) SHOAL_RETURN_IF_ERROR(Read(connection, http, part, take));
  return Done(run);
}

void Pull::Work() {
  HttpOptions http = http_;
  http.cancelled = [this] { return failed_ || (http_.cancelled && http_.cancelled()); };
  Connection connection;
  while (!failed_) {
    std::size_t mine = 0;
    {
      const std::lock_guard lock(mutex_);
      if (next_ == runs_.size()) return;
      mine = next_++;
    }
    if (const Status fetched = Fetch(connection, http, runs_[mine]); !fetched.ok()) Fail(fetched);
  }
}

}  // namespace

Result<RemoteBytes> RemoteBytesOf(const Manifest& manifest) {
  RemoteBytes from;
  from.extents = manifest.extents;
  for (const SourceFile& file : manifest.sources) {
    SHOAL_ASSIGN_OR_RETURN(Url url, ParseUrl(file.url));
    from.files.push_back({std::move(url), file.sha256});
    from.facts.push_back({file.bytes, file.etag, file.sha256});
  }
  return from;
}

Status PullRanges(const Manifest& manifest, const std::vector<std::size_t>& ranges, const RemoteBytes& from,
                  const RangeSink& sink, const HttpOptions& http, int connections) {
  return Pull(manifest, from, sink, http).Run(ranges, connections);
}

}  // namespace shoal
