// From the words of the command line to the options of a node.
#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include <sys/stat.h>

#include "apps/cli/commands.h"
#include "apps/cli/named_models.h"
#include "apps/cli/store_commands.h"
#include "base/units.h"
#include "engine/cpu_kernels.h"
#include "identity/home.h"
#include "model/split_gguf.h"

namespace shoal::cli {
namespace {

constexpr int kCpuMax = 1023;
constexpr std::uintmax_t kTextFileBytesMax = 1U << 20;

bool IsFile(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

// The whole of `text` as a number; not std::from_chars, which reads whole numbers alone in the C++ library of Android.
std::optional<float> ParseFloat(const std::string& text) {
  if (text.empty() || std::isspace(static_cast<unsigned char>(text.front())) != 0) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const float value = std::strtof(text.c_str(), &end);
  return errno == 0 && end == text.c_str() + text.size() ? std::optional(value) : std::nullopt;
}

}  // namespace

std::int32_t CopiesOf(const std::string& standby) { return standby == "off" ? 0 : std::atoi(standby.c_str()); }

std::string ShoalHome() {
  const Result<std::string> folder = DefaultHomeFolder();
  return folder.ok() ? *folder : ".shoal";
}

Result<std::string> ResolveModel(const std::string& name) {
  struct stat info {};
  if (stat(name.c_str(), &info) == 0) return name;
  const std::string base = ShoalHome() + "/models/" + name;
  for (const std::string& path : {base, base + ".gguf"}) {
    if (name.find('/') == std::string::npos && IsFile(path)) return path;
  }
  // In parts: any of them tells how many there are.
  std::error_code error;
  for (std::filesystem::directory_iterator it(ShoalHome() + "/models", error), end; !error && it != end;
       it.increment(error)) {
    const auto split = ParseSplitName(it->path().filename().string());
    if (split && (split->stem == name || split->stem + ".gguf" == name)) return it->path().string();
  }
  return Error{ErrorCode::kNotFound, "there is no model '" + name +
                                         "' here: name one of the hub (hf:OWNER/REPO), of `shoal models --catalogue` "
                                         "or a URL, `shoal pull` one, give the path of a GGUF file, or put it into " +
                                         ShoalHome() + "/models"};
}

Result<std::string> ReadTextFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{ErrorCode::kInvalidArgument, "the file '" + path + "' cannot be read"};
  std::string text;
  char buffer[65536];
  while (in.read(buffer, sizeof buffer) || in.gcount() > 0) {
    text.append(buffer, static_cast<std::size_t>(in.gcount()));
    if (text.size() > kTextFileBytesMax) {
      return Error{ErrorCode::kInvalidArgument,
                   "the file '" + path + "' is longer than " + FormatBytes(kTextFileBytesMax)};
    }
  }
  return text;
}

Result<std::vector<std::vector<int>>> ParseCpus(const std::string& text) {
  std::vector<std::vector<int>> stages;
  for (const std::string& stage : Split(text, '/')) {
    std::vector<int>& cpus = stages.emplace_back();
    for (const std::string& item : Split(stage, ',')) {
      int first = 0, last = 0;
      const char* end = item.data() + item.size();
      auto parsed = std::from_chars(item.data(), end, first);
      last = first;
      if (parsed.ec == std::errc{} && parsed.ptr < end && *parsed.ptr == '-') {
        parsed = std::from_chars(parsed.ptr + 1, end, last);
      }
      if (parsed.ec != std::errc{} || parsed.ptr != end || first < 0 || last < first || last > kCpuMax) {
        return Error{
            ErrorCode::kInvalidArgument,
            "'" + text + "' names no cores; write them as 0,1/2-3: cores of a stage by commas, stages by slashes"};
      }
      for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    }
  }
  return stages;
}

Result<std::vector<LogitBias>> ParseLogitBias(const std::vector<std::string>& items) {
  std::vector<LogitBias> biases;
  for (const std::string& item : items) {
    LogitBias bias;
    const std::size_t equals = item.find('=');
    const auto token = std::from_chars(item.data(), item.data() + std::min(equals, item.size()), bias.token);
    const auto value = equals == std::string::npos ? std::nullopt : ParseFloat(item.substr(equals + 1));
    if (!value || token.ec != std::errc{} || token.ptr != item.data() + equals) {
      return Error{ErrorCode::kInvalidArgument, "'" + item + "' is no logit bias; write TOKEN=BIAS, like 1234=-5"};
    }
    bias.bias = *value;
    biases.push_back(bias);
  }
  return biases;
}

Result<NodeOptions> MakeNodeOptions(const ModelOptions& options) {
  NodeOptions node;
  if (!options.chat_template_file.empty()) {
    SHOAL_ASSIGN_OR_RETURN(node.chat_template, ReadTextFile(options.chat_template_file));
  }
  PlacementOptions& placement = node.placement;
  placement.stages = options.stages;
  placement.context_tokens = options.context;
  placement.threads = options.threads;
  placement.slots = options.slots;
  placement.micro_batch_tokens = options.micro_batch;
  placement.flash_attention = !options.no_flash_attention;
  placement.reproducible = options.reproducible;
  SHOAL_ASSIGN_OR_RETURN(placement.wire_type, ParseWireType(options.wire));
  SHOAL_ASSIGN_OR_RETURN(placement.kv_type, ParseKvType(options.kv));
  SHOAL_ASSIGN_OR_RETURN(placement.cpus, ParseCpus(options.cpus));
  if (!options.memory.empty()) { SHOAL_ASSIGN_OR_RETURN(placement.memory_bytes_max, ParseBytes(options.memory)); }
  return node;
}

Result<NodeOptions> OpenNodeOptions(const ModelOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(NodeOptions node, MakeNodeOptions(options));
  SHOAL_ASSIGN_OR_RETURN(const std::string model, ObtainModel(options.model, nullptr, options.quiet));
  SHOAL_ASSIGN_OR_RETURN(node.model, OpenModelHere(model));
  const std::string& quantization = node.model->info.quantization;
  const KernelChoices kernels = UseChosenKernels(quantization);
  if (options.threads != 0 || options.stages != "1") return node;
  node.placement.threads = ThreadsOf(kernels, quantization, LoadedCpuVariant());
  return node;
}

}  // namespace shoal::cli
