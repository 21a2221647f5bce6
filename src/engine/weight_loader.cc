// Memory first, one buffer of each kind that libllama chose; then the pieces, by as many threads as there are cores.
#include "engine/weight_loader.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <unordered_map>

// Upstream's internal header, for the one flag that says a model was laid out without memory.
#include "../src/llama-model.h"
#include "base/units.h"
#include "device/cpu_affinity.h"
#include "engine/llama_guard.h"
#include "engine/llama_log.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace shoal {
namespace {

constexpr std::uint64_t kPieceBytes = 512U << 10;  // fits the second-level cache of a core
constexpr std::size_t kProbes = 16;                // of whether the file is in memory
// Every repacked layout interleaves groups of at most 16 rows and puts the groups one after the other.
constexpr std::int64_t kRowGroup = 64;
constexpr std::string_view kRepackBuffer = "CPU_REPACK";  // ggml's name of it

// How bytes come into a tensor.
enum class Way {
  kHost,   // as they are, any part by itself
  kRows,   // repacked, any group of rows by itself
  kWhole,  // through its buffer, all at once and one tensor at a time: a device, or a layout that is not ours to know
};

struct Piece {
  ggml_tensor* tensor = nullptr;
  Way way = Way::kHost;
  std::uint64_t at = 0, bytes = 0;  // in the tensor
  std::int64_t source_offset = -1;  // in the model file; < 0: zeros
};

Way WayOf(const ggml_tensor* tensor) {
  if (ggml_backend_buffer_is_host(tensor->buffer)) return Way::kHost;
  const bool repacks = ggml_backend_buffer_name(tensor->buffer) == kRepackBuffer;
  return repacks && ggml_is_contiguous(tensor) ? Way::kRows : Way::kWhole;
}

// Larger pages: fewer faults now, fewer misses in every token. Refused, it is as before.
void AskForHugePages([[maybe_unused]] ggml_backend_buffer* buffer) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(buffer);
  if (!ggml_backend_buft_is_host(type) && ggml_backend_buft_name(type) != kRepackBuffer) return;
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto* start = static_cast<char*>(ggml_backend_buffer_get_base(buffer));
  const std::uintptr_t skip = (page - reinterpret_cast<std::uintptr_t>(start) % page) % page;
  const std::uint64_t bytes = ggml_backend_buffer_get_size(buffer);
  if (bytes > skip) (void)madvise(start + skip, (bytes - skip) / page * page, MADV_HUGEPAGE);
#endif
}

// The tensors that share a kind of memory, laid out one after the other in as many buffers as its limit asks for.
class Allocation {
 public:
  explicit Allocation(ggml_backend_buffer_type_t type)
      : type_(type), alignment_(ggml_backend_buft_get_alignment(type)), max_(ggml_backend_buft_get_max_size(type)) {}

  void Add(ggml_tensor* tensor) {
    const std::uint64_t bytes = Pad(ggml_backend_buft_get_alloc_size(type_, tensor));
    if (parts_.empty() || parts_.back().bytes + bytes > max_) parts_.emplace_back();
    parts_.back().tensors.push_back({tensor, parts_.back().bytes});
    parts_.back().bytes += bytes;
  }

  Status Take(WeightBuffers& buffers) const {
    for (const Part& part : parts_) {
      buffers.emplace_back(ggml_backend_buft_alloc_buffer(type_, part.bytes));
      ggml_backend_buffer* buffer = buffers.back().get();
      if (buffer == nullptr) {
        return Error{ErrorCode::kOutOfMemory, "no memory for weights of " + FormatBytes(part.bytes)};
      }
      AskForHugePages(buffer);
      ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
      for (const auto& [tensor, offset] : part.tensors) {
        tensor->buffer = nullptr;  // was one without memory
        char* address = static_cast<char*>(ggml_backend_buffer_get_base(buffer)) + offset;
        if (ggml_backend_tensor_alloc(buffer, tensor, address) != GGML_STATUS_SUCCESS) {
          return Error{ErrorCode::kOutOfMemory, std::string("no memory for the tensor ") + tensor->name};
        }
      }
    }
    return {};
  }

 private:
  struct Part {
    std::uint64_t bytes = 0;
    std::vector<std::pair<ggml_tensor*, std::uint64_t>> tensors;  // and its offset
  };
  std::uint64_t Pad(std::uint64_t bytes) const { return (bytes + alignment_ - 1) / alignment_ * alignment_; }

