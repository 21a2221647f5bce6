// `shoal run`: one answer to a prompt, or a conversation.
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>

#include "apps/cli/answer.h"
#include "apps/cli/commands.h"
#include "apps/cli/conversation.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "runtime/rng.h"

namespace shoal::cli {
namespace {

constexpr std::size_t kPromptBytesMax = 16U << 20;

Result<SamplingParams> MakeSampling(const RunOptions& options) {
  SamplingParams sampling = options.sampling;
  sampling.seed = options.seed >= 0 ? static_cast<std::uint64_t>(options.seed) : RandomSeed() >> 32;
  SHOAL_ASSIGN_OR_RETURN(sampling.logit_bias, ParseLogitBias(options.logit_bias));
  if (!options.grammar_file.empty()) {
    SHOAL_ASSIGN_OR_RETURN(sampling.grammar, ReadTextFile(options.grammar_file));
  } else if (!options.json_schema.empty() && options.raw) {
    SHOAL_ASSIGN_OR_RETURN(sampling.grammar, GrammarFromJsonSchema(options.json_schema));
  }
  SHOAL_RETURN_IF_ERROR(Validate(sampling));
  return sampling;
}

double PerSecond(double count, double seconds) { return seconds > 0 ? count / seconds : 0; }

Json TimingsJson(const Answer& answer, double load_s) {
  const auto computed = static_cast<double>(answer.prompt_tokens - answer.reused_tokens);
  const double decoded = answer.tokens.empty() ? 0 : static_cast<double>(answer.tokens.size()) - 1;
  return {{"load_s", load_s},
          {"prompt_s", answer.prompt_s},
          {"decode_s", answer.decode_s},
          {"prompt_tokens_per_s", PerSecond(computed, answer.prompt_s)},
          {"decode_tokens_per_s", PerSecond(decoded, answer.decode_s)},
          {"reused_tokens", answer.reused_tokens}};
}

Json LogprobsJson(const Answer& answer) {
  Json list = Json::array();
  for (const SampledToken& token : answer.sampled) {
    Json alternatives = Json::array();
    for (const TokenLogprob& a : token.alternatives)
      alternatives.push_back({{"token", a.token}, {"logprob", a.logprob}});
    list.push_back({{"token", token.token}, {"logprob", token.logprob}, {"alternatives", std::move(alternatives)}});
  }
  return list;
}

void PrintJson(const Conversation& conversation, const Answer& answer, const SamplingParams& sampling, double load_s) {
  Json json{{"model", conversation.model_name()},    {"text", answer.text},     {"tokens", answer.tokens},
            {"prompt_tokens", answer.prompt_tokens}, {"finish", answer.finish}, {"seed", sampling.seed}};
  if (!answer.message.reasoning.empty()) json["reasoning"] = answer.message.reasoning;
  if (sampling.logprobs >= 0) json["logprobs"] = LogprobsJson(answer);
  json["timings"] = TimingsJson(answer, load_s);
  json["stages"] = conversation.StagesJson();
  std::printf("%s\n", DumpJson(json).c_str());
}

void PrintSummary(const Conversation& conversation, const Answer& answer) {
  std::fprintf(stderr, "\n%d prompt tokens (%d from the cache) in %.2f s, %zu tokens at %.1f a second\n%s",
               answer.prompt_tokens, answer.reused_tokens, answer.prompt_s, answer.tokens.size(),
               PerSecond(static_cast<double>(answer.tokens.size()) - 1, answer.decode_s),
               conversation.StagesText().c_str());
}

TextSink PrintingSink() {
  return [in_reasoning = false](TextKind kind, const std::string& text) mutable {
    const bool reasoning = kind == TextKind::kReasoning;
    if (StdoutIsTerminal() && reasoning != in_reasoning) std::fputs(reasoning ? "\033[2m" : "\033[0m\n", stdout);
    in_reasoning = reasoning;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
}

int Converse(Conversation& conversation, const RunOptions& options) {
  std::fprintf(stderr,
               "%s, %zu stage(s). Ctrl-C stops an answer, twice the program; /new begins anew; "
               "/stages shows where time goes; an empty line or Ctrl-D ends.\n",
               conversation.model_name().c_str(), conversation.StagesJson().size());
  while (!Interrupted()) {
    const std::optional<std::string> line = ReadLine("> ");
    if (!line || line->empty()) break;
    if (*line == "/stages") {
      std::fputs(conversation.StagesText().c_str(), stdout);
      continue;
    }
    if (*line == "/new") {
      conversation.Forget();
      std::fputs("(a new conversation)\n", stderr);
      continue;
    }
    const Result<Answer> answer = conversation.Ask(*line, PrintingSink());
    std::fputs("\n", stdout);
    if (!answer.ok()) {
      std::fprintf(stderr, "shoal: %s\n", answer.error().message.c_str());
      if (answer.error().code == ErrorCode::kContextFull) {
        std::fputs("shoal: /new begins a new conversation; --ctx gives the model a larger context\n", stderr);
      }
      continue;
    }
    if (answer->finish == "length" && !options.model.quiet) {
      std::fputs(options.tokens_max > 0 ? "(cut off by the token limit)\n" : "(cut off: the context is full)\n",
                 stderr);
    }
    ClearInterrupt();
  }
  return Interrupted() ? kExitInterrupted : kExitOk;
}

int AnswerOnce(Conversation& conversation, const RunOptions& options, const std::string& prompt,
               const SamplingParams& sampling, double load_s) {
  const Result<Answer> answer =
      conversation.Ask(prompt, options.json ? [](TextKind, const std::string&) {} : PrintingSink());
  if (!answer.ok()) return Fail(answer.error());
  if (options.json) {
    PrintJson(conversation, *answer, sampling, load_s);
  } else {
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (!options.model.quiet) PrintSummary(conversation, *answer);
  }
  return answer->finish == "interrupted" ? kExitInterrupted : kExitOk;
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What a run has besides whom it talks to.
struct Prompt {
  bool interactive = false;
  std::string text;
};

Result<Prompt> ReadPrompt(const RunOptions& options) {
  Prompt prompt{!options.prompt_given && StdinIsTerminal(), options.prompt};
  if (!options.prompt_given && !prompt.interactive) {
    SHOAL_ASSIGN_OR_RETURN(prompt.text, ReadAllOfStdin(kPromptBytesMax));
  }
  return prompt;
}

int Talk(Conversation& conversation, const RunOptions& options, const Prompt& prompt, const SamplingParams& sampling,
         double load_s) {
  if (prompt.interactive) return Converse(conversation, options);
  return AnswerOnce(conversation, options, prompt.text, sampling, load_s);
}

int RunOnCluster(const ControlClient& client, const RunOptions& options, const SamplingParams& sampling) {
  const Result<Prompt> prompt = ReadPrompt(options);
  if (!prompt.ok()) return Fail(prompt.error());
  const auto start = std::chrono::steady_clock::now();
  const Result<std::unique_ptr<Conversation>> conversation = ClusterConversation(client, options, sampling);
  if (!conversation.ok()) return Fail(conversation.error());
  return Talk(**conversation, options, *prompt, sampling, SecondsSince(start));
}

int RunLocally(const RunOptions& options, const SamplingParams& sampling) {
  Result<NodeOptions> node_options = OpenNodeOptions(options.model);
  if (!node_options.ok()) return Fail(node_options.error());
  const Result<Prompt> prompt = ReadPrompt(options);
  if (!prompt.ok()) return Fail(prompt.error());

  const auto start = std::chrono::steady_clock::now();
  Result<std::shared_ptr<Node>> node = Error{};
  {
    LoadProgress progress(!options.model.quiet && !options.json);
    node_options->placement.on_progress = [&](std::size_t stage, float f) { return progress.Update(stage, f); };
    node = Node::Open(*node_options);
  }
  if (!node.ok()) return Fail(node.error());
  const double load_s = SecondsSince(start);
  const int code = Talk(*LocalConversation(**node, options, sampling), options, *prompt, sampling, load_s);
  (*node)->Stop();
  return code;
}

}  // namespace

int RunRun(const RunOptions& options) {
  WatchSignals();
  const Result<SamplingParams> sampling = MakeSampling(options);
  if (!sampling.ok()) return Fail(sampling.error());
  const ControlClient client = NodeHere();
  return !options.local && client.NodeRuns() ? RunOnCluster(client, options, *sampling)
                                             : RunLocally(options, *sampling);
}

}  // namespace shoal::cli
