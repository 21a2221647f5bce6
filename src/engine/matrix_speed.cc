// A graph of matrix products over weights that are never in a cache twice in a row.
#include "engine/matrix_speed.h"

#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>

#include "base/units.h"
#include "device/available_memory.h"
#include "device/cpu_affinity.h"
#include "engine/cpu_kernels.h"
#include "engine/ggml/dot_products.h"
#include "engine/llama_log.h"
#include "engine/llama_shard.h"
#include "engine/made_up_rows.h"
#include "engine/pass_time.h"
#include "engine/weight_layouts.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"
#include "runtime/rng.h"

namespace shoal {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::int64_t kWidth = 2048;  // a multiple of every type's block
constexpr std::int64_t kSmallWidth = 256;
constexpr int kMatrices = 8;
constexpr int kMatricesOfRows = 2;  // computing takes the time there, not reading
constexpr int kSmallOperations = 64;
constexpr int kRunsMin = 3;
constexpr double kHeldBack = 1.3;  // mean over median

ggml_context_ptr MakeContext() {
  return ggml_context_ptr(ggml_init({ggml_tensor_overhead() * 256 + ggml_graph_overhead(), nullptr, true}));
}

Result<ggml_type> TypeNamed(const std::string& name) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto type = static_cast<ggml_type>(i);
    const char* known = ggml_type_name(type);
    if (known == nullptr || ggml_blck_size(type) == 0 || kWidth % ggml_blck_size(type) != 0) continue;
    std::string upper = known;
    std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
    if (upper == name && !ggml_quantize_requires_imatrix(type)) return type;
  }
  return Error{ErrorCode::kInvalidArgument, "'" + name + "' is no type of weights that can be measured"};
}

// A backend with its threads.
struct Cpu {
  ThreadpoolPtr pool;
  ggml_backend_ptr backend;
  int threads = 1;

  static Result<Cpu> Make(const SpeedTestOptions& options) {
    SHOAL_RETURN_IF_ERROR(CheckCpus(options.cpus));
    Cpu cpu;
    cpu.threads = options.cpus.empty() ? std::max(options.threads, 1) : static_cast<int>(options.cpus.size());
    cpu.backend.reset(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    ggml_threadpool_params params = ggml_threadpool_params_default(cpu.threads);
    for (const int number : options.cpus) params.cpumask[number] = true;
    params.strict_cpu = !options.cpus.empty();
    if (!options.cpus.empty()) {
      // ggml gives the highest number to the calling thread.
      SHOAL_RETURN_IF_ERROR(
          PinThisThread(std::vector<int>{*std::max_element(options.cpus.begin(), options.cpus.end())}));
    }
    cpu.pool.reset(NewThreadpool(&params));
    if (cpu.backend == nullptr || cpu.pool == nullptr) return Error{ErrorCode::kInternal, "no threads to compute with"};
    SetBackendThreads(cpu.backend.get(), cpu.threads, cpu.pool.get());
    return cpu;
  }
};

// How long this process's threads have run, and how long it was. Threads of a graph wait for each other by spinning.
struct Ran {
  double cpu_s = 0, s = 0;

  static Ran Now() {
    rusage usage{};
    (void)::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + t.tv_usec / 1e6; };
    return {seconds(usage.ru_utime) + seconds(usage.ru_stime),
            std::chrono::duration<double>(SteadyClock::now().time_since_epoch()).count()};
  }
  void Add(const Ran& from, const Ran& to) {
    cpu_s += to.cpu_s - from.cpu_s;
    s += to.s - from.s;
  }
};

