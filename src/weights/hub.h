// Names of models as people type them, and what the Hugging Face hub has under one.
//
// Paths of the hub's API that are used: /api/models/OWNER/REPO/tree/REVISION?recursive=true (JSON: path, size, lfs.oid)
// and /OWNER/REPO/resolve/REVISION/FILE. https://huggingface.co/docs/hub/api
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "weights/http.h"
#include "weights/manifest.h"

namespace shoal {

enum class ModelNameKind { kPath, kUrl, kHub };

struct ModelName {
  ModelNameKind kind = ModelNameKind::kPath;
  std::string text;          // the path, or the URL
  std::string repository;    // kHub: "owner/repo"
  std::string quantization;  // kHub: "Q4_K_M"; empty: not said
  std::string file;          // kHub: a file of the repository; empty: not said
};

// "hf:owner/repo", "hf:owner/repo:Q4_K_M", "hf:owner/repo/file.gguf", "https://...", a name of the catalogue
// ("llama-3.2-3b", "llama-3.2-3b:Q8_0"), else a path. `is_hub`: as if it began with "hf:" (the option -hf). Errors:
// kInvalidArgument.
Result<ModelName> ParseModelName(const std::string& text, bool is_hub);

// A model of a repository: one file, or several parts.
struct HubFile {
  std::string path;          // in the repository; of the first part
  std::uint64_t bytes = 0;   // of all parts
  std::string quantization;  // of its name; empty: it names none
  struct Part {
    std::string path;
    std::optional<Digest> sha256;
  };
  std::vector<Part> parts;  // at least one
};

struct Hub {
  std::string endpoint;  // HF_ENDPOINT, else https://huggingface.co
  std::string token;     // HF_TOKEN
};
Hub HubFromEnvironment();
// What is sent with `url`: the token where it is the hub's, by scheme, host and port; else nothing.
std::string TokenFor(const Hub& hub, const Url& url);
// What is sent for a sourced model: the token where all its files are the hub's; else nothing, to none of them.
std::string TokenFor(const Hub& hub, const std::vector<SourceFile>& files);

// The GGUF models of a repository, without projectors and without models whose parts are not all there.
// Errors: as HttpFile::Probe, kCorrupt (no list), kNotFound (no GGUF file in it).
Result<std::vector<HubFile>> ListHub(const Hub& hub, const std::string& repository, const HttpOptions& options);
// Of what ListHub answers. Errors: kCorrupt.
Result<std::vector<HubFile>> ParseHubTree(std::string_view json);
Result<Url> HubUrl(const Hub& hub, const std::string& repository, const std::string& file);

// "Q4_K_M" out of "Llama-3.2-1B-Instruct-Q4_K_M.gguf"; upper case; empty: none.
std::string QuantizationOf(std::string_view file);

// A file and why it was chosen.
struct Choice {
  std::size_t index = 0;
  std::string reason;
};
// What a model has to run on.
struct AtHand {
  std::uint64_t memory_bytes = 0;  // free, of all nodes or of this device; 0: unknown
  bool q4_0_is_fast = false;       // the CPU repacks Q4_0, and speed counts more than quality
  std::string whose = "memory";    // for the reason: "memory of 3 nodes"
};
// With the KV cache and buffers of a usual context on top.
std::uint64_t BytesToRun(std::uint64_t file_bytes);
// `wanted`: a quantization, the end of a name like "UD-Q4_K_XL", or empty. Of those that fit: Q8_0 for models up to 1
// GiB of it; Q4_0 where it is fast and memory is less than 12 GiB; Q5_K_M from 12 GiB; else Q4_K_M; else the largest
// that fits. `files`: the smallest first. Errors: kNotFound (says what there is).
Result<Choice> ChooseFile(const std::vector<HubFile>& files, const std::string& wanted, const AtHand& at_hand);

}  // namespace shoal
