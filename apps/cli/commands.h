// The commands of the program and their options. Each Run… returns the exit code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "node/node.h"

namespace CLI {
class App;
}

namespace shoal::cli {

// Options that every command with a running model has.
struct ModelOptions {
  std::string model;  // a path, or a name in SHOAL_HOME/models
  std::string stages = "1";
  std::int32_t context = 0;
  std::int32_t threads = 0;
  std::int32_t slots = 8;
  std::int32_t micro_batch = 64;
  std::string wire = "f16";
  std::string kv = "f16";
  std::string cpus;    // "0,1/2,3": cores of each stage
  std::string memory;  // "2G"
  std::string chat_template_file;
  bool no_flash_attention = false;
  bool reproducible = false;
  bool verbose = false;
  bool quiet = false;
};

struct RunOptions {
  ModelOptions model;
  std::string prompt;
  bool prompt_given = false;
  std::string system;
  bool raw = false;
  bool json = false;
  std::int32_t tokens_max = 0;
  std::vector<std::string> stops;
  std::vector<std::string> logit_bias;  // "TOKEN=BIAS"
  std::string grammar_file, json_schema;
  std::int64_t seed = -1;  // -1: random
  SamplingParams sampling;
};

struct ServeOptions {
  ModelOptions model;
  std::string host = "127.0.0.1";
  int port = 8080;
  std::string api_key, cors_origin = "*";
  std::string body_max = "8M";
  int requests_max = 128, connections_max = 256, queue_max = 64;
};

struct DescribeOptions {
  std::string model;
  bool json = false;
};

int RunRun(const RunOptions& options);
int RunServe(const ServeOptions& options);
int RunDescribe(const DescribeOptions& options);
// A completion script for bash, zsh or fish, made from the options that `app` really has.
int RunCompletions(const CLI::App& app, const std::string& shell);

// A path as given; else SHOAL_HOME/models/NAME[.gguf]. Errors: kNotFound, saying where it looked.
Result<std::string> ResolveModel(const std::string& name);
// $SHOAL_HOME, else ~/.shoal.
std::string ShoalHome();

// Errors: kInvalidArgument.
Result<NodeOptions> MakeNodeOptions(const ModelOptions& options);
Result<std::vector<std::vector<int>>> ParseCpus(const std::string& text);
Result<std::vector<LogitBias>> ParseLogitBias(const std::vector<std::string>& items);
Result<std::string> ReadTextFile(const std::string& path);

}  // namespace shoal::cli
