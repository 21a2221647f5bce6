// The command line of shoal: which commands and options there are. What they do is in the other files.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/log.h"
#include "node/kernel_choice.h"
#include "offload/process.h"
#include "offload/serve.h"

namespace shoal::cli {
namespace {

void AddModelOptions(CLI::App& command, ModelOptions& o) {
  AddModelWords(command, o.model, "A GGUF file, or a name of SHOAL_HOME/models or the store");
  command.add_option("--stages", o.stages, "A number of stages, or layer ranges: 0-9,10-19,20-29")
      ->capture_default_str();
  command.add_option("--ctx", o.context, "Tokens of context (0: the model's own, at most 4096)")->capture_default_str();
  command.add_option("--threads", o.threads, "Threads of each stage (0: cores shared out)")->capture_default_str();
  command.add_option("--slots", o.slots, "Generations that run at once")->capture_default_str();
  command.add_option("--micro-batch", o.micro_batch, "Tokens of a micro-batch")->capture_default_str();
  command.add_option("--wire", o.wire, "Hidden states between stages: f32, f16 or bf16")->capture_default_str();
  command.add_option("--kv", o.kv, "KV cache: f16 or q8_0")->capture_default_str();
  command.add_option("--cpus", o.cpus, "Cores of each stage: 0,1/2-3");
  command.add_option("--memory", o.memory, "At most this much memory for all stages, like 2G");
  command.add_option("--chat-template", o.chat_template_file, "A Jinja file instead of the model's own template");
  command.add_flag("--no-flash-attention", o.no_flash_attention, "Plain attention kernels");
  command.add_flag("--reproducible", o.reproducible, "An answer never depends on what else runs (slower)");
  command.add_flag("-q,--quiet", o.quiet, "Nothing on stderr but errors");
  command.add_flag("-v,--verbose", o.verbose, "Log what the engine says");
}

void AddSamplingOptions(CLI::App& command, RunOptions& o) {
  SamplingParams& s = o.sampling;
  const std::string group = "Sampling";
  command.add_option("--temperature", s.temperature, "0: always the most likely token")
      ->capture_default_str()
      ->group(group);
  command.add_option("--top-k", s.top_k, "Of the K most likely (0: all)")->capture_default_str()->group(group);
  command.add_option("--top-p", s.top_p, "Of the most likely with probability P together")
      ->capture_default_str()
      ->group(group);
  command.add_option("--min-p", s.min_p, "Not below P times the most likely")->capture_default_str()->group(group);
  command.add_option("--typical-p", s.typical_p, "Locally typical sampling (1: off)")
      ->capture_default_str()
      ->group(group);
  command.add_option("--repeat-penalty", s.repeat_penalty, "Divides logits of repeated tokens")
      ->capture_default_str()
      ->group(group);
  command.add_option("--frequency-penalty", s.frequency_penalty, "Subtracted per repetition")
      ->capture_default_str()
      ->group(group);
  command.add_option("--presence-penalty", s.presence_penalty, "Subtracted once repeated")
      ->capture_default_str()
      ->group(group);
  command.add_option("--penalty-last-n", s.penalty_last_n, "Tokens that penalties look back on")
      ->capture_default_str()
      ->group(group);
  command.add_option("--logit-bias", o.logit_bias, "TOKEN=BIAS, may be repeated")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--grammar", o.grammar_file, "A GBNF file that the answer must follow")->group(group);
  command.add_option("--json-schema", o.json_schema, "A JSON schema that the answer must follow")->group(group);
  command.add_option("--seed", o.seed, "The same seed gives the same text (-1: random)")
      ->capture_default_str()
      ->group(group);
  command.add_option("--logprobs", s.logprobs, "Log-probabilities of N alternatives, with --json")->group(group);
}

void AddSpeedTestOption(CLI::App& command, std::string& speed_test) {
  command
      .add_option("--speed-test", speed_test,
                  "Measure this device's speed and its fastest kernels once, while nothing runs: auto or off")
      ->envname("SHOAL_SPEED_TEST")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "off"}));
}