  const ggml_backend_buffer_type_t type_;
  const std::uint64_t alignment_, max_;
  std::vector<Part> parts_;
};

using SourceByName = std::unordered_map<std::string_view, const ShardTensor*>;

// Tensors that nothing reads have memory of their own, so that none of it is ever touched.
Result<WeightBuffers> TakeMemory(const SourceByName& sources, llama_model* model) {
  std::map<std::pair<ggml_backend_buffer_type_t, bool>, Allocation> allocations;
  for (const auto& [name, tensor] : llama_internal_get_tensor_map(model)) {
    const auto source = sources.find(name);
    if (source == sources.end() || source->second->bytes != ggml_nbytes(tensor)) {
      return Error{ErrorCode::kCorrupt, "the tensor " + name + " is not as its architecture has it"};
    }
    const ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(tensor->buffer);
    allocations.try_emplace({type, source->second->unread}, type).first->second.Add(tensor);
  }
  WeightBuffers buffers;
  for (const auto& [key, allocation] : allocations) SHOAL_RETURN_IF_ERROR(allocation.Take(buffers));
  return buffers;
}

// In the order of the file.
std::vector<Piece> CutIntoPieces(const SourceByName& sources, const llama_model* model) {
  std::vector<Piece> pieces;
  for (const auto& [name, tensor] : llama_internal_get_tensor_map(model)) {
    const ShardTensor& source = *sources.at(name);
    if (source.unread) continue;
    const Way way = WayOf(tensor);
    std::uint64_t step = kPieceBytes;
    if (way == Way::kRows) {
      const std::uint64_t group = kRowGroup * ggml_row_size(tensor->type, tensor->ne[0]);
      step = std::max(kPieceBytes / group, std::uint64_t{1}) * group;
    } else if (way == Way::kWhole) {
      step = source.bytes;
    }
    for (std::uint64_t at = 0; at < source.bytes; at += step) {
      const std::int64_t offset = source.source_offset < 0 ? -1 : source.source_offset + static_cast<std::int64_t>(at);
      pieces.push_back({tensor, way, at, std::min(step, source.bytes - at), offset});
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.source_offset < b.source_offset; });
  return pieces;
}

Error Cancelled() { return {ErrorCode::kCancelled, "loading was cancelled"}; }

// Whether the disk has to be waited for, by a few pieces all over the file.
bool WaitsForDisk(TensorReader& reader, const std::vector<Piece>& pieces) {
  for (std::size_t i = 0; i < pieces.size(); i += 1 + pieces.size() / kProbes) {
    if (pieces[i].source_offset >= 0 && reader.Waits(static_cast<std::uint64_t>(pieces[i].source_offset))) return true;
  }
  return false;
}

// What the threads of one load share. From a disk they take turns reading, so that the file is read from beginning to
// end: then the system reads ahead in large pieces while they repack. (What posix_fadvise asks for, Linux reads a page
// at a time.) What is in memory already they read all at once.
class Load {
 public:
  Load(const TensorSource& source, std::vector<Piece> pieces) : source_(source), pieces_(std::move(pieces)) {
    for (const Piece& piece : pieces_) bytes_ += piece.bytes;
  }

  Status Run(const std::function<bool(float)>& on_progress) {
    SHOAL_ASSIGN_OR_RETURN(std::unique_ptr<TensorReader> reader, source_.Open());
    if (WaitsForDisk(*reader, pieces_)) in_order_ = std::move(reader);
    OnAllCpus("shoal-load", std::min<std::size_t>(kLoadThreadsMax, pieces_.size()),
              [&](bool is_caller) { Work(is_caller ? &on_progress : nullptr); });
    if (status_.ok() && on_progress && !on_progress(1.0F)) return Cancelled();
    return std::move(status_);
  }

 private:
  void Work(const std::function<bool(float)>* on_progress) {
    if (Status done = TakePieces(on_progress); !done.ok()) {
      const std::lock_guard lock(mutex_);
      if (status_.ok()) status_ = std::move(done);
      failed_ = true;
    }
  }

