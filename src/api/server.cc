// The routes, and what happens to every request before its route: CORS, key, limits. One place, in order.
#include "api/server.h"

#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <optional>
#include <thread>

#include "api/answering.h"
#include "api/control_server.h"
#include "api/http_server.h"
#include "api/openai_responses.h"
#include "api/unix_socket.h"
#include "base/check.h"
#include "base/log.h"
#include "base/thread_name.h"

namespace shoal {
namespace {

constexpr const char* kJsonType = "application/json";
constexpr std::string_view kModelPrefix = "/v1/models/";
constexpr std::string_view kStreamPrefix = "/v1/stream/";

struct Route {
  std::string_view name;
  const char* methods;
  bool needs_key;
  bool control = false;
};

// The route of a path; its name labels the metrics. None: 404. `control`: /control/ is served too.
std::optional<Route> FindRoute(std::string_view path, bool control) {
  static constexpr Route kRoutes[] = {
      {"/health", "GET, HEAD, OPTIONS", false},   {"/metrics", "GET, HEAD, OPTIONS", true},
      {"/v1/models", "GET, HEAD, OPTIONS", true}, {"/v1/chat/completions", "POST, OPTIONS", true},
      {"/v1/completions", "POST, OPTIONS", true},
  };
  for (const Route& route : kRoutes)
    if (route.name == path) return route;
  for (const ControlRoute& route : kControlRoutes)
    if (control && route.path == path) return Route{route.path, route.posted ? "POST" : "GET, HEAD", true, true};
  if (path.size() > kModelPrefix.size() && path.substr(0, kModelPrefix.size()) == kModelPrefix) {
    return Route{"/v1/models/{id}", "GET, HEAD, OPTIONS", true};
  }
  if (path.size() > kStreamPrefix.size() && path.substr(0, kStreamPrefix.size()) == kStreamPrefix) {
    return Route{"/v1/stream/{id}", "GET, OPTIONS", true};
  }
  return std::nullopt;
}

bool Allows(const Route& route, std::string_view method) {
  return (std::string(", ") + route.methods + ",").find(", " + std::string(method) + ",") != std::string::npos;
}

// Takes as long for any wrong key of any length as for the right one.
bool SameKey(std::string_view given, std::string_view key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < key.size(); ++i) {
    const char c = given.empty() ? '\0' : given[i % given.size()];
    difference |= static_cast<unsigned char>(c) ^ static_cast<unsigned char>(key[i]);
  }
  return difference == 0;
}

std::string BearerOf(const httplib::Request& request) {
  constexpr std::string_view kScheme = "Bearer ";  // its letters may be of any case
  const std::string header = request.get_header_value("Authorization");
  return strncasecmp(header.c_str(), kScheme.data(), kScheme.size()) == 0 ? header.substr(kScheme.size()) : "";
}

ClientAsk AskOf(const httplib::Request& request, Dialect dialect) {
  ClientAsk ask;
  ask.dialect = dialect;
  ask.idempotency_key = request.get_header_value("Idempotency-Key");
  ask.api_key = BearerOf(request);
  ask.last_event_id = request.get_header_value("Last-Event-ID");
  ask.keep = request.get_header_value("Shoal-Keep") == "true";
  return ask;
}

class ServerImpl final : public Server {
 public:
  ServerImpl(std::shared_ptr<Service> service, const ServerOptions& options, std::shared_ptr<ControlService> control);
  ~ServerImpl() override { Stop(0); }
  Status Start() override;
  int port() const override { return port_; }
  void Stop(int drain_ms) override;

 private:
  using Handler = std::function<Reply(const httplib::Request&, std::string_view body, const ClientLink&)>;
  using Handled = httplib::Server::HandlerResponse;

  void InstallHandlers();
  void InstallPosts();
  bool Bind();
  std::optional<Route> RouteOf(std::string_view path) const { return FindRoute(path, control_ != nullptr); }
  Handled BeforeRouting(const httplib::Request& request, httplib::Response& response);
  void Preflight(const httplib::Request& request, const Route& route, httplib::Response& response) const;
  void Get(const httplib::Request& request, httplib::Response& response);
  void Post(const Handler& handler, const httplib::Request& request, httplib::Response& response,
            const httplib::ContentReader& read);
  Handled FillError(httplib::Response& response);
  ClientLink LinkOf(const httplib::Request& request) const;
  void Send(const ApiError& error, httplib::Response& response) const;
  void Send(Reply reply, const httplib::Request& request, httplib::Response& response) const;

