// rpc_client MODEL ENDPOINTS FIRST TEXT: llama.cpp with layers FIRST.. and the output head at an RPC server, HOST:PORT;
// the layers before them are computed here, with one thread, or by another server: HOST:PORT,HOST:PORT.
//
// Commands come as lines on standard input, each is answered by one line of JSON:
//   tokens N                              the first N tokens of the file TEXT, read over and over
//   prefill N UBATCH                      seconds until the token after an N-token prompt is known
//   decode STREAMS PROMPT TOKENS          seconds and tokens of the steps after each stream's first token; greedy
// Measures what bench/rpc.py asks for; knows nothing of shoal. Errors end the program with a sentence.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "ggml-rpc.h"
#include "llama.h"

namespace {

constexpr std::int32_t kContextTokens = 4096;  // as a placement of shoal has by default, and its slots
constexpr std::int32_t kSequences = 8;

using SteadyClock = std::chrono::steady_clock;

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "rpc_client: %s\n", why.c_str());
  std::exit(1);
}

class Client {
 public:
  Client(const std::string& model_path, const std::string& endpoints, std::int32_t first,
         const std::string& text_path) {
    std::vector<ggml_backend_dev_t> devices = Devices(endpoints);
    const std::int32_t layers = LayersOf(model_path);
    // Of the layers and the output head: what the first of two servers has; half a layer less, to be safe of rounding.
    float shares[16] = {static_cast<float>(first) - 0.5F, static_cast<float>(layers + 1 - first) + 0.5F};
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = layers + 1;
    if (devices.size() == 2) {
      params.n_gpu_layers = layers + 1 - first;  // the last ones, and the output head
    } else {
      params.tensor_split = shares;
    }
    params.devices = devices.data();
    params.progress_callback = [](float, void*) { return true; };  // else dots on standard error
    model_ = llama_model_load_from_file(model_path.c_str(), params);
    if (model_ == nullptr) Die("cannot load " + model_path);
    vocabulary_ = llama_model_get_vocab(model_);
    n_vocab_ = llama_vocab_n_tokens(vocabulary_);
    Tokenize(text_path);
  }

