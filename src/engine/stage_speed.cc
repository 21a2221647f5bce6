// Three slices: a large one and the smallest from the model's beginning, which tell what a layer and what a pass costs;
// and the smallest from its end, which has the output head.
#include "engine/stage_speed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "engine/candidates.h"
#include "engine/engine.h"
#include "engine/made_up_weights.h"
#include "engine/matrix_speed.h"
#include "engine/pass_time.h"
#include "engine/split_rules.h"
#include "runtime/rng.h"
#include "sample/draw.h"

namespace shoal {
namespace {

using SteadyClock = std::chrono::steady_clock;
using SteadyTime = SteadyClock::time_point;

constexpr int kDeepPasses = 8;              // of kSpeedRows rows behind each other: a context of 512
constexpr std::int32_t kDecodePasses = 64;  // at most, of one row
constexpr std::int32_t kPassesMin = 3;
constexpr int kSequences = kSpeedFewRows.back();
constexpr double kHeldUp = 2;
constexpr double kLeast = 1e-12;  // seconds a byte: nothing is faster
constexpr std::int32_t kContext = kSpeedRows * kDeepPasses + 2 * kDecodePasses + 2 * kSequences;
constexpr std::chrono::milliseconds kOfNearAndFar{1'200}, kOfOneFigure{400}, kOfFewRows{250};
// After a pass the worker threads of its engine spin for some 2 ms before they sleep (ComputeThreads), on the cores
// that the next engine's pass needs; one engine alone, as in a stage, never meets that.
constexpr std::chrono::milliseconds kOthersSpin{4};

// One measured pass: what it asked for, and what it took.
struct Sample {
  double row_positions = 0;  // K and V of so many positions were read, all rows together
  double seconds = 0;
};

double MeanOf(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// What one of many takes on average, not at the median: on a busy machine some passes are always slower than most, and
// an answer waits for them too. More than kHeldUp medians are taken for what does not happen again.
double TypicalOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  const double most = kHeldUp * *middle;
  for (double& value : values) value = std::min(value, most);
  return MeanOf(values);
}

// Of passes that are alike.
struct Samples {
  std::vector<double> positions, seconds;
  void Add(const Sample& sample) {
    positions.push_back(sample.row_positions);
    seconds.push_back(sample.seconds);
  }
  Sample Typical() const { return {MeanOf(positions), TypicalOf(seconds)}; }
};

SteadyClock::duration Rationed(std::chrono::milliseconds time, double ration) {
  return std::chrono::duration_cast<SteadyClock::duration>(time / ration);
}

class Slice {
 public:
  static Result<Slice> Open(const std::shared_ptr<const ModelFile>& model, LayerRange layers,
                            const StageSpeedOptions& options) {
    EngineOptions engine;
    engine.layers = layers;
    engine.kv_tokens_max = kContext;
    engine.sequences_max = kSequences;
    engine.batch_rows_max = kSpeedRows;
    engine.output_rows_max = kSequences;
    engine.threads = options.cpus.empty() ? std::max(options.threads, 1) : static_cast<int>(options.cpus.size());
    engine.cpus = options.cpus;
    Slice slice;
    slice.ration_ = options.ration;
    slice.threads_ = engine.threads;
    SHOAL_ASSIGN_OR_RETURN(slice.engine_, options.open ? options.open(model, engine) : Engine::Open(model, engine));
    slice.kv_bytes_ = static_cast<double>(model->info.KvBytesPerToken(layers, KvType::kF16));
    for (std::int32_t i = layers.first; i < layers.last; ++i) {
      slice.weight_bytes_ += static_cast<double>(model->info.layer_bytes[static_cast<std::size_t>(i)]);
    }
    Rng random(1);
    slice.hidden_.resize(static_cast<std::size_t>(kSpeedRows) * static_cast<std::size_t>(model->info.n_embd));
    for (float& value : slice.hidden_) value = static_cast<float>(random.Uniform() * 2 - 1);
    return slice;
  }

  double weight_bytes() const { return weight_bytes_; }  // of its layers
  double kv_bytes() const { return kv_bytes_; }          // of one position

  // `rows` rows: of one sequence, `only`, or one each of as many.
  Result<Sample> Pass(std::int32_t rows, bool of_many, bool output, SequenceId only = 0) {
    std::vector<EngineRow> list;
    Sample sample;
    for (std::int32_t i = 0; i < rows; ++i) {
      const SequenceId sequence = of_many ? i : only;
      const Position position = engine_->Length(sequence) + (of_many ? 0 : i);
      list.push_back({sequence, position, output});
      sample.row_positions += position + 1;
    }
    const std::span<const float> hidden(hidden_.data(), hidden_.size() / kSpeedRows * static_cast<std::size_t>(rows));
    const double start = PassTime(ration_ < 1);
    SHOAL_RETURN_IF_ERROR(engine_->Forward(list, hidden, out_));
    if (output && engine_->is_last()) Draw(static_cast<std::size_t>(rows));
    sample.seconds = PassTime(ration_ < 1) - start;
    return sample;
  }

  // One row from the beginning, with its output.
  Status Alone() {
    if (engine_->Length(0) >= kContext - 1) SHOAL_RETURN_IF_ERROR(Empty());
    SHOAL_RETURN_IF_ERROR(Pass(1, false, true));
    return {};
  }

  // The same again and again, each pass behind the one before, for about kOfOneFigure (kOfFewRows where there are
  // several, of as many sequences); the first does not count. `between`: another slice that runs a row before each of
  // them, as the rest of a model does: a small model would else be more in caches than it ever is.
  Result<Sample> Repeat(std::int32_t rows, bool output, Slice* between = nullptr) {
    const bool of_many = rows > 1;
    Samples samples;
    const SteadyTime end = SteadyClock::now() + Rationed(of_many ? kOfFewRows : kOfOneFigure, ration_);
    for (std::int32_t i = 0; i < kDecodePasses && (i <= kPassesMin || SteadyClock::now() < end); ++i) {
      SHOAL_RETURN_IF_ERROR(Alternate(between));
      SHOAL_ASSIGN_OR_RETURN(const Sample sample, Pass(rows, of_many, output));
      if (i > 0) samples.Add(sample);
    }
    return samples.Typical();
  }

  // Rows with little behind them and rows with as much as there is, in turns: what the machine does meanwhile slows
  // both. `between` as Repeat.
  Result<std::pair<Sample, Sample>> NearAndFar(Slice& between) {
    Samples near, far;
    const SteadyTime end = SteadyClock::now() + Rationed(kOfNearAndFar, ration_);
    for (std::int32_t i = 0; i < kDecodePasses && (i <= kPassesMin || SteadyClock::now() < end); ++i) {
      SHOAL_RETURN_IF_ERROR(Alternate(&between));
      SHOAL_ASSIGN_OR_RETURN(const Sample behind_all, Pass(1, false, false, 0));
      SHOAL_RETURN_IF_ERROR(Alternate(&between));
      SHOAL_ASSIGN_OR_RETURN(const Sample behind_few, Pass(1, false, false, 1));
      if (i == 0) continue;
      far.Add(behind_all);
      near.Add(behind_few);
    }
    return std::pair{near.Typical(), far.Typical()};
  }

  Status Empty() {
    for (SequenceId sequence = 0; sequence < kSequences; ++sequence) {
      if (engine_->Length(sequence) > 0) SHOAL_RETURN_IF_ERROR(engine_->Rewind(sequence, 0));
    }
    return {};
  }

 private:
  // As a last stage does with each row's logits when a request says nothing of sampling: with a large vocabulary that
  // is not little.
  void Draw(std::size_t rows) {
    const std::size_t n_vocab = out_.size() / rows;
    for (float& logit : out_) logit = std::isfinite(logit) ? logit : 0;  // made-up weights give anything
    for (std::size_t row = 0; row < rows; ++row) {
      FilterCandidates(std::span(out_).subspan(row * n_vocab, n_vocab), SamplingParams(), candidates_);
      drawn_ += DrawIndex(candidates_.probabilities, row, 0);
    }
  }

  // A row of the other slice, if there is one.
  Status Alternate(Slice* other) {
    if (other == nullptr) return {};
    SHOAL_RETURN_IF_ERROR(other->Alone());
    if (threads_ > 1) OutlastSpinning();
    return {};
  }

  // Awake: a core that sleeps meanwhile would be slower after it.
  static void OutlastSpinning() {
    const SteadyTime end = SteadyClock::now() + kOthersSpin;
    while (SteadyClock::now() < end) {}
  }

  std::unique_ptr<Engine> engine_;
  double weight_bytes_ = 0, kv_bytes_ = 0;
  double ration_ = 1;
  int threads_ = 1;
  std::vector<float> hidden_, out_;
  Candidates candidates_;
  std::size_t drawn_ = 0;
};

// seconds = base + slope * row_positions.
struct Line {
  double base = 0, slope = 0;
};
Line LineThrough(const std::vector<Sample>& samples) {
  double x = 0, y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(samples.size());
  for (const Sample& sample : samples) {
    x += sample.row_positions / n;
    y += sample.seconds / n;
  }
  for (const Sample& sample : samples) {
    xx += (sample.row_positions - x) * (sample.row_positions - x);
    xy += (sample.row_positions - x) * (sample.seconds - y);
  }
  Line line;
  line.slope = xx > 0 ? std::max(xy / xx, 0.0) : 0;
  line.base = std::max(y - line.slope * x, y * 0.05);
  return line;
}

class Measuring {
 public:
  Measuring(std::shared_ptr<const ModelFile> model, const StageSpeedOptions& options)
      : model_(std::move(model)), options_(options) {}

  Result<StageSpeed> Run() {
    const SplitRules rules = RulesFor(*model_);
    if (!rules.splittable || rules.cuts.empty()) {
      return Error{ErrorCode::kUnsupported, model_->path + " cannot be cut: no slice of it can be measured"};
    }
    // All before the first pass, which pins this thread.
    SHOAL_ASSIGN_OR_RETURN(Slice large, Slice::Open(model_, LargeSlice(rules.cuts), options_));
    SHOAL_ASSIGN_OR_RETURN(Slice small, Slice::Open(model_, {0, rules.cuts.front()}, options_));
    SHOAL_ASSIGN_OR_RETURN(Slice last, Slice::Open(model_, {rules.cuts.back(), model_->info.n_layer}, options_));
    end_ = SteadyClock::now() + Rationed(options_.time_max, options_.ration);
    SHOAL_RETURN_IF_ERROR(Layers(large, last));
    SHOAL_RETURN_IF_ERROR(Passes(small, large));
    Settle();
    SHOAL_RETURN_IF_ERROR(Output(last, large));
    return speed_;
  }

 private:
  bool late() const { return SteadyClock::now() > end_; }

  // From the first layer on as many as weigh enough, more than the small slice has, but not all.
  LayerRange LargeSlice(const std::vector<std::int32_t>& cuts) const {
    std::uint64_t bytes = 0;
    std::int32_t layer = 0;
    for (const std::int32_t cut : cuts) {
      for (; layer < cut; ++layer) bytes += model_->info.layer_bytes[static_cast<std::size_t>(layer)];
      if (bytes >= options_.weight_bytes && cut > cuts.front()) break;
    }
    return {0, layer};
  }

  // Rows of several sequences, prompts at ever larger contexts, single rows with and without one.
  Status Layers(Slice& slice, Slice& last) {
    weight_bytes_ = slice.weight_bytes();
    kv_bytes_ = std::max(slice.kv_bytes(), 1.0);
    SHOAL_RETURN_IF_ERROR(slice.Pass(kSpeedRows, false, false));
    SHOAL_RETURN_IF_ERROR(slice.Empty());
    for (std::size_t i = 0; i < few_.size(); ++i) {
      SHOAL_RETURN_IF_ERROR(slice.Empty());
      SHOAL_ASSIGN_OR_RETURN(few_[i], slice.Repeat(kSpeedFewRows[i], false));
    }
    SHOAL_RETURN_IF_ERROR(slice.Empty());
    std::vector<std::vector<double>> seconds(kDeepPasses);
    std::vector<Sample> deep;
    for (int round = 0; round < kPassesMin && (round == 0 || !late()); ++round) {
      SHOAL_RETURN_IF_ERROR(slice.Empty());
      for (int i = 0; i < kDeepPasses && (i < 2 || !late()); ++i) {
        SHOAL_ASSIGN_OR_RETURN(const Sample sample, slice.Pass(kSpeedRows, false, false));
        if (round == 0) deep.push_back(sample);
        seconds[static_cast<std::size_t>(i)].push_back(sample.seconds);
      }
    }
    for (std::size_t i = 0; i < deep.size(); ++i) deep[i].seconds = TypicalOf(seconds[i]);
    rows_ = LineThrough(deep);
    SHOAL_ASSIGN_OR_RETURN(std::tie(near_, far_), slice.NearAndFar(last));
    return {};
  }

  // What a pass costs beside its layers.
  Status Passes(Slice& slice, Slice& large) {
    SHOAL_RETURN_IF_ERROR(large.Empty());
    SHOAL_ASSIGN_OR_RETURN(small_, slice.Repeat(1, false, &large));
    small_bytes_ = slice.weight_bytes();
    return {};
  }

  void Settle() {
    const double farther = far_.row_positions - near_.row_positions;
    const double kv_s = farther > 0 ? std::max((far_.seconds - near_.seconds) / farther, 0.0) : 0;
    // Without K and V.
    const auto layers_s = [&](const Sample& sample) {
      return std::max(sample.seconds - kv_s * sample.row_positions, sample.seconds / 2);
    };
    const double one_s = layers_s(near_), small_s = small_.seconds;
    const double more = weight_bytes_ - small_bytes_;  // 0 where the model can be cut in one place only
    const double byte_s = more > 0 ? std::max((one_s - small_s) / more, kLeast) : one_s / weight_bytes_;
    speed_.pass_s = std::clamp(small_s - byte_s * small_bytes_, 1e-7, small_s / 2);
    const auto bytes_s = [&](double seconds) { return weight_bytes_ / std::max(seconds - speed_.pass_s, seconds / 2); };
    speed_.one_row_bytes_s = bytes_s(one_s);
    speed_.pair_bytes_s = bytes_s(layers_s(few_[0]));
    speed_.quad_bytes_s = bytes_s(layers_s(few_[1]));
    speed_.group_bytes_s = bytes_s(layers_s(few_[2]));
    speed_.rows_bytes_s = bytes_s(rows_.base);
    speed_.kv_bytes_s = 1 / std::max(kv_s / kv_bytes_, kLeast);
    speed_.kv_rows_bytes_s = 1 / std::max(rows_.slope / kv_bytes_, kLeast);
  }

  Status Output(Slice& slice, Slice& large) {
    const auto bytes = static_cast<double>(model_->info.output_bytes);
    const auto measure = [&](std::int32_t rows, double layers_bytes_s, double& bytes_s) -> Status {
      SHOAL_RETURN_IF_ERROR(slice.Empty());
      SHOAL_RETURN_IF_ERROR(large.Empty());
      SHOAL_ASSIGN_OR_RETURN(const Sample sample, slice.Repeat(rows, true, &large));
      const double layers = slice.weight_bytes() / layers_bytes_s;
      bytes_s = bytes / std::max(sample.seconds - speed_.pass_s - layers, bytes * kLeast);
      return {};
    };
    SHOAL_RETURN_IF_ERROR(measure(1, speed_.one_row_bytes_s, speed_.output_bytes_s));
    SHOAL_RETURN_IF_ERROR(measure(kSpeedFewRows[0], speed_.pair_bytes_s, speed_.output_pair_bytes_s));
    SHOAL_RETURN_IF_ERROR(measure(kSpeedFewRows[1], speed_.quad_bytes_s, speed_.output_quad_bytes_s));
    return measure(kSpeedFewRows[2], speed_.group_bytes_s, speed_.output_group_bytes_s);
  }

  const std::shared_ptr<const ModelFile> model_;
  const StageSpeedOptions& options_;
  SteadyTime end_;
  double weight_bytes_ = 0, kv_bytes_ = 0, small_bytes_ = 0;
  Sample near_, far_, small_;
  std::array<Sample, kSpeedFewRows.size()> few_;
  Line rows_;
  StageSpeed speed_;
};

}  // namespace

Result<StageSpeed> MeasureStageSpeed(const std::shared_ptr<const ModelFile>& model, const StageSpeedOptions& options) {
  std::optional<Result<StageSpeed>> result;
  // A thread of its own: Forward pins the one that calls it.
  std::thread thread([&] { result.emplace(Measuring(WithMadeUpWeights(*model), options).Run()); });
  thread.join();
  return *std::move(result);
}

}  // namespace shoal