// Weights, inputs and the products of both, ready to run.
class Products {
 public:
  Status Make(const Cpu& cpu, ggml_type type, std::int64_t width, std::int64_t outputs, int matrices,
              std::int64_t rows) {
    weights_context_ = MakeContext();
    context_ = MakeContext();
    if (weights_context_ == nullptr || context_ == nullptr)
      return Error{ErrorCode::kOutOfMemory, "no memory to measure in"};
    std::vector<ggml_tensor*> weights;
    weights.reserve(static_cast<std::size_t>(matrices));
    for (int i = 0; i < matrices; ++i) {
      weights.push_back(ggml_new_tensor_2d(weights_context_.get(), type, width, outputs));
    }
    ggml_tensor* input = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, width, rows);
    graph_ = ggml_new_graph(context_.get());
    std::vector<ggml_tensor*> products;
    products.reserve(weights.size());
    for (ggml_tensor* weight : weights) products.push_back(ggml_mul_mat(context_.get(), weight, input));
    ggml_backend_buffer_type_t layout = LayoutFor(ggml_backend_get_device(cpu.backend.get()), weights[0], products[0]);
    layout_ = ggml_backend_buft_name(layout);
    weights_buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(weights_context_.get(), layout));
    for (ggml_tensor* product : products) ggml_build_forward_expand(graph_, product);
    buffer_.reset(ggml_backend_alloc_ctx_tensors(context_.get(), cpu.backend.get()));
    if (weights_buffer_ == nullptr || buffer_ == nullptr)
      return Error{ErrorCode::kOutOfMemory, "no memory to measure in"};
    Fill(type, width, outputs, weights, input);
    for (ggml_tensor* weight : weights) bytes_ += static_cast<double>(ggml_nbytes(weight));
    return {};
  }

  double bytes() const { return bytes_; }
  const std::string& layout() const { return layout_; }

  // Seconds of a run, the median against noise; the mean where something that nobody told of holds it back now and
  // then: most runs then see nothing of it. At least kRunsMin runs after one to warm up, up to `time_max`.
  Result<double> Time(const Cpu& cpu, std::chrono::milliseconds time_max, bool rationed, Ran& ran) const {
    std::vector<double> seconds;
    const Ran before = Ran::Now();
    const auto end = SteadyClock::now() + time_max;
    for (int i = 0; i <= kRunsMin || SteadyClock::now() < end; ++i) {
      const double start = PassTime(rationed);
      if (ggml_backend_graph_compute(cpu.backend.get(), graph_) != GGML_STATUS_SUCCESS) {
        return Error{ErrorCode::kInternal, "the matrix product failed"};
      }
      if (i > 0) seconds.push_back(PassTime(rationed) - start);
    }
    ran.Add(before, Ran::Now());
    const double mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
    std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
    const double median = seconds[seconds.size() / 2];
    return mean > median * kHeldBack ? mean : median;
  }

 private:
  // One matrix of made-up rows, the same for all.
  static void Fill(ggml_type type, std::int64_t width, std::int64_t outputs, const std::vector<ggml_tensor*>& weights,
                   ggml_tensor* input) {
    const std::vector<std::uint8_t> rows = MadeUpRows(type, width);
    std::vector<std::uint8_t> matrix(ggml_row_size(type, width) * static_cast<std::size_t>(outputs));
    for (std::size_t at = 0; at < matrix.size(); at += rows.size()) {
      std::copy_n(rows.data(), std::min(rows.size(), matrix.size() - at), matrix.data() + at);
    }
    for (ggml_tensor* weight : weights) ggml_backend_tensor_set(weight, matrix.data(), 0, matrix.size());
    Rng random(1);
    std::vector<float> values(static_cast<std::size_t>(ggml_nelements(input)));
    for (float& value : values) value = static_cast<float>(random.Uniform() - 0.5);
    ggml_backend_tensor_set(input, values.data(), 0, values.size() * sizeof(float));
  }

  ggml_context_ptr weights_context_, context_;
  ggml_backend_buffer_ptr weights_buffer_, buffer_;
  ggml_cgraph* graph_ = nullptr;
  std::string layout_;
  double bytes_ = 0;
};

}  // namespace

Status CheckMeasuredType(const std::string& quantization) {
  const Result<ggml_type> type = TypeNamed(quantization);
  return type.ok() ? Status() : Status(type.error());
}

std::string MatrixCodeVersion() {
  const Result<CpuKernels>& kernels = LoadedCpuKernels();
  return GgmlVersion() + " " + (kernels.ok() ? kernels->variant : "none") + " " + std::to_string(kDotProductsVersion);
}

Result<MatrixSpeed> MeasureMatrixSpeed(const SpeedTestOptions& options) {
  if (const auto& kernels = LoadedCpuKernels(); !kernels.ok()) return kernels.error();
  SHOAL_ASSIGN_OR_RETURN(const ggml_type type, TypeNamed(options.quantization));
  const PlacedWhile placed(options.cpus);
  SHOAL_ASSIGN_OR_RETURN(const Cpu cpu, Cpu::Make(options));
  std::uint64_t bytes = options.weight_bytes;
  if (const auto free = AvailableMemory()) bytes = std::min(bytes, *free / 4);
  const std::int64_t outputs = static_cast<std::int64_t>(bytes / kMatrices / ggml_row_size(type, kWidth)) / 32 * 32;
  if (outputs < 32) return Error{ErrorCode::kOutOfMemory, "not enough memory is free to measure in"};

  MatrixSpeed speed;
  Ran ran;
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{kSpeedRows}}) {
    if (rows > 1 && options.one_row_only) return speed;
    Products products;
    SHOAL_RETURN_IF_ERROR(products.Make(cpu, type, kWidth, outputs, rows == 1 ? kMatrices : kMatricesOfRows, rows));
    SHOAL_ASSIGN_OR_RETURN(const double seconds, products.Time(cpu, options.time_max, options.rationed, ran));
    (rows == 1 ? speed.one_row_bytes_s : speed.rows_bytes_s) = products.bytes() / seconds;
    speed.layout = products.layout();
    speed.got = std::min(ran.cpu_s / (ran.s * cpu.threads), 1.0);
  }
  Products small;
  SHOAL_RETURN_IF_ERROR(small.Make(cpu, type, kSmallWidth, 32, kSmallOperations, 1));
  SHOAL_ASSIGN_OR_RETURN(const double seconds, small.Time(cpu, options.time_max / 2, options.rationed, ran));
  speed.operation_s = seconds / kSmallOperations;
  return speed;
}

}  // namespace shoal
