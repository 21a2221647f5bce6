// The command line of shoal: which commands and options there are. What they do is in the other files.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "base/log.h"

namespace shoal::cli {
namespace {

void AddModelOptions(CLI::App& command, ModelOptions& o) {
  command.add_option("model,--model", o.model, "A GGUF file, or a name in SHOAL_HOME/models")->required();
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
  command.add_option("--logit-bias", o.logit_bias, "TOKEN=BIAS, may be repeated")->group(group);
  command.add_option("--grammar", o.grammar_file, "A GBNF file that the answer must follow")->group(group);
  command.add_option("--json-schema", o.json_schema, "A JSON schema that the answer must follow")->group(group);
  command.add_option("--seed", o.seed, "The same seed gives the same text (-1: random)")
      ->capture_default_str()
      ->group(group);
  command.add_option("--logprobs", s.logprobs, "Log-probabilities of N alternatives, with --json")->group(group);
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
}

void SetLog(const ModelOptions& options) {
  SetLogLevel(options.verbose ? LogLevel::kInfo : options.quiet ? LogLevel::kError : LogLevel::kWarning);
}

int Main(int argc, char** argv) {
  CLI::App app{"shoal runs one language model over the devices you have."};
  app.set_version_flag("--version", std::string("shoal ") + SHOAL_VERSION);
  app.require_subcommand(1);
  int code = kExitOk;

  RunOptions run;
  CLI::App* run_command = app.add_subcommand("run", "Answer a prompt, or hold a conversation");
  AddModelOptions(*run_command, run.model);
  CLI::Option* prompt =
      run_command->add_option("-p,--prompt", run.prompt, "The prompt (else stdin, else a conversation)");
  run_command->add_option("--system", run.system, "A system message");
  run_command->add_flag("--raw", run.raw, "Continue the prompt as it is: no chat template");
  run_command->add_flag("--json", run.json, "One JSON object on stdout");
  run_command->add_option("-n,--max-tokens", run.tokens_max, "At most this many tokens (0: until the context is full)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  run_command->add_option("--stop", run.stops, "Stop before this text, may be repeated");
  AddSamplingOptions(*run_command, run);
  run_command->callback([&] {
    SetLog(run.model);
    run.prompt_given = prompt->count() > 0;
    code = RunRun(run);
  });

  ServeOptions serve;
  CLI::App* serve_command = app.add_subcommand("serve", "Serve a model over HTTP (OpenAI API)");
  AddModelOptions(*serve_command, serve.model);
  AddServeOptions(*serve_command, serve);
  serve_command->callback([&] {
    SetLog(serve.model);
    code = RunServe(serve);
  });

  DescribeOptions describe;
  CLI::App* model_command = app.add_subcommand("model", "Show what a GGUF file is and where it may be cut");
  model_command->add_option("model,--model", describe.model, "A GGUF file, or a name in SHOAL_HOME/models")->required();
  model_command->add_flag("--json", describe.json, "One JSON object on stdout");
  model_command->callback([&] { code = RunDescribe(describe); });

  std::string shell;
  CLI::App* completions = app.add_subcommand("completions", "Print a completion script");
  completions->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completions->callback([&] { code = RunCompletions(app, shell); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) { return app.exit(error) == 0 ? kExitOk : kExitUsage; }
  return code;
}

}  // namespace
}  // namespace shoal::cli

int main(int argc, char** argv) {
  try {
    return shoal::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shoal: %s\n", error.what());
    return shoal::cli::kExitFailed;
  }
}