void AddServeOptions(CLI::App& command, ServeOptions& o) {
  command.add_option("--host", o.host, "Address to listen on")->capture_default_str();
  command.add_option("--port", o.port, "Port to listen on (0: any)")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command.add_option("--api-key", o.api_key, "Clients must send this key")->envname("SHOAL_API_KEY");
  command.add_option("--cors-origin", o.cors_origin, "Origin that browsers may call from")->capture_default_str();
  command.add_option("--body-max", o.body_max, "Longest request body")->capture_default_str();
  command.add_option("--requests-max", o.requests_max, "Requests at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  command.add_option("--connections-max", o.connections_max, "Connections at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command.add_option("--queue-max", o.queue_max, "Generations that wait for a slot")
      ->capture_default_str()
      ->check(CLI::Range(0, 65536));
  AddSpeedTestOption(command, o.speed_test);
}

// Options of `run` that say how this process runs a model: a cluster's nodes decide that for themselves.
constexpr const char* kLocalOnly[] = {
    "--threads",       "--micro-batch",        "--kv",           "--cpus",           "--memory",
    "--chat-template", "--no-flash-attention", "--reproducible", "--penalty-last-n", "--logprobs"};

void NoteGiven(const CLI::App& command, RunOptions& o) {
  const auto given = [&](const char* name) { return command.get_option(name)->count() > 0; };
  o.stages_given = given("--stages");
  o.placing_given = o.stages_given || given("--ctx") || given("--slots") || given("--wire");
  for (const char* name : kLocalOnly)
    if (given(name)) o.local_only = name;
}

[[maybe_unused]] void AddUpOptions(CLI::App& command, UpOptions& o) {
  command.add_option("--name", o.name, "What people call this node (else the host's name, a phone's model)");
  command.add_option("--listen", o.listen, "An IP address to listen on, may be repeated (else all)")->type_name("ADDR");
  command.add_option("--peer", o.peers, "HOST:PORT or a multiaddr of a member, may be repeated");
  command.add_option("--relay", o.relays, "Multiaddr, with /p2p/ID, of a member that others reach this one through");
  command.add_flag("--serve-relay", o.serve_relay, "Let members reach each other through this node");
  command.add_option("--host", o.host, "Address of the OpenAI API")->capture_default_str();
  command.add_option("--port", o.port, "Port of the OpenAI API (0: any)")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command.add_option("--api-key", o.api_key, "Clients must send this key")->envname("SHOAL_API_KEY");
  command.add_option("--models", o.model_dirs, "A folder with GGUF files, may be repeated")->type_name("DIR");
  command.add_option("--join", o.join_code, "An invite's code or link, for a node that is no member yet");
  command.add_option("--net-port", o.net_port, "Port among members (another one when taken)")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command.add_option("--memory", o.memory, "At most this much memory for stages, like 2G");
  command.add_option("--store", o.store, "At most this much for layers on this disk, like 20G")
      ->envname("SHOAL_STORE_MAX");
  command
      .add_option("--threads", o.threads, "Threads of a stage (0: as many as were fastest, else one on each fast core)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  CLI::Option* device =
      command
          .add_option("--device", o.device, "Stages compute on it: vulkan, opencl:1, rpc:HOST:PORT ... (else the CPU)")
          ->envname("SHOAL_DEVICE");
  command
      .add_option_function<std::string>(
          "--rpc", [&o](const std::string& server) { o.device = "rpc:" + server; },
          "Stages compute on this server of ggml's RPC: --device rpc:HOST:PORT")
      ->type_name("HOST:PORT")
      ->excludes(device);
  command.add_option("--device-layers", o.device_layers, "So many layers of a stage, its last ones (0: all)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 16));
  command.add_option("--log-file", o.log_file, "Log there instead of stderr; full ones become FILE.1, FILE.2, ...");
  AddSpeedTestOption(command, o.speed_test);
  command
      .add_option("--battery-floor", o.battery_floor,
                  "Give layers to others below this percentage, unless it charges (0: never)")
      ->capture_default_str()
      ->check(CLI::Range(0, 100));
  command.add_option("--heat-drain", o.heat_drain, "Give layers to others while it stays hot at rest: auto or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "off"}));
  command.add_option("--pacing", o.pacing, "Rest between micro-batches where heat would slow it more: auto or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "off"}));
  command
      .add_option("--drafts", o.drafts,
                  "Compute what probably comes next while an answer leaves stages idle: auto or off; of models whose "
                  "first layers are here")
      ->envname("SHOAL_DRAFTS")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "off"}));
  command.add_option("--system-root", o.system_root, "A folder in place of / for heat and battery")->group("");
  command.add_flag("--no-mdns", o.no_mdns, "Do not look for members by multicast DNS");
  command.add_flag("-q,--quiet", o.quiet, "Nothing on stderr but errors and the ready line");
  command.add_flag("-v,--verbose", o.verbose, "Log what the node does");
}

void AddStandbyOption(CLI::App& command, std::string& standby) {
  command
      .add_option("--standby", standby, "Copies of each stage that other nodes keep ready where they have room, or off")
      ->check(CLI::Range(0, 8) | CLI::IsMember({"off"}))
      ->capture_default_str();
}

void SetLevel(bool verbose, bool quiet) {
  SetLogLevel(verbose ? LogLevel::kInfo : quiet ? LogLevel::kError : LogLevel::kWarning);
}

void AddService(CLI::App& app, ServiceOptions& o, int& code) {
  CLI::App* service = app.add_subcommand("service", "Let this device's node start with the system");
  service->require_subcommand(1);
  CLI::App* install = service->add_subcommand("install", "Write what is needed, and start it");
  install->add_option("up", o.up_words, "After --: options of `shoal up`");
  install->add_flag("--dry-run", o.dry_run, "Show what would be written and run");
  CLI::App* uninstall = service->add_subcommand("uninstall", "End it and remove what was written");
  for (CLI::App* command : {install, uninstall}) {
    command->add_option("--kind", o.kind, "termux, systemd or launchd (else this system's)");
  }
  install->callback([&o, &code] { code = RunService(o); });
  uninstall->callback([&o, &code] {
    o.uninstall = true;
    code = RunService(o);
  });
}

// The commands of a cluster; their options live as long as the program's.
struct ClusterCommands {
  UpOptions up;
  JoinOptions join;
  ServiceOptions service;
  StatusOptions status;
  PlaceOptions place;
  bool invite_json = false;
  std::string unplace_model, revoke_node;

  void AddMembers(CLI::App& app, int& code);
  void AddPlacements(CLI::App& app, int& code);
};

void ClusterCommands::AddMembers(CLI::App& app, int& code) {
  CLI::App* up_command = app.add_subcommand("up", "Run this device as a node of a cluster");
  AddUpOptions(*up_command, up);
  up_command->callback([this, &code] {
    SetLevel(up.verbose, up.quiet);
    code = RunUp(up);
  });
  AddService(app, service, code);
  CLI::App* join_command = app.add_subcommand("join", "Become a member of a cluster with an invite");
  join_command->add_option("code", join.code, "The code or link of `shoal invite`")->required();
  join_command->add_option("--peer", join.peers, "HOST:PORT or a multiaddr of a member, may be repeated");
  join_command->add_option("--name", join.name, "What people call this node (else the host's name, a phone's model)");
  join_command->callback([this, &code] { code = RunJoin(join); });
  CLI::App* status_command = app.add_subcommand("status", "Show nodes, links and placements");
  status_command->add_flag("--json", status.json, "One JSON object on stdout");
  status_command->add_flag("--watch", status.watch, "Again each second, until Ctrl-C");
  status_command->callback([this, &code] { code = RunStatus(status); });
  CLI::App* invite_command = app.add_subcommand("invite", "Print a code that brings one device into the cluster");
  invite_command->add_flag("--json", invite_json, "One JSON object on stdout");
  invite_command->callback([this, &code] { code = RunInvite(invite_json); });
  app.add_subcommand("leave", "Take the node of this device out of its cluster")->callback([&code] {
    code = RunLeave();
  });
  CLI::App* revoke_command = app.add_subcommand("revoke", "Throw a node out of the cluster for good");
  revoke_command->add_option("node", revoke_node, "Its name or id")->required();
  revoke_command->callback([this, &code] { code = RunRevoke(revoke_node); });
}

void ClusterCommands::AddPlacements(CLI::App& app, int& code) {
  CLI::App* place_command = app.add_subcommand("place", "Load a model over nodes of the cluster");
  AddModelWords(*place_command, place.model, "A model that a node has, or the path of a GGUF file");
  place_command->add_option("--stages", place.stages,
                            "A number of stages, or layer ranges: 0-9,10-29 (else as planned)");
  place_command->add_option("--nodes", place.nodes, "Names or ids, in stage order: alpha,beta (else all)");
  place_command->add_option("--ctx", place.context, "Tokens of context (0: the model's own, at most 4096)")
      ->capture_default_str();
  place_command->add_option("--slots", place.slots, "Generations that run at once")->capture_default_str();
  place_command->add_option("--wire", place.wire, "Hidden states between stages: f32, f16 or bf16")
      ->capture_default_str();
  AddStandbyOption(*place_command, place.standby);
  place_command
      ->add_option(
          "--goal", place.goal,
          "spread: a stage on every node; latency, throughput: the nodes that are fastest for one request, for "
          "many; energy: those that take the least for one")
      ->check(CLI::IsMember({"spread", "latency", "throughput", "energy"}))
      ->capture_default_str();
  place_command->add_flag("--json", place.json, "One JSON object on stdout");
  place_command->callback([this, place_command, &code] {
    RequireModel(*place_command, place.model);
    code = RunPlace(place);
  });
  CLI::App* unplace_command = app.add_subcommand("unplace", "Unload a model from the cluster");
  unplace_command->add_option("model,--model", unplace_model, "Its name")->required();
  unplace_command->callback([this, &code] { code = RunUnplace(unplace_model); });
}

void AddPlanOptions(CLI::App& command, PlanOptions& o) {
  AddModelWords(command, o.model, "A GGUF file, or a name of SHOAL_HOME/models or the store");
  command.add_option("--devices", o.devices_file, "Plan for the devices of this file (else those of the cluster)")
      ->type_name("FILE");
  command
      .add_option("--objective", o.objective,
                  "What to be best at: one request's time, many streams, one request's energy, or many streams with a "
                  "stage on every device (what place does unless told else)")
      ->capture_default_str()
      ->check(CLI::IsMember({"latency", "throughput", "energy", "spread"}));
  command.add_option("--speed-share", o.speed_share, "Energy: how much of the best speed a plan must keep (0 to 1)")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 1.0));
  command.add_option("--battery-weight", o.battery_weight, "Energy: what a joule of a battery counts (mains: 1)")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 1000.0));
  command.add_option("--prompt", o.prompt, "Tokens of a request's prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--answer", o.answer, "Tokens of its answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--streams", o.streams, "Requests at once")->capture_default_str()->check(CLI::Range(1, 4096));
  command.add_option("--ctx", o.context, "Tokens of context that stages reserve")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  AddStandbyOption(command, o.standby);
  command.add_option("--target-tps", o.target_tps, "Say what it takes for one stream to reach so many tokens a second");
  command.add_flag("--json", o.json, "One JSON object on stdout");
}

