// Prompts to a model that the cluster has placed: OpenAI requests to this node's socket, their streams to text.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "api/backend.h"
#include "apps/cli/conversation.h"
#include "apps/cli/named_models.h"
#include "apps/cli/status_text.h"
#include "apps/cli/terminal.h"

namespace shoal::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::int32_t kTokensMaxUnbounded = 1 << 24;  // /v1/completions has a default of 16: this is "until full"

double SecondsBetween(SteadyClock::time_point from, SteadyClock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string NameOf(const std::string& model) { return model.substr(model.find_last_of('/') + 1); }

const PlacementStatus* FindLive(const ClusterStatus& status, const std::string& model) {
  const auto found = std::find_if(status.placements.begin(), status.placements.end(), [&](const PlacementStatus& p) {
    return p.state == "live" && IsServedModel({p.model, 0, 0}, NameOf(model));
  });
  return found == status.placements.end() ? nullptr : &*found;
}

// The options of the request that are the same for both kinds.
Json CommonFields(const RunOptions& options, const SamplingParams& s, const std::string& model) {
  Json body{{"model", model},
            {"stream", true},
            {"stream_options", {{"include_usage", true}}},
            {"return_token_ids", true},
            {"temperature", s.temperature},
            {"top_k", s.top_k},
            {"top_p", s.top_p},
            {"min_p", s.min_p},
            {"typical_p", s.typical_p},
            {"repetition_penalty", s.repeat_penalty},
            {"frequency_penalty", s.frequency_penalty},
            {"presence_penalty", s.presence_penalty},
            {"seed", s.seed}};
  if (!options.stops.empty()) body["stop"] = options.stops;
  if (!s.grammar.empty()) body["grammar"] = s.grammar;
  for (const LogitBias& b : s.logit_bias) {
    body["logit_bias"][std::to_string(b.token)] = std::isfinite(b.bias) ? b.bias : b.bias > 0 ? 100.0F : -100.0F;
  }
  return body;
}

// Puts an answer together from the events of a stream.
class StreamReader {
 public:
  StreamReader(Answer& answer, const TextSink& sink) : answer_(answer), sink_(sink) {}

  bool Take(const Json& event) {
    latest_ = SteadyClock::now();
    if (const auto it = event.find("prompt_tokens"); it != event.end() && it->is_number_integer()) {
      answer_.prompt_tokens = it->get<std::int32_t>();
    }
    if (const auto it = event.find("usage"); it != event.end() && it->is_object()) TakeUsage(*it);
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array() || choices->empty() || !choices->front().is_object())
      return true;
    TakeChoice(choices->front());
    return true;
  }
  void Finish() {
    answer_.message.content = answer_.text;
    answer_.prompt_s = SecondsBetween(start_, answer_.tokens.empty() ? latest_ : first_);
    answer_.decode_s = answer_.tokens.empty() ? 0 : SecondsBetween(first_, last_);
  }

 private:
  void TakeUsage(const Json& usage) {
    const auto details = usage.find("prompt_tokens_details");
    if (details == usage.end() || !details->is_object()) return;
    const auto cached = details->find("cached_tokens");
    if (cached != details->end() && cached->is_number_integer()) answer_.reused_tokens = cached->get<std::int32_t>();
  }
  void TakeChoice(const Json& choice) {
    if (const auto ids = choice.find("token_ids"); ids != choice.end() && ids->is_array() && !ids->empty()) {
      if (answer_.tokens.empty()) first_ = latest_;
      last_ = latest_;
      for (const Json& id : *ids)
        if (id.is_number_integer()) answer_.tokens.push_back(id.get<TokenId>());
    }
    Add(choice, "text", TextKind::kContent, answer_.text);
    if (const auto delta = choice.find("delta"); delta != choice.end() && delta->is_object()) {
      Add(*delta, "reasoning_content", TextKind::kReasoning, answer_.message.reasoning);
      Add(*delta, "content", TextKind::kContent, answer_.text);
    }
    const auto reason = choice.find("finish_reason");
    if (reason != choice.end() && reason->is_string()) answer_.finish = reason->get<std::string>();
  }
  void Add(const Json& object, const char* key, TextKind kind, std::string& text) {
    const auto it = object.find(key);
    if (it == object.end() || !it->is_string() || it->get_ref<const std::string&>().empty()) return;
    text += it->get_ref<const std::string&>();
    sink_(kind, it->get_ref<const std::string&>());
  }

  Answer& answer_;
  const TextSink& sink_;
  const SteadyClock::time_point start_ = SteadyClock::now();
  SteadyClock::time_point first_ = start_, last_ = start_, latest_ = start_;
};

