// One queue of chunk runs, several threads that each have a connection of their own.
#include "weights/pull.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "weights/draft.h"

namespace shoal {
namespace {

constexpr std::uint64_t kHeaderFirstBytes = 256U << 10;
constexpr std::uint64_t kRunBytes = 16U << 20;  // of one request

// Fetches the header: how long it is, only the header says.
Result<std::vector<std::uint8_t>> FetchHeader(HttpFile& file, std::uint64_t file_bytes) {
  std::vector<std::uint8_t> header;
  const std::uint64_t most = std::min(file_bytes, kManifestBytesMax);
  for (std::uint64_t want = std::min(kHeaderFirstBytes, most);; want = std::min(4 * want, most)) {
    SHOAL_RETURN_IF_ERROR(file.Read(header.size(), want - header.size(), [&](std::span<const std::uint8_t> piece) {
      header.insert(header.end(), piece.begin(), piece.end());
      return Status();
    }));
    const Result<Manifest> described = DescribeRanges(header, file_bytes);
    if (described.ok()) return described->header;
    const bool is_gguf = header.size() >= 4 && std::equal(header.begin(), header.begin() + 4, "GGUF");
    if (!is_gguf || want == most || described.error().code != ErrorCode::kCorrupt) return described.error();
  }
}

// Chunks [first, last) of one range: one request.
struct Run {
  std::size_t range;
  std::uint64_t first, last;
};

class Pull {
 public:
  Pull(Draft& draft, const Url& url, const HttpFacts& facts, const PullOptions& options)
      : draft_(draft), url_(url), facts_(facts), options_(options) {}

  Status Run() {
    SHOAL_RETURN_IF_ERROR(Plan());
    Report(0);
    const auto most = static_cast<std::size_t>(std::clamp(options_.connections, 1, kPullConnectionsMax));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < std::min(most, runs_.size()); ++i) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    return status_;
  }

 private:
  struct Open {
    std::unique_ptr<RangeWriter> writer;
    std::uint64_t chunks_left = 0;
  };

  Status Plan();
  void Work();
  Status Fetch(HttpFile& file, const shoal::Run& run);
  Status Done(const shoal::Run& run);
  void Report(std::uint64_t more);
  void Fail(const Status& why);

  Draft& draft_;
  const Url& url_;
  const HttpFacts& facts_;
  const PullOptions& options_;
  std::vector<shoal::Run> runs_;
  std::vector<Open> open_;  // [ranges]
  std::atomic<bool> failed_{false};

  std::mutex mutex_;
  std::size_t next_ = 0;          // guarded by mutex_; of runs_
  Status status_;                 // guarded by mutex_
  std::uint64_t bytes_done_ = 0;  // guarded by mutex_
};

// What is missing, in the order of the file. Every range that is not whole gets its writer here: only that knows which
// chunks have come before.
Status Pull::Plan() {
  const Manifest& manifest = draft_.manifest();
  open_.resize(manifest.ranges.size());
  bytes_done_ = manifest.header.size();
  std::vector<std::size_t> order(manifest.ranges.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return manifest.ranges[a].extents[0].offset < manifest.ranges[b].extents[0].offset;
  });
  const std::uint64_t run_chunks = std::max<std::uint64_t>(1, kRunBytes / manifest.chunk_bytes);
  for (const std::size_t range : order) {
    if (draft_.Has(range)) {
      bytes_done_ += manifest.ranges[range].bytes;
      continue;
    }
    SHOAL_ASSIGN_OR_RETURN(open_[range].writer, draft_.Begin(range));
    bytes_done_ += open_[range].writer->bytes_had();
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
  bytes_done_ += more;
  if (options_.on_progress) options_.on_progress({bytes_done_, draft_.manifest().file_bytes, false});
}

void Pull::Fail(const Status& why) {
  failed_ = true;
  const std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = why;
}

Status Pull::Done(const shoal::Run& run) {
  Open& open = open_[run.range];
  {
    const std::lock_guard lock(mutex_);
    open.chunks_left -= run.last - run.first;
    if (open.chunks_left > 0) return {};
  }
  SHOAL_ASSIGN_OR_RETURN(RangeWriter::Finished finished, open.writer->Finish());
  draft_.Finished(run.range, std::move(finished));
  open.writer.reset();
  return {};
}

Status Pull::Fetch(HttpFile& file, const shoal::Run& run) {
  const Manifest& manifest = draft_.manifest();
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
  ForExtents(manifest.ranges[run.range], run.first * manifest.chunk_bytes, bytes,
             [&](std::uint64_t offset, std::uint64_t n) {
               parts.push_back({offset, n});
             });
  for (const Extent& part : parts) SHOAL_RETURN_IF_ERROR(file.Read(part.offset, part.bytes, take));
  return Done(run);
}

void Pull::Work() {
  HttpOptions http = options_.http;
  http.cancelled = [this] { return failed_ || (options_.http.cancelled && options_.http.cancelled()); };
  HttpFile file(url_, http);
  file.Expect(facts_);
  while (!failed_) {
    std::size_t mine = 0;
    {
      const std::lock_guard lock(mutex_);
      if (next_ == runs_.size()) return;
      mine = next_++;
    }
    if (const Status fetched = Fetch(file, runs_[mine]); !fetched.ok()) Fail(fetched);
  }
}

}  // namespace

Result<RemoteModel> DescribeRemote(const Url& url, const HttpOptions& options) {
  HttpFile file(url, options);
  RemoteModel model;
  SHOAL_ASSIGN_OR_RETURN(model.facts, file.Probe());
  file.Expect(model.facts);
  SHOAL_ASSIGN_OR_RETURN(const std::vector<std::uint8_t> header, FetchHeader(file, model.facts.bytes));
  SHOAL_ASSIGN_OR_RETURN(model.manifest, DescribeRanges(header, model.facts.bytes));
  return model;
}

Result<ModelId> PullModel(WeightStore& store, const Url& url, const std::string& name, const std::string& origin,
                          const PullOptions& options) {
  SHOAL_RETURN_IF_ERROR(CheckModelName(name));
  HttpFile file(url, options.http);
  SHOAL_ASSIGN_OR_RETURN(HttpFacts facts, file.Probe());
  file.Expect(facts);
  if (options.sha256 && facts.sha256 && *options.sha256 != *facts.sha256) {
    return Error{ErrorCode::kStale, "the hub's list and the file itself say different hashes; try again"};
  }
  const std::optional<Digest> sha256 = options.sha256 ? options.sha256 : facts.sha256;
  const std::string key = url.Text() + "\n" + facts.etag + "\n" + std::to_string(facts.bytes);
  std::vector<std::uint8_t> header = Draft::KnownHeader(store, key);
  if (header.empty()) { SHOAL_ASSIGN_OR_RETURN(header, FetchHeader(file, facts.bytes)); }
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<Draft> draft, Draft::Open(store, key, header, facts.bytes));
  SHOAL_RETURN_IF_ERROR(Pull(*draft, url, facts, options).Run());
  return draft->Finish(name, origin, sha256, [&](std::uint64_t done) {
    if (options.on_progress) options.on_progress({done, facts.bytes, true});
    return !options.http.cancelled || !options.http.cancelled();
  });
}

}  // namespace shoal