// The commands about this device; their options live as long as the program's.
struct DeviceCommands {
  DeviceOptions device, doctor;
  BenchOptions bench;
  PlanOptions plan;

  void Add(CLI::App& app, int& code) {
    CLI::App* plan_command = app.add_subcommand("plan", "Show how a model is best split over devices, and why");
    AddPlanOptions(*plan_command, plan);
    plan_command->callback([this, plan_command, &code] {
      RequireModel(*plan_command, plan.model);
      code = RunPlan(plan);
    });
    CLI::App* device_command = app.add_subcommand("device", "Show what this device is and what fits it");
    device_command->add_flag("--json", device.json, "One JSON object on stdout");
    device_command->add_flag("--bench", device.bench, "Measure its speed and its fastest kernels anew");
    device_command->add_option("--quantization", device.quantization,
                               "Of what is measured, like Q4_0 (else as advised)");
    device_command->add_option("--root", device.root, "Read a recorded /proc and /sys tree instead")->type_name("DIR");
    device_command->callback([this, &code] { code = RunDevice(device); });
    CLI::App* bench_command = app.add_subcommand("bench", "Measure this device, and a model on it");
    AddModelWords(*bench_command, bench.model, "A model to run here: a prompt of 512 tokens, an answer of 128");
    bench_command->add_option("--quantization", bench.quantization,
                              "Of the weights that are measured, like Q4_0 (else the model's, or as advised)");
    bench_command->add_flag("--report", bench.report, "Print a row for docs/devices.md");
    bench_command->add_flag("--json", bench.json, "One JSON object on stdout");
    bench_command->callback([this, &code] { code = RunBench(bench); });
    CLI::App* doctor_command = app.add_subcommand("doctor", "Check what commonly goes wrong on a device");
    doctor_command->add_flag("--json", doctor.json, "One JSON object on stdout");
    doctor_command->add_option("--root", doctor.root, "Read a recorded /proc and /sys tree instead")->type_name("DIR");
    doctor_command->callback([this, &code] { code = RunDoctor(doctor); });
  }
};

