// The life of a connection: register, requests while both sides want more, linger, close.
#include "api/http_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <string_view>
#include <system_error>

#include "api/errors.h"
#include "base/log.h"
#include "base/thread_name.h"

namespace shoal {
namespace {

constexpr std::size_t kRefusersMax = 16;  // threads beyond connections_max, which only say 503
constexpr std::chrono::seconds kThreadIdle{10};
constexpr std::chrono::milliseconds kLingerMax{2'000};
constexpr std::chrono::milliseconds kRefuseLingerMax{200};

}  // namespace

bool ConnectionThreads::enqueue(std::function<void()> job) {
  std::list<std::thread> ended;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    ended.swap(finished_);
    if (jobs_.size() >= idle_) {
      if (threads_.size() >= threads_max_) return false;
      const auto self = threads_.emplace(threads_.end());
      try {
        *self = std::thread([this, self] {
          NameThisThread("shoal-http");
          Work(self);
        });
      } catch (const std::system_error&) {  // the system gives no more threads: refuse this one connection
        threads_.erase(self);
        return false;
      }
    }
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  for (std::thread& thread : ended) thread.join();
  return true;
}

void ConnectionThreads::Work(std::list<std::thread>::iterator self) {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    wake_.wait_for(lock, kThreadIdle, [&] { return stopping_ || !jobs_.empty(); });
    --idle_;
    if (jobs_.empty()) break;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
  finished_.splice(finished_.end(), threads_, self);
  wake_.notify_all();  // shutdown() waits for the last
}

void ConnectionThreads::shutdown() {
  std::list<std::thread> ended;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
    wake_.wait(lock, [&] { return threads_.empty(); });
    ended.swap(finished_);
  }
  for (std::thread& thread : ended) thread.join();
}

HttpServer::HttpServer(const ConnectionLimits& limits, int connections_max, Gauge& connections)
    : limits_(limits), connections_max_(static_cast<std::size_t>(connections_max)), connections_gauge_(connections) {
  new_task_queue = [this] { return new ConnectionThreads(connections_max_ + kRefusersMax); };
}

bool HttpServer::Register(socket_t sock) {
  const std::lock_guard lock(mutex_);
  if (closing_ || stopping_ || open_.size() >= connections_max_) return false;
  open_[sock] = State::kReading;
  connections_gauge_.Add(1);
  return true;
}

bool HttpServer::SetState(socket_t sock, State state) {
  const std::lock_guard lock(mutex_);
  const bool idle = state == State::kIdle;
  if (closing_ || (stopping_ && idle)) return false;
  open_[sock] = state;
  // When places run short, connections are not kept for requests that may never come.
  return !idle || open_.size() <= connections_max_ * 3 / 4;
}

void HttpServer::BeginAnswer() {
  const std::lock_guard lock(mutex_);
  open_[Connection::Current()->socket()] = State::kAnswering;
}

std::size_t HttpServer::answering() {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::count_if(
      open_.begin(), open_.end(), [](const auto& connection) { return connection.second == State::kAnswering; }));
}

void HttpServer::StopKeepingAlive() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  for (const auto& [sock, state] : open_)
    if (state == State::kIdle) ::shutdown(sock, SHUT_RDWR);
}

void HttpServer::CloseAll() {
  const std::lock_guard lock(mutex_);
  stopping_ = closing_ = true;
  for (const auto& [sock, state] : open_) ::shutdown(sock, SHUT_RDWR);
}

bool HttpServer::process_and_close_socket(socket_t sock) {
  if (!Register(sock)) {
    Refuse(sock);
    return false;
  }
  try {
    Serve(sock);
  } catch (const std::exception& e) {  // from a handler's stream; its status line is already out
    Log(LogLevel::kError, "api", std::string("a connection failed: ") + e.what());
  }
  bool lingering = true;
  {
    const std::lock_guard lock(mutex_);
    open_.erase(sock);  // before the descriptor may be reused
    connections_gauge_.Add(-1);
    lingering = !closing_;
  }
  LingerAndClose(sock, lingering ? kLingerMax : std::chrono::milliseconds(0));
  return true;
}

void HttpServer::Serve(socket_t sock) {
  Connection connection(sock, limits_);
  const Connection::Scope scope(&connection);
  std::string remote, local;
  int remote_port = 0, local_port = 0;
  PeerAddress(sock, remote, remote_port);
  LocalAddress(sock, local, local_port);
  auto wait = limits_.read_timeout;  // a new connection owes its first request
  while (connection.AwaitRequest(wait)) {
    if (!SetState(sock, State::kReading)) return;
    connection.BeginHeaders();
    bool closed = false;
    if (!process_request(connection, remote, remote_port, local, local_port, false, closed, nullptr)) return;
    if (closed || connection.close_after_response || !SetState(sock, State::kIdle)) return;
    wait = limits_.idle_timeout;
  }
}

void HttpServer::Refuse(socket_t sock) {
  const std::string body = ErrorBody(FromStatus(503, "The server has all the connections it can serve."));
  const std::string answer =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
      "Retry-After: 1\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  Connection connection(sock, limits_);
  connection.write(answer.data(), answer.size());  // fits an empty send buffer: does not block
  LingerAndClose(sock, kRefuseLingerMax);
}

}  // namespace shoal
