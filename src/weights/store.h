// The models of this node by their pieces: manifests, and the ranges (layers, embeddings, ...) that are here.
//
//   models/NAME.json        a name, the manifest it means, where it came from
//   manifests/ID            weights/manifest.h; the name is its SHA-256
//   blobs/ID                one range's bytes; the name is a hash over the hashes of its chunks
//   partial/ID.part         a range that is being fetched
//   drafts/KEY/...          a model from a source that tells no hashes (weights/draft.h); HEX.blob names a blob of it
//   sums/ID.N               the hashes of the chunks of range N of a sourced manifest, as far as they are known
//   sums/ID.whole           its files, all of them, were found to be what its source says they are
//   local/KEY.json          a GGUF file elsewhere on this disk whose manifest we have made: used as it lies, never
//   copied
//
// Everything appears by a rename and is named by what it contains, so a process that is killed at any instant leaves
// nothing to repair, and several processes may use one store. A blob or a draft in use is locked (flock) by who uses
// it: that is its pin, which the system takes back however the process ends. Last use is the file's time, of a draft
// that of the latest file in it. Any thread; every call blocks on the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "weights/fetch_claims.h"
#include "weights/files.h"
#include "weights/local_file.h"
#include "weights/manifest.h"
#include "weights/range_writer.h"

namespace shoal {

inline constexpr std::size_t kModelNameMax = 128;
inline constexpr char kDraftBlobEnd[] = ".blob";  // of an empty file in a draft, named by the blob that it needs
inline constexpr char kMakingEnd[] = ".making";   // of hashes of a range that is being written

struct StoreOptions {
  std::string folder;                                // made when absent
  std::uint64_t quota_bytes = 0;                     // of blobs and what is being fetched; 0: as the disk allows
  std::uint64_t disk_free_min_bytes = 256ULL << 20;  // left to others
};

struct StoredModel {
  std::string name;
  ModelId id{};
  std::string origin;  // "hf:owner/repo:Q4_K_M", a URL, a path, "cluster"
  std::shared_ptr<const Manifest> manifest;
  std::string local_path;  // a GGUF file (or its first part) that has all of it; empty: none
  std::vector<bool> held;  // [ranges]
  std::uint64_t held_bytes = 0;
};

// Layers that are held by `held` [ranges], ascending, apart from each other.
std::vector<LayerRange> HeldLayers(const Manifest& manifest, const std::vector<bool>& held);

// A model without its manifest.
struct StoredName {
  std::string name;
  ModelId id{};
  std::string local_path;
};

struct StoreUsage {
  std::uint64_t blobs = 0, blob_bytes = 0, pinned_bytes = 0, partial_bytes = 0;
};

// A file name for a model, with nothing in it that a path could misunderstand. Errors: kInvalidArgument.
Result<std::string> CheckModelName(const std::string& name);

class WeightStore {
 public:
  // Errors: kIo.
  static Result<std::unique_ptr<WeightStore>> Open(StoreOptions options);

  // --- Models. A manifest of this store has all its hashes, or is sourced and has those that are known so far.
  // `name` may be taken by this model, or by another state of what `origin` names, which is replaced. `source`: names
  // the bytes where they came from, for FindSource; zeros: nothing does.
  // Errors: kInvalidArgument (the name; or another model has it: says which), kIo.
  Result<ModelId> Add(const Manifest& manifest, const std::string& name, const std::string& origin,
                      const Digest& source = {});
  // Reads and hashes a GGUF file, unless it is known and unchanged since. `progress` gets the bytes read; false
  // cancels. Errors: as ReadGguf; kCancelled, kIo.
  Result<ModelId> AddLocal(const std::string& path, const std::string& name,
                           const std::function<bool(std::uint64_t)>& progress);
  // Whether Add would take the name from another model, as far as one knows without its hashes. Errors: as Add.
  Status CheckNameFree(const std::string& name, const std::string& origin, const Manifest& manifest) const;
  // By name. What cannot be read any more is left out. Names reads no manifest.
  std::vector<StoredModel> Models() const;
  std::vector<StoredName> Names() const;
  // Errors: kNotFound, kCorrupt, kIo.
  Result<StoredModel> Find(const std::string& name) const;
  Result<std::shared_ptr<const Manifest>> FindManifest(const ModelId& id) const;
  // The model that was added with this `source`, as long as it has a name. Null: none.
  std::shared_ptr<const Manifest> FindSource(const Digest& source) const;
  // Of a sourced manifest: with the hashes that have become known since; itself where there are none. Any other:
  // itself.
  std::shared_ptr<const Manifest> WithHashes(const ModelId& id, const std::shared_ptr<const Manifest>& manifest) const;
  // The hashes of a range's chunks, from who had its bytes first. What is known already stays. Errors: kIo.
  Status KeepHashes(const ModelId& id, std::size_t range, const std::vector<Digest>& chunks) const;
  // Whether all files of a sourced model were found to be what its source says they are. Errors: kIo.
  bool IsCheckedWhole(const ModelId& id) const;
  Status KeepCheckedWhole(const ModelId& id);
  // Forgets the name, and what no other name needs. Ranges in use stay until the next Collect. Errors: kNotFound, kIo.
  Status Remove(const std::string& name);
  // Removes manifests without a name, blobs without a manifest or draft, what was begun and is needed no more or was
  // left for a week, leftovers of writers that are gone; with `unfinished` all that was begun. What is in use stays.
  // Returns the bytes removed.
  std::uint64_t Collect(bool unfinished);

