// One queue of chunk runs, several threads that each have a connection of their own.
#include "weights/pull.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "weights/draft.h"

namespace shoal {
namespace {

constexpr std::uint64_t kHeaderFirstBytes = 256U << 10;
constexpr std::uint64_t kRunBytes = 16U << 20;  // of one request
constexpr std::uint64_t kTailBytesMax = 1U << 20, kPaddingBytes = 64U << 10;

// A GGUF file's beginning up to its data: how long it is, only the header says.
struct Head {
  std::vector<std::uint8_t> bytes;
  Gguf gguf;
};
Result<Head> FetchHead(HttpFile& file, std::uint64_t file_bytes) {
  std::vector<std::uint8_t> header;
  const std::uint64_t most = std::min(file_bytes, kManifestBytesMax);
  for (std::uint64_t want = std::min(kHeaderFirstBytes, most);; want = std::min(4 * want, most)) {
    SHOAL_RETURN_IF_ERROR(file.Read(header.size(), want - header.size(), [&](std::span<const std::uint8_t> piece) {
      header.insert(header.end(), piece.begin(), piece.end());
      return Status();
    }));
    Result<Gguf> gguf = ParseGguf(header, file_bytes);
    const std::uint64_t data = gguf.ok() ? std::min(gguf->data_offset, file_bytes) : 0;
    if (gguf.ok() && header.size() >= data) {
      header.resize(data);
      return Head{std::move(header), *std::move(gguf)};
    }
    const bool is_gguf = header.size() >= 4 && std::equal(header.begin(), header.begin() + 4, "GGUF");
    if (gguf.ok() && want == most) return Error{ErrorCode::kCorrupt, "the GGUF header is too long"};
    if (!gguf.ok() && (!is_gguf || want == most || gguf.error().code != ErrorCode::kCorrupt)) return gguf.error();
  }
}

std::string FileName(const Url& url) {
  const std::string path = url.path.substr(0, url.path.find('?'));
  return path.substr(path.find_last_of('/') + 1);
}

// Each file asked for; that of one that is missing says which it is.
Result<std::vector<HttpFacts>> ProbeAll(const std::vector<RemoteFile>& files, const HttpOptions& options) {
  std::vector<HttpFacts> all;
  for (std::size_t i = 0; i < files.size(); ++i) {
    Result<HttpFacts> facts = HttpFile(files[i].url, options).Probe();
    if (!facts.ok() && files.size() > 1) {
      return Error{facts.error().code, "part " + std::to_string(i + 1) + " of " + std::to_string(files.size()) +
                                           " of the model: " + facts.error().message};
    }
    if (!facts.ok()) return std::move(facts).error();
    if (files[i].sha256 && facts->sha256 && *files[i].sha256 != *facts->sha256) {
      return Error{ErrorCode::kStale, "the hub's list and the file itself say different hashes; try again"};
    }
    if (!facts->sha256) facts->sha256 = files[i].sha256;
    all.push_back(*std::move(facts));
  }
  return all;
}

// `known`: the header, when it was fetched before; empty: it was not. Of parts, heads are always fetched.
Result<RemoteModel> Describe(const std::vector<RemoteFile>& files, std::vector<HttpFacts> facts,
                             const HttpOptions& options, std::vector<std::uint8_t> known) {
  RemoteModel model;
  std::vector<Gguf> ggufs;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < files.size() && (files.size() > 1 || known.empty()); ++i) {
    HttpFile file(files[i].url, options);
    file.Expect(facts[i]);
    SHOAL_ASSIGN_OR_RETURN(Head head, FetchHead(file, facts[i].bytes));
    model.heads.push_back(std::move(head.bytes));
    if (i > 0) KeepOnlyWhoseItIs(head.gguf);
    ggufs.push_back(std::move(head.gguf));
    names.push_back(FileName(files[i].url));
  }
  if (files.size() == 1) {
    if (known.empty()) known = std::move(model.heads[0]);
    model.heads.clear();
    model.extents.push_back({0, facts[0].bytes, 0, 0});
    SHOAL_ASSIGN_OR_RETURN(model.manifest, DescribeRanges(known, facts[0].bytes));
  } else {
    SHOAL_ASSIGN_OR_RETURN(JoinedGguf joined, JoinGguf(ggufs, names));
    model.extents = std::move(joined.extents);
    SHOAL_ASSIGN_OR_RETURN(model.manifest, DescribeRanges(joined.header, joined.file_bytes));
  }
  model.facts = std::move(facts);
  return model;
}

// The files as they are at the server, out of the model's bytes: for their hashes.
Result<std::vector<HashedFile>> FilesToHash(const std::vector<RemoteFile>& files, const RemoteModel& model,
                                            const HttpOptions& options) {
  std::vector<HashedFile> hashed;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const HttpFacts& facts = model.facts[i];
    if (!facts.sha256) continue;
    HashedFile one;
    one.name = FileName(files[i].url);
    one.sha256 = *facts.sha256;
    std::uint64_t end = 0;
    if (!model.heads.empty()) {
      one.head = model.heads[i];
      end = one.head.size();
    }
    for (const PartExtent& extent : model.extents) {
      if (extent.part != i) continue;
      one.extents.push_back({extent.offset, extent.bytes});
      end = extent.part_offset + extent.bytes;
    }
    // What a part has behind its last tensor is in no range.
    if (end < facts.bytes) {
      if (facts.bytes - end > kTailBytesMax) {
        return Error{ErrorCode::kCorrupt,
                     one.name + " has " + std::to_string(facts.bytes - end) + " bytes behind its last tensor"};
      }
      HttpFile file(files[i].url, options);
      file.Expect(facts);
      SHOAL_RETURN_IF_ERROR(file.Read(end, facts.bytes - end, [&](std::span<const std::uint8_t> piece) {
        one.tail.insert(one.tail.end(), piece.begin(), piece.end());
        return Status();
      }));
    }
    hashed.push_back(std::move(one));
  }
  return hashed;
}