  ~Client() {
    llama_free(context_);
    llama_model_free(model_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  std::string Tokens(std::int32_t n) const {
    std::string list;
    for (std::int32_t i = 0; i < n; ++i) list += (i == 0 ? "" : ",") + std::to_string(Token(i));
    return "{\"tokens\":[" + list + "]}";
  }

  std::string Prefill(std::int32_t n, std::int32_t micro_batch) {
    Open(micro_batch);
    const auto start = SteadyClock::now();
    Add(0, 0, n);
    Decode();
    static_cast<void>(Greedy(-1));
    return Seconds(start, 1);
  }

  std::string DecodeStreams(std::int32_t streams, std::int32_t prompt, std::int32_t tokens) {
    Open(std::min(streams * prompt, 512));
    std::vector<llama_token> next(static_cast<std::size_t>(streams));
    for (std::int32_t s = 0; s < streams; ++s) {
      Add(s, s * prompt, prompt);
      Decode();
      next[static_cast<std::size_t>(s)] = Greedy(-1);
    }
    const auto start = SteadyClock::now();
    for (std::int32_t step = 1; step < tokens; ++step) {
      for (std::int32_t s = 0; s < streams; ++s) Put(next[static_cast<std::size_t>(s)], prompt + step - 1, s, true);
      Decode();
      for (std::int32_t s = 0; s < streams; ++s) next[static_cast<std::size_t>(s)] = Greedy(s);
    }
    return Seconds(start, (tokens - 1) * streams);
  }

 private:
  // One for each endpoint, and null.
  static std::vector<ggml_backend_dev_t> Devices(const std::string& endpoints) {
    std::vector<ggml_backend_dev_t> devices;
    std::istringstream in(endpoints);
    for (std::string endpoint; std::getline(in, endpoint, ',');) {
      const ggml_backend_reg_t server = ggml_backend_rpc_add_server(endpoint.c_str());
      if (server == nullptr || ggml_backend_reg_dev_count(server) == 0) Die("no RPC server at " + endpoint);
      ggml_backend_register(server);
      devices.push_back(ggml_backend_reg_dev_get(server, 0));
    }
    if (devices.empty() || devices.size() > 2) Die("one or two endpoints");
    devices.push_back(nullptr);
    return devices;
  }

  static std::int32_t LayersOf(const std::string& path) {
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    llama_model* model = llama_model_load_from_file(path.c_str(), params);
    if (model == nullptr) Die("cannot read " + path);
    const std::int32_t layers = llama_model_n_layer(model);
    llama_model_free(model);
    return layers;
  }

  void Tokenize(const std::string& path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    const std::string bytes = text.str();
    text_.resize(bytes.size() + 8);
    const std::int32_t n = llama_tokenize(vocabulary_, bytes.data(), static_cast<std::int32_t>(bytes.size()),
                                          text_.data(), static_cast<std::int32_t>(text_.size()), false, false);
    if (n <= 0) Die("no text in " + path);
    text_.resize(static_cast<std::size_t>(n));
  }

  llama_token Token(std::int32_t at) const { return text_[static_cast<std::size_t>(at) % text_.size()]; }

  // A context as shoal's engine makes it, but for what is at the server. Empty afterwards.
  void Open(std::int32_t micro_batch) {
    if (context_ == nullptr || llama_n_ubatch(context_) != static_cast<std::uint32_t>(micro_batch)) {
      llama_free(context_);
      llama_context_params params = llama_context_default_params();
      params.n_ctx = kContextTokens;
      params.n_batch = kContextTokens;
      params.n_ubatch = static_cast<std::uint32_t>(micro_batch);
      params.n_seq_max = kSequences;
      params.n_outputs_max = kSequences;
      params.n_threads = params.n_threads_batch = 1;
      params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
      params.swa_full = true;
      params.kv_unified = true;
      context_ = llama_init_from_model(model_, params);
      if (context_ == nullptr) Die("no context");
      batch_ = llama_batch_init(kContextTokens, 0, 1);
      Put(Token(0), 0, 0, true);  // the first graph is built and sent before anything is measured
      Decode();
      static_cast<void>(Greedy(-1));
    }
    llama_memory_clear(llama_get_memory(context_), true);
    batch_.n_tokens = 0;
  }

  void Put(llama_token token, llama_pos position, llama_seq_id sequence, bool output) {
    const std::int32_t i = batch_.n_tokens++;
    batch_.token[i] = token;
    batch_.pos[i] = position;
    batch_.n_seq_id[i] = 1;
    batch_.seq_id[i][0] = sequence;
    batch_.logits[i] = output ? 1 : 0;
  }

  void Add(llama_seq_id sequence, std::int32_t from, std::int32_t n) {
    for (std::int32_t i = 0; i < n; ++i) Put(Token(from + i), i, sequence, i + 1 == n);
  }

  void Decode() {
    if (llama_decode(context_, batch_) != 0) Die("llama_decode failed");
    batch_.n_tokens = 0;
  }

  llama_token Greedy(std::int32_t row) const {
    const float* logits = llama_get_logits_ith(context_, row);
    if (logits == nullptr) Die("no logits");
    return static_cast<llama_token>(std::max_element(logits, logits + n_vocab_) - logits);
  }

  static std::string Seconds(SteadyClock::time_point start, std::int32_t tokens) {
    const double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
    return "{\"seconds\":" + std::to_string(seconds) + ",\"tokens\":" + std::to_string(tokens) + "}";
  }

  llama_model* model_ = nullptr;
  const llama_vocab* vocabulary_ = nullptr;
  std::int32_t n_vocab_ = 0;
  llama_context* context_ = nullptr;
  llama_batch batch_{};
  std::vector<llama_token> text_;
};

std::string Answer(Client& client, const std::string& line) {
  std::istringstream in(line);
  std::string command;
  std::int32_t a = 0, b = 0, c = 0;
  in >> command >> a >> b >> c;
  if (command == "tokens" && a > 0) return client.Tokens(a);
  if (command == "prefill" && a > 0 && a < kContextTokens && b > 0) return client.Prefill(a, b);
  if (command == "decode" && a > 0 && a <= kSequences && b > 0 && c > 1 && a * (b + c) < kContextTokens) {
    return client.DecodeStreams(a, b, c);
  }
  Die("cannot do '" + line + "'");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) Die("usage: rpc_client MODEL ENDPOINT FIRST TEXT");
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  Client client(argv[1], argv[2], std::atoi(argv[3]), argv[4]);
  std::puts("{\"ready\":true}");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::puts(Answer(client, line).c_str());
    std::fflush(stdout);
  }
  return 0;
}
