// The rules, and where each comes from.
#include "device/advice.h"

#include <algorithm>

#include "base/units.h"

namespace shoal {
namespace {

// Decode waits for memory; past a handful of cores threads only wait for each other. Reports: Snapdragon 8 Gen 2 is
// best at 5 threads and loses 30 to 40 % at 6 and more, 8 Elite is best at 6 (llama.cpp's discussions of phones).
constexpr std::size_t kDecodeThreadsMax = 6;
constexpr double kModelShare = 0.8;  // of the memory that is free: the rest stays the system's

// What a model of a class takes at 4 to 5 bits a weight with 4,096 tokens of context: GGUF files of Llama 3, Qwen 2.5
// and 3, Gemma 3 in Q4_K_M, and a tenth for K, V and buffers. Estimates.
struct ModelClass {
  const char* name;
  double gib;
};
constexpr ModelClass kModelClasses[] = {{"70B", 44}, {"32B", 21},   {"14B", 9.6}, {"8B", 5.4},  {"4B", 2.9},
                                        {"3B", 2.3}, {"1.5B", 1.2}, {"1B", 0.9},  {"0.5B", 0.5}};

std::string JoinSets(const InstructionSets& sets) {
  std::string text;
  for (const std::string& set : sets) text += (text.empty() ? "" : ", ") + set;
  return text.empty() ? "none of the optional ones" : text;
}

void AdviseVariant(const DeviceProfile& profile, DeviceAdvice& advice) {
  if (!profile.topology.instruction_sets) {
    advice.variant_why = "the instruction sets cannot be read here";
    return;
  }
  const InstructionSets& sets = *profile.topology.instruction_sets;
  advice.variant = BestCpuVariant(profile.topology.architecture, sets);
  advice.variant_why = "every core has " + JoinSets(sets);
  if (advice.variant.name == "armv8.6_0") {
    advice.variant_why += "; i8mm without SVE, which a list without this variant takes for an older CPU";
  }
}

void AdviseThreads(const DeviceProfile& profile, DeviceAdvice& advice) {
  const std::vector<int> usable = profile.UsableCpus();
  advice.prefill_cpus = profile.FastCpus();
  advice.decode_cpus = advice.prefill_cpus;
  if (advice.decode_cpus.size() > kDecodeThreadsMax) advice.decode_cpus.resize(kDecodeThreadsMax);
  if (usable.empty()) {
    advice.threads_why = "which cores there are cannot be read here";
    return;
  }
  const std::size_t left_out = usable.size() - advice.prefill_cpus.size();
  advice.threads_why =
      left_out > 0 ? "efficiency cores stay out (" + std::to_string(left_out) + "): the others would wait for them"
                   : std::string("all cores are of one kind, as far as can be seen");
  if (profile.topology.has_smt()) advice.threads_why += "; one thread a physical core";
  if (advice.decode_cpus.size() < advice.prefill_cpus.size()) {
    advice.threads_why += "; decode waits for memory, more than " + std::to_string(kDecodeThreadsMax) +
                          " threads mostly wait for each other";
  }
}

void AdviseMemory(const DeviceProfile& profile, DeviceAdvice& advice) {
  const MemoryFacts& memory = profile.memory;
  if (!memory.available_bytes && !memory.total_bytes) {
    advice.memory_why = advice.quantization_why = "the memory cannot be read here";
    return;
  }
  const bool known = memory.available_bytes.has_value();
  // Android and a desktop keep about half; only where the system does not say what is free.
  const std::uint64_t free = known ? *memory.available_bytes : *memory.total_bytes / 2;
  const double share = static_cast<double>(free) * kModelShare;
  for (const ModelClass& model : kModelClasses) {
    const double bytes = model.gib * static_cast<double>(kGiB);
    if (advice.cluster_model.empty() && bytes <= 2 * share) advice.cluster_model = model.name;
    if (bytes > share) continue;
    advice.largest_model = model.name;
    advice.largest_model_bytes = bytes;
    break;
  }
  advice.memory_why = std::string("four fifths of ") +
                      (known ? "what is free, " : "half of what is built in, as what is free is unknown: ") +
                      FormatBytes(static_cast<std::uint64_t>(share)) + "; with weights of 4 to 5 bits";
  const bool arm_dot = profile.topology.architecture == CpuArchitecture::kArm64 && profile.topology.instruction_sets &&
                       profile.topology.instruction_sets->count("dotprod") > 0;
  const double built_in = static_cast<double>(memory.total_bytes.value_or(free)) / static_cast<double>(kGiB);
  if (arm_dot && built_in < 11) {
    advice.quantization = "Q4_0";
    advice.quantization_why =
        "this CPU has dot products of bytes, for which Q4_0 is repacked: the fastest prompts; and memory "
        "is short";
  } else if (built_in >= 11) {
    advice.quantization = "Q5_K_M";
    advice.quantization_why = "there is memory for the better quality; Q4_K_M where speed matters more";
  } else {
    advice.quantization = "Q4_K_M";
    advice.quantization_why = "nearly the quality of 5 bits where memory is short";
  }
  if (advice.largest_model == "1B" || advice.largest_model == "0.5B") {
    advice.quantization_why += "; models below 1B suffer from 4 bits, take Q8_0 for those";
  }
}

}  // namespace

DeviceAdvice AdviseDevice(const DeviceProfile& profile) {
  DeviceAdvice advice;
  AdviseVariant(profile, advice);
  AdviseThreads(profile, advice);
  AdviseMemory(profile, advice);
  return advice;
}

}  // namespace shoal