// Chunks [first, last) of one range: one request.
struct Run {
  std::size_t range;
  std::uint64_t first, last;
};

class Pull {
 public:
  Pull(Draft& draft, const std::vector<RemoteFile>& files, const RemoteModel& model, const PullOptions& options)
      : draft_(draft), files_(files), model_(model), options_(options) {}

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
    std::shared_ptr<RangeWriter> writer;
    std::uint64_t chunks_left = 0;
  };

  Status Plan();
  struct Connection {  // of one thread, which goes through the files in their order
    std::size_t part = 0;
    std::unique_ptr<HttpFile> file;  // null: none yet
  };
  using Take = std::function<Status(std::span<const std::uint8_t>)>;

  void Work();
  Status Fetch(Connection& connection, const HttpOptions& http, const shoal::Run& run);
  Status Read(Connection& connection, const HttpOptions& http, Extent extent, const Take& take);
  Status Done(const shoal::Run& run);
  void Report(std::uint64_t more);
  void Fail(const Status& why);

  Draft& draft_;
  const std::vector<RemoteFile>& files_;
  const RemoteModel& model_;
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

// Bytes of the model, from the files that have them. Between the parts' there is padding.
Status Pull::Read(Connection& connection, const HttpOptions& http, Extent extent, const Take& take) {
  while (extent.bytes > 0) {
    const auto [part, together] = PlaceIn(model_.extents, extent.offset, model_.manifest.file_bytes);
    std::uint64_t n = std::min(extent.bytes, together);
    if (part != nullptr) {
      if (connection.file == nullptr || connection.part != part->part) {
        connection = {part->part, std::make_unique<HttpFile>(files_[part->part].url, http)};
        connection.file->Expect(model_.facts[part->part]);
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

Status Pull::Fetch(Connection& connection, const HttpOptions& http, const shoal::Run& run) {
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
  for (const Extent& part : parts) SHOAL_RETURN_IF_ERROR(Read(connection, http, part, take));
  return Done(run);
}

void Pull::Work() {
  HttpOptions http = options_.http;
  http.cancelled = [this] { return failed_ || (options_.http.cancelled && options_.http.cancelled()); };
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

std::vector<RemoteFile> RemoteFilesOf(const Url& url) {
  const std::size_t query = std::min(url.path.find('?'), url.path.size());
  const auto split = ParseSplitName(url.path.substr(0, query));
  if (!split) return {{url, {}}};
  std::vector<RemoteFile> files;
  for (std::int32_t i = 1; i <= split->parts; ++i) {
    files.push_back({url, {}});
    files.back().url.path = PartName(*split, i) + url.path.substr(query);
  }
  return files;
}

Result<RemoteModel> DescribeRemote(const std::vector<RemoteFile>& files, const HttpOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(std::vector<HttpFacts> facts, ProbeAll(files, options));
  return Describe(files, std::move(facts), options, {});
}

Result<ModelId> PullModel(WeightStore& store, const std::vector<RemoteFile>& files, const std::string& name,
                          const std::string& origin, const PullOptions& options) {
  SHOAL_RETURN_IF_ERROR(CheckModelName(name));
  SHOAL_ASSIGN_OR_RETURN(std::vector<HttpFacts> facts, ProbeAll(files, options.http));
  std::string key;
  for (std::size_t i = 0; i < files.size(); ++i) {
    key += (i == 0 ? "" : "\n") + files[i].url.Text() + "\n" + facts[i].etag + "\n" + std::to_string(facts[i].bytes);
  }
  SHOAL_ASSIGN_OR_RETURN(const RemoteModel model,
                         Describe(files, std::move(facts), options.http, Draft::KnownHeader(store, key)));
  SHOAL_RETURN_IF_ERROR(store.CheckNameFree(name, origin, model.manifest));
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<Draft> draft,
                         Draft::Open(store, key, model.manifest.header, model.manifest.file_bytes));
  SHOAL_RETURN_IF_ERROR(Pull(*draft, files, model, options).Run());
  std::vector<HashedFile> hashed;
  if (!draft->was_finished()) { SHOAL_ASSIGN_OR_RETURN(hashed, FilesToHash(files, model, options.http)); }
  return draft->Finish(name, origin, hashed, [&](std::uint64_t done) {
    if (options.on_progress) options.on_progress({done, model.manifest.file_bytes, true});
    return !options.http.cancelled || !options.http.cancelled();
  });
}

}  // namespace shoal
