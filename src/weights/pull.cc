// Headers first; then all ranges into a draft.
#include "weights/pull.h"

#include <algorithm>
#include <vector>

#include "weights/draft.h"

namespace shoal {
namespace {

constexpr std::uint64_t kHeaderFirstBytes = 256U << 10;

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
  const std::string path = WithoutQuery(url.path);
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

std::vector<SourceFile> SourcesOf(const std::vector<RemoteFile>& files, const std::vector<HttpFacts>& facts) {
  std::vector<SourceFile> sources;
  for (std::size_t i = 0; i < files.size(); ++i) {
    sources.push_back({files[i].url.Text(), facts[i].bytes, facts[i].etag, facts[i].sha256});
  }
  return sources;
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

// The files whose hashes are told, out of the model's bytes.
Result<std::vector<HashedFile>> FilesToHash(const RemoteBytes& from, const RemoteModel& model,
                                            const HttpOptions& options) {
  std::vector<HashedFile> hashed;
  for (std::size_t i = 0; i < from.files.size(); ++i) {
    if (!from.facts[i].sha256) continue;
    const std::span<const std::uint8_t> head = model.heads.empty() ? std::span<const std::uint8_t>() : model.heads[i];
    SHOAL_ASSIGN_OR_RETURN(hashed.emplace_back(), HashedFileOf(from, i, head, options));
  }
  return hashed;
}

// What is missing, in the order of the file.
Status PullInto(Draft& draft, const std::vector<RemoteFile>& files, const RemoteModel& model,
                const PullOptions& options) {
  const Manifest& manifest = draft.manifest();
  std::vector<std::size_t> missing;
  std::uint64_t had = manifest.header.size();
  for (std::size_t i = 0; i < manifest.ranges.size(); ++i) {
    if (draft.Has(i)) {
      had += manifest.ranges[i].bytes;
    } else {
      missing.push_back(i);
    }
  }
  std::sort(missing.begin(), missing.end(), [&](std::size_t a, std::size_t b) {
    return manifest.ranges[a].extents[0].offset < manifest.ranges[b].extents[0].offset;
  });
  RangeSink sink;
  sink.begin = [&](std::size_t range) { return draft.Begin(range); };
  sink.finished = [&](std::size_t range, RangeWriter::Finished finished) -> Status {
    draft.Finished(range, std::move(finished));
    return {};
  };
  if (options.on_progress) {
    sink.on_bytes = [&](std::uint64_t bytes) { options.on_progress({had += bytes, manifest.file_bytes, false}); };
    options.on_progress({had, manifest.file_bytes, false});
  }
  return PullRanges(manifest, missing, {files, model.facts, model.extents}, sink, options.http, options.connections);
}

}  // namespace

std::vector<RemoteFile> RemoteFilesOf(const Url& url) {
  const std::string path = WithoutQuery(url.path), query = url.path.substr(path.size());
  const auto split = ParseSplitName(path);
  if (!split) return {{url, {}}};
  std::vector<RemoteFile> files;
  for (std::int32_t i = 1; i <= split->parts; ++i) {
    files.push_back({url, {}});
    files.back().url.path = PartName(*split, i) + query;
  }
  return files;
}

Result<RemoteModel> DescribeRemote(const std::vector<RemoteFile>& files, const HttpOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(std::vector<HttpFacts> facts, ProbeAll(files, options));
  return Describe(files, std::move(facts), options, {});
}

Manifest SourcedManifest(const std::vector<RemoteFile>& files, const RemoteModel& model) {
  Manifest manifest = model.manifest;
  manifest.extents = model.extents;
  manifest.sources = SourcesOf(files, model.facts);
  return manifest;
}

bool IsSameState(const std::vector<SourceFile>& a, const std::vector<SourceFile>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const SourceFile& one, const SourceFile& other) {
    return one.url == other.url &&
           IsSameState(HttpFacts{one.bytes, one.etag, one.sha256}, HttpFacts{other.bytes, other.etag, other.sha256});
  });
}

Result<bool> IsInState(const std::vector<RemoteFile>& files, const Manifest& manifest, const HttpOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(const std::vector<HttpFacts> facts, ProbeAll(files, options));
  return IsSameState(SourcesOf(files, facts), manifest.sources);
}

Result<ModelId> PullModel(WeightStore& store, const std::vector<RemoteFile>& files, const std::string& name,
                          const std::string& origin, const PullOptions& options) {
  SHOAL_RETURN_IF_ERROR(CheckModelName(name));
  SHOAL_ASSIGN_OR_RETURN(std::vector<HttpFacts> facts, ProbeAll(files, options.http));
  std::string key;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::string state = facts[i].sha256 ? HexOf(*facts[i].sha256) : facts[i].etag;
    key += (i == 0 ? "" : "\n") + files[i].url.Text() + "\n" + state + "\n" + std::to_string(facts[i].bytes);
  }
  SHOAL_ASSIGN_OR_RETURN(const RemoteModel model,
                         Describe(files, std::move(facts), options.http, Draft::KnownHeader(store, key)));
  SHOAL_RETURN_IF_ERROR(store.CheckNameFree(name, origin, model.manifest));
  SHOAL_ASSIGN_OR_RETURN(const std::unique_ptr<Draft> draft,
                         Draft::Open(store, key, model.manifest.header, model.manifest.file_bytes));
  SHOAL_RETURN_IF_ERROR(PullInto(*draft, files, model, options));
  std::vector<HashedFile> hashed;
  if (!draft->was_finished()) {
    SHOAL_ASSIGN_OR_RETURN(hashed, FilesToHash({files, model.facts, model.extents}, model, options.http));
  }
  return draft->Finish(name, origin, hashed, [&](std::uint64_t done) {
    if (options.on_progress) options.on_progress({done, model.manifest.file_bytes, true});
    return !options.http.cancelled || !options.http.cancelled();
  });
}

}  // namespace shoal