void SetLog(const ModelOptions& options) { SetLevel(options.verbose, options.quiet); }

int Main(int argc, char** argv) {
  CLI::App app{"shoal runs one language model over the devices you have."};
  app.set_version_flag("--version", std::string("shoal ") + SHOAL_VERSION);
  app.require_subcommand(1);
  int code = kExitOk;

  RunOptions run;
  CLI::App* run_command = app.add_subcommand("run", "Answer a prompt, or hold a conversation");
  AddModelOptions(*run_command, run.model);
  std::vector<std::string> question;
  CLI::Option* words = run_command->add_option("question", question, "The prompt");
  CLI::Option* prompt =
      run_command->add_option("-p,--prompt", run.prompt, "The prompt (else stdin, else a conversation)")
          ->excludes(words);
  run_command->add_option("--system", run.system, "A system message");
  run_command->add_flag("--local", run.local, "In this process, though a node of a cluster runs here");
  run_command->add_flag("--raw", run.raw, "Continue the prompt as it is: no chat template");
  run_command->add_flag("--json", run.json, "One JSON object on stdout");
  run_command->add_option("-n,--max-tokens", run.tokens_max, "At most this many tokens (0: until the context is full)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  // One text each: neither the words after it nor, of a text in brackets, what is between its commas.
  run_command->add_option("--stop", run.stops, "Stop before this text, may be repeated")->allow_extra_args(false);
  AddSamplingOptions(*run_command, run);
  run_command->callback([&, run_command] {
    RequireModel(*run_command, run.model.model);
    SetLog(run.model);
    for (const std::string& word : question) run.prompt += (&word == question.data() ? "" : " ") + word;
    run.prompt_given = prompt->count() > 0 || !question.empty();
    NoteGiven(*run_command, run);
    code = RunRun(run);
  });

  ServeOptions serve;
  CLI::App* serve_command = app.add_subcommand("serve", "Serve a model over HTTP (OpenAI API)");
  AddModelOptions(*serve_command, serve.model);
  AddServeOptions(*serve_command, serve);
  serve_command->callback([&, serve_command] {
    RequireModel(*serve_command, serve.model.model);
    SetLog(serve.model);
    code = RunServe(serve);
  });

  ClusterCommands cluster;
  cluster.AddMembers(app, code);
  cluster.AddPlacements(app, code);
  AddStoreCommands(app, code);
  AddFileCommands(app, code);

  DeviceCommands device;
  device.Add(app, code);

  DescribeOptions describe;
  CLI::App* model_command = app.add_subcommand("model", "Show what a GGUF file is and where it may be cut");
  AddModelWords(*model_command, describe.model, "A GGUF file, or a name of SHOAL_HOME/models or the store");
  model_command->add_flag("--json", describe.json, "One JSON object on stdout");
  model_command->callback([&, model_command] {
    RequireModel(*model_command, describe.model);
    code = RunDescribe(describe);
  });

  std::string shell;
  CLI::App* completions = app.add_subcommand("completions", "Print a completion script");
  completions->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completions->callback([&] { code = RunCompletions(app, shell); });

  std::vector<std::string> given(argv + 1, argv + argc);
  const auto commands = app.get_subcommands([&](CLI::App* one) { return !given.empty() && one->check_name(given[0]); });
  if (!given.empty() && !given[0].starts_with('-') && commands.empty()) {
    return Fail({ErrorCode::kInvalidArgument, "there is no command '" + given[0] + "'; `shoal --help` lists them"});
  }
  std::transform(given.begin(), given.end(), given.begin(), SpelledOut);
  std::reverse(given.begin(), given.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(given));
  } catch (const CLI::ParseError& error) { return app.exit(error) == 0 ? kExitOk : kExitUsage; }
  return code;
}

}  // namespace
}  // namespace shoal::cli

int main(int argc, char** argv) {
  // Not a command for people: a process that `shoal up --device` starts for a stage.
  if (argc == 2 && std::string_view(argv[1]) == shoal::kOffloadCommand) {
    return shoal::ServeOffload(shoal::kOffloadDescriptor);
  }
  // Nor is this: one that is started for each set of CPU kernels.
  if (argc == 5 && std::string_view(argv[1]) == shoal::kKernelCommand) {
    return shoal::PrintKernelSpeed(argv[2], std::atoi(argv[3]), argv[4]);
  }
  try {
    return shoal::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shoal: %s\n", error.what());
    return shoal::cli::kExitFailed;
  }
}
