// llama_model_quantize, which says sizes and reasons only in its log.
#include "engine/quantize.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>

#include "engine/llama_log.h"
#include "imatrix-loader.h"
#include "llama.h"
#include "model/gguf.h"

namespace shoal {
namespace {

struct Type {
  std::string_view name;
  llama_ftype type;
};

constexpr Type kTypes[] = {
    {"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},     {"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S}, {"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M},
    {"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L}, {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS}, {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
    {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL}, {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S}, {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},     {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},     {"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S},
    {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M}, {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},     {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
    {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},     {"BF16", LLAMA_FTYPE_MOSTLY_BF16},     {"F16", LLAMA_FTYPE_MOSTLY_F16},
    {"F32", LLAMA_FTYPE_ALL_F32},
};

// What the quantizer says, as far as it is of use.
struct Heard {
  double before_mib = 0, after_mib = 0;
  std::string problems;
};

void Listen(ggml_log_level level, const char* text, void* user) {
  auto* heard = static_cast<Heard*>(user);
  const auto number_after = [text](const char* key, double& value) {
    if (const char* at = std::strstr(text, key)) (void)std::sscanf(at + std::strlen(key), " = %lf", &value);
  };
  number_after("model size ", heard->before_mib);
  number_after("quant size ", heard->after_mib);
  if (level == GGML_LOG_LEVEL_ERROR && heard->problems.size() < 1024) heard->problems += text;
}

// Sums of squared activations by tensor, divided by how often they were counted: what the quantizer weighs errors by.
Result<std::map<std::string, std::vector<float>>> ReadImatrix(const std::string& path) {
  common_imatrix loaded;
  try {
    if (!common_imatrix_load(path, loaded)) return Error{ErrorCode::kCorrupt, path + " is no importance matrix"};
  } catch (const std::exception& e) { return Error{ErrorCode::kCorrupt, path + ": " + e.what()}; }
  std::map<std::string, std::vector<float>> weights;
  for (const auto& [name, entry] : loaded.entries) {
    if (entry.counts.empty() || entry.sums.size() % entry.counts.size() != 0) {
      return Error{ErrorCode::kCorrupt, path + ": the entry of " + name + " has an odd size"};
    }
    const std::size_t width = entry.sums.size() / entry.counts.size();
    std::vector<float> one(entry.sums.size());
    for (std::size_t i = 0; i < one.size(); ++i) {
      const auto count = static_cast<float>(entry.counts[i / width]);
      one[i] = count > 0 ? entry.sums[i] / count : 1.0F;  // an expert that was never used weighs all alike
    }
    weights[name] = std::move(one);
  }
  return weights;
}

}  // namespace

std::vector<std::string_view> QuantizationNames() {
  std::vector<std::string_view> names;
  for (const Type& type : kTypes) names.push_back(type.name);
  return names;
}

Result<QuantizeResult> QuantizeModel(const std::string& input, const std::string& output,
                                     const QuantizeOptions& options) {
  const auto* type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.name == options.type; });
  if (type == std::end(kTypes)) {
    std::string names;
    for (const Type& one : kTypes) names += (names.empty() ? "" : ", ") + std::string(one.name);
    return Error{ErrorCode::kInvalidArgument, "'" + options.type + "' is no quantization; there are " + names};
  }
  SHOAL_RETURN_IF_ERROR(ReadGguf(input));
  std::map<std::string, std::vector<float>> weights;
  if (!options.imatrix.empty()) { SHOAL_ASSIGN_OR_RETURN(weights, ReadImatrix(options.imatrix)); }
  std::vector<llama_model_imatrix_data> imatrix;
  for (const auto& [name, values] : weights) imatrix.push_back({name.c_str(), values.data(), values.size()});
  imatrix.push_back({nullptr, nullptr, 0});

  InitLlama();
  Heard heard;
  llama_log_set(Listen, &heard);
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = type->type;
  params.nthread = options.threads;
  params.allow_requantize = options.from_quantized;
  params.dry_run = options.dry_run;
  if (!weights.empty()) params.imatrix = imatrix.data();
  const std::string part = output + "." + std::to_string(getpid()) + ".part";
  std::uint32_t failed = 1;
  try {
    failed = llama_model_quantize(input.c_str(), part.c_str(), &params);
  } catch (const std::exception& e) { heard.problems += e.what(); }
  llama_log_set(nullptr, nullptr);
  std::error_code error;
  if (failed != 0) {
    std::filesystem::remove(part, error);
    while (!heard.problems.empty() && heard.problems.back() == '\n') heard.problems.pop_back();
    const bool quantized = heard.problems.find("requantizing") != std::string::npos;
    return Error{ErrorCode::kInvalidArgument,
                 quantized ? input +
                                 " is quantized already: take a file of type F16, BF16 or F32, or say --from-quantized "
                                 "and lose quality twice"
                           : input + " cannot be quantized: " + heard.problems};
  }
  constexpr double kMiB = 1 << 20;
  QuantizeResult result{static_cast<std::uint64_t>(heard.before_mib * kMiB),
                        static_cast<std::uint64_t>(heard.after_mib * kMiB)};
  if (options.dry_run) {
    std::filesystem::remove(part, error);
    return result;
  }
  std::filesystem::rename(part, output, error);
  if (error) return Error{ErrorCode::kIo, "cannot write " + output + ": " + error.message()};
  return result;
}

}  // namespace shoal
