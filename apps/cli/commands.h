// The commands of the program and their options. Each Run… returns the exit code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api/control_client.h"
#include "base/result.h"
#include "node/kernel_choice.h"
#include "node/node.h"

namespace CLI {
class App;
}

namespace shoal::cli {

// Options that every command with a running model has.
struct ModelOptions {
  std::string model;  // a path, a name here, or what `shoal pull` takes
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
  bool local = false;          // in this process, whatever runs here
  bool stages_given = false;   // --stages
  bool placing_given = false;  // an option that says how to place
  std::string local_only;      // an option that was given and only a local run has, say "--cpus"
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
  std::string speed_test = "auto";
};

struct UpOptions {
  std::string name, host = "127.0.0.1", api_key, join_code, memory, store, log_file, speed_test = "auto", device;
  std::string pacing = "auto", heat_drain = "auto", drafts = "auto", system_root;
  std::vector<std::string> listen, peers, relays, model_dirs;
  int port = 8080, net_port = 48100, battery_floor = 15;
  std::int32_t threads = 0, device_layers = 0;
  bool no_mdns = false, serve_relay = false, verbose = false, quiet = false;
};

struct ServiceOptions {
  std::string kind;  // empty: this system's
  std::vector<std::string> up_words;
  bool uninstall = false, dry_run = false;
};

struct JoinOptions {
  std::string code, name;
  std::vector<std::string> peers;
};

struct StatusOptions {
  bool json = false, watch = false;
};

struct PlaceOptions {
  std::string model, stages, nodes;  // nodes: "alpha,beta"
  std::int32_t context = 0, slots = 8;
  std::string wire = "f16", standby = "1", goal = "spread";
  bool json = false;
};

struct DescribeOptions {
  std::string model;
  bool json = false;
};

struct DeviceOptions {
  bool json = false, bench = false;
  std::string quantization;  // of --bench; empty: as advised
  std::string root;          // a recorded /proc and /sys tree in place of this device
};

struct BenchOptions {
  std::string model;         // empty: weights of one type alone
  std::string quantization;  // of those; empty: the model's, else as advised
  bool report = false, json = false;
};

struct PlanOptions {
  std::string model, devices_file, objective = "latency";
  std::int32_t prompt = 512, answer = 128, streams = 8, context = 4096;
  std::string standby = "1";  // copies of each stage, or "off"
  double target_tps = 0;
  double speed_share = 0.5, battery_weight = 1;  // of the objective "energy"
  bool json = false;
};

int RunRun(const RunOptions& options);
int RunServe(const ServeOptions& options);
int RunDescribe(const DescribeOptions& options);
int RunDevice(const DeviceOptions& options);
int RunBench(const BenchOptions& options);
int RunDoctor(const DeviceOptions& options);
int RunUp(const UpOptions& options);
int RunService(const ServiceOptions& options);
int RunJoin(const JoinOptions& options);
int RunStatus(const StatusOptions& options);
int RunInvite(bool json);
int RunLeave();
int RunRevoke(const std::string& node);
int RunPlace(const PlaceOptions& options);
int RunUnplace(const std::string& model);
int RunPlan(const PlanOptions& options);
// What was found the fastest for weights of `quantization` ("": for all that were measured) is what this process
// computes with (node/kernel_choice.h); returns all that was found. Before any kernel is loaded.
KernelChoices UseChosenKernels(const std::string& quantization);
// A completion script for bash, zsh or fish, made from the options that `app` really has.
int RunCompletions(const CLI::App& app, const std::string& shell);

// MODEL, -m, --hf and --hf-file; `help` is of MODEL. `model` gets "hf:OWNER/REPO..." of what is the hub's.
void AddModelWords(CLI::App& command, std::string& model, const std::string& help);
// Throws CLI::ValidationError where none was named.
void RequireModel(const CLI::App& command, const std::string& model);
// Options of llama.cpp that have several letters after one dash, as they are spelled here: "-hf" -> "--hf".
std::string SpelledOut(const std::string& word);

// "off" -> 0.
std::int32_t CopiesOf(const std::string& standby);

// A path as given; else SHOAL_HOME/models/NAME[.gguf]. Errors: kNotFound, saying where it looked.
Result<std::string> ResolveModel(const std::string& name);
// For the node of this SHOAL_HOME, whose folder may be another: a file's absolute path, or the name as it is.
std::string ModelForNode(const std::string& model);
// The node that runs in SHOAL_HOME; calls end with kCancelled once Interrupted.
ControlClient NodeHere();
// SHOAL_HOME/control.sock.
std::string ControlSocketPath();
// $SHOAL_HOME, else ~/.shoal.
std::string ShoalHome();

// Without the model. Errors: kInvalidArgument.
Result<NodeOptions> MakeNodeOptions(const ModelOptions& options);
// With the model's header read, after it was pulled where it is not here. Errors: as MakeNodeOptions, ObtainModel and
// OpenModelHere.
Result<NodeOptions> OpenNodeOptions(const ModelOptions& options);
Result<std::vector<std::vector<int>>> ParseCpus(const std::string& text);
Result<std::vector<LogitBias>> ParseLogitBias(const std::vector<std::string>& items);
Result<std::string> ReadTextFile(const std::string& path);

}  // namespace shoal::cli
