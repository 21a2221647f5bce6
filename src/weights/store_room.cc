// What the store does without: what no model needs, and what was unused for longest when there is no room.
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "base/units.h"
#include "weights/store.h"

namespace shoal {
namespace {

using Hours = std::chrono::hours;
constexpr char kNewEnd[] = ".new", kPartEnd[] = ".part";
constexpr std::size_t kHexDigits = 2 * sizeof(Digest);
constexpr Hours kLeftoverAge{1};         // no writer of a small file takes as long
constexpr Hours kUnfinishedAge{7 * 24};  // nobody goes on with a range that was begun so long ago

bool IsOlder(const FileFacts& file, Hours age) {
  return std::chrono::system_clock::now().time_since_epoch() - std::chrono::nanoseconds(file.time_ns) >= age;
}

bool IsThere(const std::vector<FileFacts>& files, const std::string& name) {
  return std::any_of(files.begin(), files.end(), [&](const FileFacts& file) { return file.name == name; });
}

std::uint64_t DiskFreeBytes(const std::string& folder) {
  struct statvfs facts {};
  if (statvfs(folder.c_str(), &facts) != 0) return UINT64_MAX;
  return std::uint64_t{facts.f_bavail} * facts.f_frsize;
}

}  // namespace

// ---- What no model needs --------------------------------------------------------------------------------------------

WeightStore::Needed WeightStore::NeededNow() const {
  Needed needed;
  for (const ModelId& id : NamedIds()) {
    const std::string hex = HexOf(id);
    needed.ids.insert(hex);
    const Result<std::shared_ptr<const Manifest>> manifest = FindManifest(id);
    if (!manifest.ok()) continue;
    for (std::size_t i = 0; i < (*manifest)->ranges.size(); ++i) {
      const WeightRange& range = (*manifest)->ranges[i];
      const std::string by_model = hex + "." + std::to_string(i);
      if (range.known()) needed.blobs.insert(HexOf(BlobId(range, (*manifest)->chunk_bytes)));
      needed.parts.insert(range.known() ? HexOf(BlobId(range, (*manifest)->chunk_bytes)) : by_model);
    }
  }
  return needed;
}

std::uint64_t WeightStore::CollectSmall(const Needed& needed) {
  std::uint64_t removed = 0;
  const auto remove = [&](const std::string& folder, const FileFacts& file) {
    if (unlink((Path(folder) + "/" + file.name).c_str()) == 0) removed += file.bytes;
  };
  for (const char* folder : {"models", "local", "manifests", "sums"}) {
    const std::vector<FileFacts> files = ListFiles(Path(folder));
    const std::string_view kind = folder;
    for (const FileFacts& file : files) {
      if (file.name.ends_with(kNewEnd)) {  // still to be renamed, or its writer is gone
        if (IsOlder(file, kLeftoverAge)) remove(folder, file);
      } else if (kind == "manifests" ? !needed.ids.contains(file.name)
                                     : kind == "sums" && !needed.ids.contains(file.name.substr(0, kHexDigits))) {
        remove(folder, file);
      } else if (kind == "sums" && file.name.ends_with(kMakingEnd)) {
        // The hashes of a range by its first writer; others have told them meanwhile, and nobody writes it.
        const std::string range = file.name.substr(0, file.name.size() - (sizeof kMakingEnd - 1));
        if (IsThere(files, range) && FileBytes(Path("partial/" + range + kPartEnd)) == 0) remove(folder, file);
      }
    }
  }
  return removed;
}

std::uint64_t WeightStore::Collect(bool unfinished) {
  Needed needed = NeededNow();
  std::uint64_t removed = CollectSmall(needed);  // at once: what others add meanwhile is not in `needed`
  // A draft's finished ranges have no manifest yet.
  for (const std::string& name : ListFolders(Path("drafts"))) {
    const std::vector<FileFacts> files = ListFiles(Path("drafts/" + name));
    const bool gone = unfinished && RemoveUnused(Path("drafts/" + name));
    for (const FileFacts& file : files) {
      if (gone) removed += file.bytes;
      if (!gone && file.name.ends_with(kDraftBlobEnd)) needed.blobs.insert(file.name.substr(0, kHexDigits));
    }
  }
  const auto remove = [&](const char* folder, const FileFacts& file) {
    if (RemoveUnused(Path(folder) + "/" + file.name)) removed += file.bytes;
  };
  for (const FileFacts& file : ListFiles(Path("blobs"))) {
    if (!needed.blobs.contains(file.name)) remove("blobs", file);
  }
  for (const FileFacts& file : ListFiles(Path("partial"))) {
    const std::string name = file.name.substr(0, file.name.size() - std::min(file.name.size(), sizeof kPartEnd - 1));
    if (unfinished || !needed.parts.contains(name) || IsOlder(file, kUnfinishedAge)) remove("partial", file);
  }
  return removed;
}

// ---- Room -----------------------------------------------------------------------------------------------------------

// By last use, the longest ago first.
std::vector<WeightStore::Stored> WeightStore::AllStored() const {
  std::vector<Stored> all;
  for (const char* folder : {"blobs", "partial"}) {
    for (const FileFacts& file : ListFiles(Path(folder))) {
      all.push_back({Path(folder) + "/" + file.name, file.bytes, file.time_ns});
    }
  }
  for (const std::string& name : ListFolders(Path("drafts"))) {
    Stored draft{Path("drafts/" + name), 0, 0};
    for (const FileFacts& file : ListFiles(draft.path)) {
      draft.bytes += file.bytes;
      draft.time_ns = std::max(draft.time_ns, file.time_ns);
    }
    all.push_back(std::move(draft));
  }
  std::sort(all.begin(), all.end(), [](const Stored& a, const Stored& b) { return a.time_ns < b.time_ns; });
  return all;
}

Status WeightStore::MakeRoom(std::uint64_t bytes, const std::set<std::string>& kept) {
  const std::lock_guard lock(room_mutex_);
  const std::vector<Stored> all = AllStored();
  std::uint64_t used = 0;
  for (const Stored& one : all) used += one.bytes;
  const auto beyond = [](std::uint64_t wanted, std::uint64_t most) { return wanted > most ? wanted - most : 0; };
  const auto over_quota = [&] { return options_.quota_bytes == 0 ? 0 : beyond(used + bytes, options_.quota_bytes); };
  const auto over_disk = [&] {
    return bytes == 0 ? 0 : beyond(bytes + options_.disk_free_min_bytes, DiskFreeBytes(options_.folder));
  };
  const auto over = [&] { return std::max(over_quota(), over_disk()); };

  const std::uint64_t wanted = over();
  std::vector<const Stored*> idle;
  std::uint64_t idle_bytes = 0;
  for (auto one = all.begin(); one != all.end() && idle_bytes < wanted; ++one) {
    if (kept.contains(one->path) || !LockUnused(one->path)) continue;
    idle.push_back(&*one);
    idle_bytes += one->bytes;
  }
  if (idle_bytes >= wanted) {
    for (auto one = idle.begin(); one != idle.end() && over() > 0; ++one) {
      if (!RemoveUnused((*one)->path)) continue;
      used -= (*one)->bytes;
      idle_bytes -= (*one)->bytes;
    }
    if (over() == 0) return {};
  }
  const std::string no_room = "no room for " + FormatBytes(bytes) + ": ";
  if (over_quota() > idle_bytes) {
    return Error{ErrorCode::kIo, no_room + "the store may hold " + FormatBytes(options_.quota_bytes) + ", and " +
                                     FormatBytes(used - idle_bytes) +
                                     " of it are in use. Allow more, or unload a model"};
  }
  return Error{ErrorCode::kIo, no_room + "the disk of " + options_.folder + " has " +
                                   FormatBytes(DiskFreeBytes(options_.folder)) + " left, and " +
                                   FormatBytes(idle_bytes) +
                                   " could go. Free some space and try again: what is there already is kept"};
}

bool WeightStore::Fits(std::uint64_t bytes) const {
  std::uint64_t used = 0;
  for (const Stored& one : AllStored()) used += one.bytes;
  return (options_.quota_bytes == 0 || used + bytes <= options_.quota_bytes) &&
         bytes + options_.disk_free_min_bytes <= DiskFreeBytes(options_.folder);
}

void WeightStore::Drop(const Manifest& manifest, std::size_t range) {
  const WeightRange& what = manifest.ranges[range];
  if (what.known()) (void)RemoveUnused(BlobPath(BlobId(what, manifest.chunk_bytes)));
}

Status WeightStore::MakeRoomFor(const Manifest& manifest, const std::vector<std::size_t>& ranges, const ModelId& id) {
  std::uint64_t bytes = 0;
  std::set<std::string> kept;
  for (const std::size_t range : ranges) {
    const WeightRange& what = manifest.ranges[range];
    const std::string part = PartPath(manifest, range, id);
    kept.insert(part);
    if (what.known()) kept.insert(BlobPath(BlobId(what, manifest.chunk_bytes)));
    if (!Has(manifest, range)) bytes += what.bytes - std::min(what.bytes, FileBytes(part));
  }
  return MakeRoom(bytes, kept);
}

StoreUsage WeightStore::Usage() const {
  StoreUsage usage;
  for (const FileFacts& file : ListFiles(Path("blobs"))) {
    ++usage.blobs;
    usage.blob_bytes += file.bytes;
    if (!LockUnused(Path("blobs/" + file.name))) usage.pinned_bytes += file.bytes;
  }
  for (const FileFacts& file : ListFiles(Path("partial"))) usage.partial_bytes += file.bytes;
  for (const std::string& draft : ListFolders(Path("drafts"))) {
    for (const FileFacts& file : ListFiles(Path("drafts/" + draft))) usage.partial_bytes += file.bytes;
  }
  return usage;
}

}  // namespace shoal
