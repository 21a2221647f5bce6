// `shoal run`: one answer to a prompt, or a conversation.
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>

#include "apps/cli/answer.h"
#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "runtime/rng.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::size_t kPromptBytesMax = 16U << 20;

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

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

// A conversation: turns that were had, rendered anew for each prompt (what is unchanged is in the KV cache).
class Conversation {
 public:
  Conversation(Node& node, const RunOptions& options, SamplingParams sampling)
      : node_(node), options_(options), sampling_(std::move(sampling)), messages_(Json::array()) {
    if (!options.system.empty()) messages_.push_back({{"role", "system"}, {"content", options.system}});
  }

  Result<Answer> Ask(const std::string& prompt, const TextSink& sink) {
    AnswerRequest request;
    request.sampling = sampling_;
    request.tokens_max = options_.tokens_max;
    request.stops = options_.stops;
    if (options_.raw || node_.chat_template() == nullptr) {
      SHOAL_ASSIGN_OR_RETURN(request.prompt, node_.vocabulary().Tokenize(prompt, true, true));
      return GenerateAnswer(node_, std::move(request), sink);
    }
    messages_.push_back({{"role", "user"}, {"content", prompt}});
    Result<Answer> answer = AskChat(std::move(request), sink);
    if (answer.ok()) {
      messages_.push_back({{"role", "assistant"}, {"content", answer->text}});
    } else {
      messages_.erase(messages_.size() - 1);
    }
    return answer;
  }

 private:
  Result<Answer> AskChat(AnswerRequest request, const TextSink& sink) {
    ChatRequest chat;
    chat.messages_json = Dump(messages_);
    chat.json_schema = options_.json_schema;
    chat.grammar = sampling_.grammar;
    SHOAL_ASSIGN_OR_RETURN(request.chat, node_.chat_template()->Render(chat));
    request.prompt = request.chat->tokens;
    return GenerateAnswer(node_, std::move(request), sink);
  }

  Node& node_;
  const RunOptions& options_;
  const SamplingParams sampling_;
  Json messages_;
};

Json StagesJson(const std::vector<StageReport>& stages) {
  Json list = Json::array();
  for (const StageReport& s : stages) {
    list.push_back({{"layers", std::to_string(s.layers.first) + "-" + std::to_string(s.layers.last - 1)},
                    {"first", s.layers.first},
                    {"last", s.layers.last - 1},
                    {"threads", s.threads},
                    {"weight_bytes", s.memory.weight_bytes},
                    {"kv_bytes", s.memory.kv_bytes},
                    {"compute_bytes", s.memory.compute_bytes},
                    {"batches", s.stats.batches},
                    {"rows", s.stats.rows},
                    {"compute_s", static_cast<double>(s.stats.compute_us) / 1e6},
                    {"wait_s", static_cast<double>(s.stats.wait_us) / 1e6},
                    {"wire_s", static_cast<double>(s.stats.wire_us) / 1e6},
                    {"bytes_out", s.stats.bytes_out}});
  }
  return list;
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

void PrintJson(const Node& node, const Answer& answer, const SamplingParams& sampling, double load_s) {
  Json json{{"model", node.model().id}, {"text", answer.text},
            {"tokens", answer.tokens},  {"prompt_tokens", answer.prompt_tokens},
            {"finish", answer.finish},  {"seed", sampling.seed}};
  if (!answer.message.reasoning.empty()) json["reasoning"] = answer.message.reasoning;
  if (sampling.logprobs >= 0) json["logprobs"] = LogprobsJson(answer);
  json["timings"] = TimingsJson(answer, load_s);
  json["stages"] = StagesJson(node.Report());
  std::printf("%s\n", Dump(json).c_str());
}

void PrintSummary(const Node& node, const Answer& answer) {
  std::fprintf(stderr, "\n%d prompt tokens (%d from the cache) in %.2f s, %zu tokens at %.1f a second\n%s",
               answer.prompt_tokens, answer.reused_tokens, answer.prompt_s, answer.tokens.size(),
               PerSecond(static_cast<double>(answer.tokens.size()) - 1, answer.decode_s),
               StageTable(node.Report()).c_str());
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

int Converse(Node& node, Conversation& conversation, bool quiet) {
  std::fprintf(stderr,
               "%s, %zu stage(s). Ctrl-C stops an answer, twice the program; /stages shows where time goes; "
               "an empty line or Ctrl-D ends.\n",
               node.model().id.c_str(), node.Report().size());
  while (!Interrupted()) {
    const std::optional<std::string> line = ReadLine("> ");
    if (!line || line->empty()) break;
    if (*line == "/stages") {
      std::fputs(StageTable(node.Report()).c_str(), stdout);
      continue;
    }
    const Result<Answer> answer = conversation.Ask(*line, PrintingSink());
    std::fputs("\n", stdout);
    if (!answer.ok()) {
      std::fprintf(stderr, "shoal: %s\n", answer.error().message.c_str());
      continue;
    }
    if (answer->finish == "length" && !quiet) std::fputs("(cut off by the token limit)\n", stderr);
    ClearInterrupt();
  }
  return Interrupted() ? kExitInterrupted : kExitOk;
}

int AnswerOnce(Node& node, Conversation& conversation, const RunOptions& options, const std::string& prompt,
               const SamplingParams& sampling, double load_s) {
  const Result<Answer> answer =
      conversation.Ask(prompt, options.json ? [](TextKind, const std::string&) {} : PrintingSink());
  if (!answer.ok()) return Fail(answer.error());
  if (options.json) {
    PrintJson(node, *answer, sampling, load_s);
  } else {
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (!options.model.quiet) PrintSummary(node, *answer);
  }
  return answer->finish == "interrupted" ? kExitInterrupted : kExitOk;
}

}  // namespace

int RunRun(const RunOptions& options) {
  WatchSignals();
  const Result<SamplingParams> sampling = MakeSampling(options);
  if (!sampling.ok()) return Fail(sampling.error());
  Result<NodeOptions> node_options = MakeNodeOptions(options.model);
  if (!node_options.ok()) return Fail(node_options.error());
  const bool interactive = !options.prompt_given && StdinIsTerminal();
  std::string prompt = options.prompt;
  if (!options.prompt_given && !interactive) {
    Result<std::string> piped = ReadAllOfStdin(kPromptBytesMax);
    if (!piped.ok()) return Fail(piped.error());
    prompt = *std::move(piped);
  }

  const auto start = std::chrono::steady_clock::now();
  Result<std::shared_ptr<Node>> node = Error{};
  {
    LoadProgress progress(!options.model.quiet && !options.json);
    node_options->placement.on_progress = [&](std::size_t stage, float f) { return progress.Update(stage, f); };
    node = Node::Open(*node_options);
  }
  if (!node.ok()) return Fail(node.error());
  const double load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  Conversation conversation(**node, options, *sampling);
  const int code = interactive ? Converse(**node, conversation, options.model.quiet)
                               : AnswerOnce(**node, conversation, options, prompt, *sampling, load_s);
  (*node)->Stop();
  return code;
}

}  // namespace shoal::cli
