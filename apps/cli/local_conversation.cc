// Prompts to a model in this process.
#include "apps/cli/conversation.h"
#include "apps/cli/terminal.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::ordered_json;

class Local final : public Conversation {
 public:
  Local(Node& node, const RunOptions& options, SamplingParams sampling)
      : node_(node), options_(options), sampling_(std::move(sampling)), turns_(options.system) {}

  Result<Answer> Ask(const std::string& prompt, const TextSink& sink) override {
    AnswerRequest request;
    request.sampling = sampling_;
    request.tokens_max = options_.tokens_max;
    request.stops = options_.stops;
    if (options_.raw || node_.chat_template() == nullptr) {
      SHOAL_ASSIGN_OR_RETURN(request.prompt, node_.vocabulary().Tokenize(prompt, true, true));
      return GenerateAnswer(node_, std::move(request), sink);
    }
    turns_.AddUser(prompt);
    Result<Answer> answer = AskChat(std::move(request), sink);
    answer.ok() ? turns_.AddAssistant(answer->text) : turns_.TakeBack();
    return answer;
  }

  void Forget() override { turns_.Forget(); }
  std::string model_name() const override { return node_.model().id; }
  Json StagesJson() const override;
  std::string StagesText() const override { return StageTable(node_.Report()); }

 private:
  Result<Answer> AskChat(AnswerRequest request, const TextSink& sink) {
    ChatRequest chat;
    chat.messages_json = DumpJson(turns_.messages());
    chat.json_schema = options_.json_schema;
    chat.grammar = sampling_.grammar;
    SHOAL_ASSIGN_OR_RETURN(request.chat, node_.chat_template()->Render(chat));
    request.prompt = request.chat->tokens;
    return GenerateAnswer(node_, std::move(request), sink);
  }

  Node& node_;
  const RunOptions& options_;
  const SamplingParams sampling_;
  Turns turns_;
};

Json Local::StagesJson() const {
  Json list = Json::array();
  for (const StageReport& s : node_.Report()) {
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

}  // namespace

std::unique_ptr<Conversation> LocalConversation(Node& node, const RunOptions& options, SamplingParams sampling) {
  return std::make_unique<Local>(node, options, std::move(sampling));
}

Turns::Turns(const std::string& system) : system_(system) { Forget(); }

void Turns::Forget() {
  messages_ = Json::array();
  if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
}

void Turns::AddUser(const std::string& text) { messages_.push_back({{"role", "user"}, {"content", text}}); }
void Turns::AddAssistant(const std::string& text) { messages_.push_back({{"role", "assistant"}, {"content", text}}); }
void Turns::TakeBack() { messages_.erase(messages_.size() - 1); }

}  // namespace shoal::cli