  const std::shared_ptr<Service> service_;
  const std::shared_ptr<ControlService> control_;
  const ServerOptions options_;
  ApiMetrics metrics_;
  std::unique_ptr<Answers> own_answers_;  // where the service has none
  ApiContext context_;
  std::atomic<bool> draining_{false}, aborting_{false};
  std::unique_ptr<HttpServer> http_;
  std::thread listener_;
  int port_ = 0;
};

ConnectionLimits LimitsOf(const ServerOptions& options) {
  ConnectionLimits limits;
  limits.read_timeout = std::chrono::seconds(options.read_timeout_s);
  return limits;
}

std::unique_ptr<Answers> MakeAnswers(MetricsRegistry& registry, const ServerOptions& options) {
  AnswersOptions answers;
  answers.generations_max = options.requests_max;
  answers.grace = std::chrono::milliseconds(options.keep_grace_ms);
  return std::make_unique<Answers>(registry, answers);
}

ServerImpl::ServerImpl(std::shared_ptr<Service> service, const ServerOptions& options,
                       std::shared_ptr<ControlService> control)
    : service_(std::move(service)),
      control_(std::move(control)),
      options_(options),
      metrics_(service_->metrics()),
      own_answers_(service_->answers() == nullptr ? MakeAnswers(service_->metrics(), options) : nullptr),
      context_{*service_, own_answers_ ? *own_answers_ : *service_->answers(), service_->answer_peers(),
               std::chrono::milliseconds(options.stream_comment_ms)},
      http_(std::make_unique<HttpServer>(LimitsOf(options), options.connections_max, metrics_.connections)) {
  InstallHandlers();
  InstallPosts();
}

void ServerImpl::InstallHandlers() {
  http_->set_tcp_nodelay(true);
  // Not SO_REUSEPORT: two servers on one port must be an error.
  http_->set_socket_options([](socket_t sock) { httplib::set_socket_opt(sock, SOL_SOCKET, SO_REUSEADDR, 1); });
  http_->set_payload_max_length(options_.body_bytes_max);
  http_->set_keep_alive_timeout(15);
  if (!options_.cors_origin.empty()) {
    httplib::Headers headers{{"Access-Control-Allow-Origin", options_.cors_origin},
                             {"Access-Control-Expose-Headers", "x-request-id, Retry-After"}};
    if (options_.cors_origin != "*") headers.emplace("Vary", "Origin");
    http_->set_default_headers(std::move(headers));
  }
  http_->set_pre_routing_handler(
      [this](const auto& request, auto& response) { return BeforeRouting(request, response); });
  http_->set_error_handler(
      [this](const httplib::Request&, httplib::Response& response) { return FillError(response); });
  http_->set_exception_handler([this](const auto&, auto& response, std::exception_ptr e) {
    try {
      std::rethrow_exception(std::move(e));
    } catch (const std::exception& what) {
      Log(LogLevel::kError, "api", std::string("a request failed: ") + what.what());
    } catch (...) { Log(LogLevel::kError, "api", "a request failed"); }
    Send(FromStatus(500), response);
  });
  http_->set_logger([this](const httplib::Request& request, const httplib::Response& response) {
    // cpp-httplib says Connection: close with every error; what follows a bad request line is not a request.
    if (response.status >= 400) Connection::Current()->close_after_response = true;
    const auto route = RouteOf(request.path);
    metrics_.CountRequest(std::string(route ? route->name : "other"), response.status);
  });
}

void ServerImpl::InstallPosts() {
  const auto post = [this](const std::string& path, Handler handler) {
    http_->Post(path, [this, handler = std::move(handler)](const httplib::Request& request, httplib::Response& response,
                                                           const httplib::ContentReader& read) {
      Post(handler, request, response, read);
    });
  };
  for (const auto& [path, dialect] :
       {std::pair("/v1/chat/completions", Dialect::kChat), std::pair("/v1/completions", Dialect::kCompletions)}) {
    post(path, [this, dialect = dialect](const auto& request, auto body, const auto& link) {
      return AnswerPost(context_, AskOf(request, dialect), body, link);
    });
  }
  if (control_ == nullptr) return;
  for (const ControlRoute& route : kControlRoutes) {
    if (!route.posted) continue;
    post(std::string(route.path), [this, path = route.path](const auto&, auto body, const auto&) {
      return AnswerControl(*control_, path, body);
    });
  }
}

bool ServerImpl::Bind() {
  if (options_.unix_socket.empty()) {
    port_ = options_.port;
    if (port_ != 0) return http_->bind_to_port(options_.host, port_);
    return (port_ = http_->bind_to_any_port(options_.host)) > 0;
  }
  http_->set_address_family(AF_UNIX);
  // The file has its mode from the start. Files that other threads make in this instant are only more private.
  const mode_t mask = ::umask(0177);
  const bool bound = http_->bind_to_port(options_.unix_socket, 1);  // the port is passed over, but 0 has a meaning
  ::umask(mask);
  return bound;
}

Status ServerImpl::Start() {
  if (!options_.unix_socket.empty()) SHOAL_RETURN_IF_ERROR(FreeSocketPath(options_.unix_socket));
  if (!Bind()) {
    if (!options_.unix_socket.empty()) {
      return Error{ErrorCode::kUnavailable, "Cannot listen on '" + options_.unix_socket +
                                                "': its folder is absent or does not let this user write."};
    }
    return Error{ErrorCode::kUnavailable, "Cannot listen on " + options_.host + " port " +
                                              std::to_string(options_.port) +
                                              ": the port is in use, or the host is not an address of this machine."};
  }
  listener_ = std::thread([this] {
    NameThisThread("shoal-listener");
    http_->listen_after_bind();
  });
  http_->wait_until_ready();
  return {};
}

void ServerImpl::Stop(int drain_ms) {
  draining_ = true;
  http_->StopKeepingAlive();
  if (!listener_.joinable()) return;
  if (!options_.unix_socket.empty()) ::unlink(options_.unix_socket.c_str());
  http_->stop();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(drain_ms);
  while (http_->answering() > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  aborting_ = true;
  http_->CloseAll();
  listener_.join();
  if (own_answers_) own_answers_->Stop();
}

// Everything that can be said of a request by its line and headers. What passes here has a route that takes it.
ServerImpl::Handled ServerImpl::BeforeRouting(const httplib::Request& request, httplib::Response& response) {
  Connection::Current()->BeginBody();
  response.set_header("x-request-id", MakeId("req_"));
  const auto refuse = [&](const ApiError& error) {
    Send(error, response);
    return Handled::Handled;
  };
  const auto route = RouteOf(request.path);
  if (route && request.method == "OPTIONS") return Preflight(request, *route, response), Handled::Handled;
  // Without a key even what exists is not told.
  if (!options_.api_key.empty() && (!route || route->needs_key)) {
    if (!SameKey(BearerOf(request), options_.api_key)) {
      response.set_header("WWW-Authenticate", "Bearer");
      return refuse(FromStatus(401));
    }
  }
  if (!route) return refuse(FromStatus(404));
  if (!Allows(*route, request.method)) {
    response.set_header("Allow", route->methods);
    return refuse(FromStatus(405));
  }
  if (draining_ && route->name != "/health") return refuse(FromStatus(503, "The server is stopping."));
  if (request.method != "POST") return Get(request, response), Handled::Handled;
  if (request.get_header_value_u64("Content-Length") > options_.body_bytes_max) return refuse(FromStatus(413));
  if (request.is_multipart_form_data()) return refuse(FromStatus(415));
  return Handled::Unhandled;
}

// https://fetch.spec.whatwg.org/#http-cors-protocol: browsers ask without credentials, so no key is wanted here.
void ServerImpl::Preflight(const httplib::Request& request, const Route& route, httplib::Response& response) const {
  response.status = 204;
  response.set_header("Allow", route.methods);
  if (options_.cors_origin.empty()) return;
  const std::string wanted = request.get_header_value("Access-Control-Request-Headers");
  response.set_header("Access-Control-Allow-Methods", route.methods);
  response.set_header("Access-Control-Allow-Headers", wanted.empty() ? "Authorization, Content-Type" : wanted);
  response.set_header("Access-Control-Max-Age", "86400");
}

void ServerImpl::Get(const httplib::Request& request, httplib::Response& response) {
  if (request.path == "/health") {
    const bool healthy = service_->healthy() && !draining_;
    response.status = healthy ? 200 : 503;
    response.set_content(healthy ? R"({"status":"ok"})" : R"({"status":"unavailable"})", kJsonType);
  } else if (request.path == "/metrics") {
    service_->RefreshMetrics();
    response.set_content(service_->metrics().PrometheusText(), "text/plain; version=0.0.4; charset=utf-8");
  } else if (request.path == "/v1/models") {
    response.set_content(ModelListObject(service_->models()), kJsonType);
  } else if (RouteOf(request.path)->control) {
    Send(AnswerControl(*control_, request.path, ""), request, response);
  } else if (request.path.compare(0, kStreamPrefix.size(), kStreamPrefix) == 0) {
    http_->BeginAnswer();
    Send(AnswerResume(context_, request.path.substr(kStreamPrefix.size()), request.get_header_value("Last-Event-ID"),
                      LinkOf(request)),
         request, response);
  } else {
    const std::string id = request.path.substr(kModelPrefix.size());
    if (const std::shared_ptr<Backend> backend = service_->Find(id))
      response.set_content(ModelObject(backend->model()), kJsonType);
    else
      Send(ModelNotFound(id), response);
  }
}

void ServerImpl::Post(const Handler& handler, const httplib::Request& request, httplib::Response& response,
                      const httplib::ContentReader& read) {
  std::string body;
  // cpp-httplib counts the bytes, compressed or not, and stops with 413 at body_bytes_max.
  const bool complete = read([&](const char* data, std::size_t size) {
    body.append(data, size);
    return true;
  });
  if (!complete) {  // FillError says what is wrong, by the status
    if (response.status < 400) response.status = 400;
    return;
  }
  http_->BeginAnswer();
  Send(handler(request, body, LinkOf(request)), request, response);
}

ClientLink ServerImpl::LinkOf(const httplib::Request& request) const {
  return {[this, &gone = request.is_connection_closed] { return aborting_.load() || gone(); }};
}

void ServerImpl::Send(const ApiError& error, httplib::Response& response) const {
  response.status = error.status;
  if (error.retry_after_s > 0) response.set_header("Retry-After", std::to_string(error.retry_after_s));
  response.set_content(ErrorBody(error), kJsonType);
}

void ServerImpl::Send(Reply reply, const httplib::Request& request, httplib::Response& response) const {
  if (reply.status == kClientLeftStatus && aborting_.load()) {
    reply = ErrorReply(FromStatus(503, "The server is stopping."));
  }
  response.status = reply.status;
  if (reply.retry_after_s > 0) response.set_header("Retry-After", std::to_string(reply.retry_after_s));
  if (!reply.stream) return response.set_content(std::move(reply.body), kJsonType);

  class HttplibSink final : public EventSink {
   public:
    explicit HttplibSink(httplib::DataSink& sink) : sink_(sink) {}
    bool Write(std::string_view bytes) override { return ok_ = ok_ && sink_.write(bytes.data(), bytes.size()); }
    bool ok() const { return ok_; }

   private:
    httplib::DataSink& sink_;
    bool ok_ = true;
  };
  response.set_header("Cache-Control", "no-cache");
  response.set_header("X-Accel-Buffering", "no");  // nginx would hold events back
  // The whole stream is written in one call, so that a stopping server lets it end.
  const auto provider = [stream = std::move(reply.stream)](std::size_t, httplib::DataSink& out) {
    HttplibSink sink(out);
    stream(sink);
    if (sink.ok()) out.done();
    return sink.ok();
  };
  if (request.version == "HTTP/1.0") {  // knows no chunks: the stream ends with the connection
    Connection::Current()->close_after_response = true;
    response.set_content_provider("text/event-stream", provider);
  } else {
    response.set_chunked_content_provider("text/event-stream", provider);
  }
}

// Errors that cpp-httplib finds have a status and no body. Ours have both.
ServerImpl::Handled ServerImpl::FillError(httplib::Response& response) {
  if (!response.body.empty()) return Handled::Unhandled;
  const Connection* connection = Connection::Current();
  if (connection->timed_out())
    response.status = 408;
  else if (!connection->in_body() && response.status == 400 && connection->header_bytes() > 8192)
    response.status = 431;
  Send(FromStatus(response.status), response);
  return Handled::Handled;
}

}  // namespace

std::unique_ptr<Server> Server::Make(std::shared_ptr<Service> service, const ServerOptions& options,
                                     std::shared_ptr<ControlService> control) {
  SHOAL_CHECK(control == nullptr || !options.unix_socket.empty());
  return std::make_unique<ServerImpl>(std::move(service), options, std::move(control));
}

}  // namespace shoal