  Status TakePieces(const std::function<bool(float)>* on_progress) {
    LlamaErrors errors;
    LlamaGuard guard;
    std::unique_ptr<TensorReader> own;
    if (in_order_ == nullptr) { SHOAL_ASSIGN_OR_RETURN(own, source_.Open()); }
    std::vector<std::uint8_t> scratch;
    try {
      while (!failed_) {
        SHOAL_ASSIGN_OR_RETURN(const Piece* const piece, ReadNext(own.get(), scratch));
        if (piece == nullptr) break;
        Keep(*piece, scratch);
        const std::uint64_t done = done_.fetch_add(piece->bytes) + piece->bytes;
        const bool report = on_progress != nullptr && *on_progress != nullptr;
        if (report && !(*on_progress)(static_cast<float>(static_cast<double>(done) / static_cast<double>(bytes_)))) {
          return Cancelled();
        }
      }
    } catch (const std::bad_alloc&) {
      return Error{ErrorCode::kOutOfMemory, "out of memory while loading"};
    } catch (const std::exception& e) { return Error{ErrorCode::kUnsupported, errors.TextOr(e.what())}; }
    return {};
  }

  // The next piece, its bytes where they belong or in `scratch`; null after the last. `own`: null where turns are
  // taken.
  Result<const Piece*> ReadNext(TensorReader* own, std::vector<std::uint8_t>& scratch) {
    std::unique_lock turn(read_mutex_);
    if (next_ == pieces_.size()) return nullptr;
    const Piece& piece = pieces_[next_++];
    if (own != nullptr) turn.unlock();
    if (piece.way != Way::kHost && scratch.size() < piece.bytes) scratch.resize(piece.bytes);
    const std::span out(
        piece.way == Way::kHost ? static_cast<std::uint8_t*>(piece.tensor->data) + piece.at : scratch.data(),
        piece.bytes);
    if (piece.source_offset < 0) {
      std::memset(out.data(), 0, out.size());
    } else {
      TensorReader& reader = own != nullptr ? *own : *in_order_;
      SHOAL_RETURN_IF_ERROR(reader.Read(static_cast<std::uint64_t>(piece.source_offset), out));
    }
    return &piece;
  }

  // What is in `scratch`, to where it belongs.
  void Keep(const Piece& piece, const std::vector<std::uint8_t>& scratch) {
    if (piece.way == Way::kRows) {
      ggml_tensor rows = *piece.tensor;
      rows.data = static_cast<char*>(piece.tensor->data) + piece.at;
      rows.ne[1] = static_cast<std::int64_t>(piece.bytes / ggml_row_size(rows.type, rows.ne[0]));
      rows.ne[2] = rows.ne[3] = 1;
      ggml_backend_tensor_set(&rows, scratch.data(), 0, piece.bytes);
    } else if (piece.way == Way::kWhole) {
      const std::lock_guard lock(whole_mutex_);
      ggml_backend_tensor_set(piece.tensor, scratch.data(), 0, piece.bytes);
    }
  }

  const TensorSource& source_;
  const std::vector<Piece> pieces_;
  std::uint64_t bytes_ = 0;
  std::mutex read_mutex_;
  std::unique_ptr<TensorReader> in_order_;  // of whoever has the turn (read_mutex_); null: each thread has its own
  std::size_t next_ = 0;                    // guarded by read_mutex_
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> failed_{false};
  std::mutex whole_mutex_;
  std::mutex mutex_;
  Status status_;  // guarded by mutex_; the first failure
};

}  // namespace

Result<WeightBuffers> LoadWeights(const Shard& shard, const EngineOptions& options, llama_model* model) {
  SourceByName sources;
  for (const ShardTensor& tensor : shard.tensors) sources.emplace(tensor.name, &tensor);
  WeightBuffers buffers;
  LlamaErrors errors;
  try {
    LlamaGuard guard;
    SHOAL_ASSIGN_OR_RETURN(buffers, TakeMemory(sources, model));
  } catch (const std::exception& e) { return Error{ErrorCode::kUnsupported, errors.TextOr(e.what())}; }
  SHOAL_RETURN_IF_ERROR(Load(*shard.model->source, CutIntoPieces(sources, model)).Run(options.on_progress));
  model->hparams.no_alloc = false;
  return buffers;
}

std::string WeightLayoutsText(const llama_model* model) {
  std::map<std::string, std::uint64_t> bytes;
  for (const auto& [name, tensor] : llama_internal_get_tensor_map(model)) {
    if (tensor->buffer != nullptr) bytes[ggml_backend_buffer_name(tensor->buffer)] += ggml_nbytes(tensor);
  }
  std::string text;
  for (const auto& [layout, size] : bytes) text += (text.empty() ? "" : ", ") + FormatBytes(size) + " in " + layout;
  return text;
}

}  // namespace shoal