class Cluster final : public Conversation {
 public:
  Cluster(const ControlClient& client, const RunOptions& options, SamplingParams sampling, std::string model)
      : client_(client),
        options_(options),
        sampling_(std::move(sampling)),
        model_(std::move(model)),
        turns_(options.system) {}

  Result<Answer> Ask(const std::string& prompt, const TextSink& sink) override {
    Json body = CommonFields(options_, sampling_, model_);
    if (options_.raw) {
      body["prompt"] = prompt;
      body["max_tokens"] = options_.tokens_max > 0 ? options_.tokens_max : kTokensMaxUnbounded;
      return Send("/v1/completions", body, sink);
    }
    if (options_.tokens_max > 0) body["max_tokens"] = options_.tokens_max;
    if (!options_.json_schema.empty()) {
      Json schema;
      if (const auto error = ParseJson(options_.json_schema, schema)) {
        return Error{ErrorCode::kInvalidArgument, "--json-schema: " + error->message};
      }
      body["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"name", "answer"}, {"schema", schema}}}};
    }
    turns_.AddUser(prompt);
    body["messages"] = turns_.messages();
    Result<Answer> answer = Send("/v1/chat/completions", body, sink);
    answer.ok() ? turns_.AddAssistant(answer->text) : turns_.TakeBack();
    return answer;
  }

  void Forget() override { turns_.Forget(); }
  std::string model_name() const override { return model_; }

  Json StagesJson() const override {
    Json list = Json::array();
    for (const PlacedStage& s : Stages()) {
      list.push_back({{"node", s.node},
                      {"name", s.name},
                      {"layers", std::to_string(s.layers.first) + "-" + std::to_string(s.layers.last - 1)},
                      {"first", s.layers.first},
                      {"last", s.layers.last - 1}});
    }
    return list;
  }

  std::string StagesText() const override {
    std::vector<std::vector<std::string>> rows{{"stage", "layers", "node"}};
    for (const PlacedStage& s : Stages()) {
      rows.push_back({std::to_string(rows.size() - 1),
                      std::to_string(s.layers.first) + "-" + std::to_string(s.layers.last - 1), s.name});
    }
    return FormatTable(rows);
  }

 private:
  // Where the model is now: it may have moved since.
  std::vector<PlacedStage> Stages() const {
    const Result<ClusterStatus> status = client_.GetStatus();
    const PlacementStatus* placement = status.ok() ? FindLive(*status, model_) : nullptr;
    return placement != nullptr ? placement->stages : std::vector<PlacedStage>{};
  }

  Result<Answer> Send(const std::string& path, const Json& body, const TextSink& sink) {
    Answer answer;
    StreamReader reader(answer, sink);
    const Status status = client_.Stream(path, DumpJson(body), [&](const Json& event) { return reader.Take(event); });
    reader.Finish();
    if (Interrupted() && answer.finish.empty()) {
      answer.finish = "interrupted";
      return answer;
    }
    if (!status.ok()) return status.error();
    return answer;
  }

  const ControlClient& client_;
  const RunOptions& options_;
  const SamplingParams sampling_;
  const std::string model_;
  Turns turns_;
};

}  // namespace

Result<std::unique_ptr<Conversation>> ClusterConversation(const ControlClient& client, const RunOptions& options,
                                                          SamplingParams sampling) {
  if (!options.local_only.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 options.local_only + " applies to a run in this process only: add --local"};
  }
  SHOAL_ASSIGN_OR_RETURN(const ClusterStatus status, client.GetStatus());
  std::string name = options.model.model;
  if (FindLive(status, name) == nullptr) {
    SHOAL_ASSIGN_OR_RETURN(name, ObtainModel(name, &status, options.model.quiet));
  }
  if (const PlacementStatus* live = FindLive(status, name)) {
    name = live->model;
    if (options.placing_given && !options.model.quiet) {
      std::fprintf(stderr, "shoal: %s is placed already and stays as it is; `shoal place` changes that\n",
                   name.c_str());
    }
  } else {
    if (!options.model.quiet) { std::fprintf(stderr, "shoal: placing %s on the cluster\n", NameOf(name).c_str()); }
    PlaceCommand command;
    command.model = ModelForNode(name);
    if (options.stages_given) command.stages = options.model.stages;
    command.context_tokens = options.model.context;
    command.slots = options.model.slots;
    command.wire = options.model.wire;
    TransferBar bar(!options.model.quiet);
    SHOAL_ASSIGN_OR_RETURN(const PlacementStatus placed,
                           client.Place(command, [&](const auto& nodes) { ShowFetching(bar, nodes); }));
    name = placed.model;
  }
  return std::unique_ptr<Conversation>(
      std::make_unique<Cluster>(client, options, std::move(sampling), std::move(name)));
}

}  // namespace shoal::cli