  // --- Ranges.
  bool Has(const Digest& blob) const;
  // False, too, where its hashes are not known.
  bool Has(const Manifest& manifest, std::size_t range) const;
  // Some of it is here, of an earlier writer. `id` here and below: the manifest's, needed (CHECK) where hashes of
  // ranges are not known.
  bool HasSome(const Manifest& manifest, std::size_t range, const ModelId& id = {}) const {
    return FileBytes(PartPath(manifest, range, id)) > 0;
  }
  // Keeps a finished range from being evicted as long as the descriptor is open, and marks it as used now. The
  // descriptor reads its bytes. Errors: kNotFound, kIo.
  Result<OwnedFd> Pin(const Digest& blob) const;
  // kNotFound, too, where its hashes are not known.
  Result<OwnedFd> Pin(const Manifest& manifest, std::size_t range) const;
  // Of a range whose hashes are not known, the writer makes them: then KeepHashes. Makes room first. Errors: as
  // MakeRoom and RangeWriter::Open.
  Result<std::shared_ptr<RangeWriter>> Begin(const Manifest& manifest, std::size_t range, const ModelId& id = {});
  // Reads a finished range anew; one with a wrong byte is removed. Errors: kNotFound, kCorrupt (it was removed), kIo.
  Status Verify(const Manifest& manifest, std::size_t range);
  // One verified chunk from wherever it is on this node: a blob (which counts as used), an unfinished range, a local
  // file. For peers. Errors: kNotFound, kCorrupt (the file is not what it was), kIo.
  Result<std::vector<std::uint8_t>> ReadChunk(const StoredModel& model, std::size_t range, std::uint64_t chunk) const;

  // A local file of `file_bytes` bytes; of one in parts what was read of them last time. Errors: as OpenModelFile; kIo
  // (it is another one now).
  Result<std::unique_ptr<TensorReader>> OpenLocal(const std::string& path, std::uint64_t file_bytes) const;

  FetchClaims& claims() const { return claims_; }  // of this process

  // Which chunks ReadChunk would find: one bit each, ranges in order, the lowest bit first. Reads no weights.
  std::vector<std::uint8_t> HaveBits(const StoredModel& model) const;

  // Evicts finished ranges nobody uses, and what ended fetches left (drafts too), the longest unused first, until
  // `bytes` more fit quota and disk. `kept` (paths) stay. Errors: kIo (they would not fit without all that: nothing
  // went; says what is in the way).
  Status MakeRoom(std::uint64_t bytes, const std::set<std::string>& kept = {});
  // Whether so much more fits with nothing evicted.
  bool Fits(std::uint64_t bytes) const;
  // Removes a finished range that nobody uses; else nothing.
  void Drop(const Manifest& manifest, std::size_t range);
  // For all that is missing of `ranges`, none of which goes for another. Errors: as MakeRoom.
  Status MakeRoomFor(const Manifest& manifest, const std::vector<std::size_t>& ranges, const ModelId& id = {});
  StoreUsage Usage() const;
  const StoreOptions& options() const { return options_; }
  std::string Path(std::string_view name) const { return options_.folder + "/" + std::string(name); }

 private:
  explicit WeightStore(StoreOptions options) : options_(std::move(options)) {}
  std::shared_ptr<RangeWriter> WriterOf(const Digest& blob) const;
  std::string BlobPath(const Digest& blob) const { return Path("blobs/" + HexOf(blob)); }
  std::string PartPath(const Manifest& manifest, std::size_t range, const ModelId& id) const;
  std::string SumsPath(const ModelId& id, std::size_t range) const;
  std::optional<std::string> LocalPathOf(const ModelId& id) const;
  Result<StoredModel> Load(const std::string& name) const;
  std::set<ModelId> NamedIds() const;
  // By names of files: manifests, finished ranges, ranges on their way.
  struct Needed {
    std::set<std::string> ids, blobs, parts;
  };
  Needed NeededNow() const;
  std::uint64_t CollectSmall(const Needed& needed);
  struct Stored {
    std::string path;
    std::uint64_t bytes = 0;
    std::int64_t time_ns = 0;
  };
  std::vector<Stored> AllStored() const;

  const StoreOptions options_;
  std::mutex room_mutex_;  // one at a time evicts
  mutable std::mutex writers_mutex_;
  std::map<Digest, std::weak_ptr<RangeWriter>> writers_;  // guarded by writers_mutex_; by blob: of this process
  mutable FetchClaims claims_;
  struct Parts {
    LocalFile file;
    std::shared_ptr<const ModelFile> model;
  };
  mutable std::mutex parts_mutex_;
  mutable std::map<std::string, Parts>
      parts_;  // guarded by parts_mutex_; local models in parts that were read, by path
};

// A model's bytes from the store: its blobs, or the local file that has all of it. A reader pins the ranges it touches.
std::shared_ptr<const TensorSource> MakeStoreSource(std::shared_ptr<const WeightStore> store, const StoredModel& model);

// The ranges that layers [first, last) need on a node: their own, the shared ones, the embeddings on the first stage,
// the output head on the last. Errors: as MakeShard.
Result<std::vector<std::size_t>> RangesOf(const Manifest& manifest, LayerRange layers);

}  // namespace shoal
