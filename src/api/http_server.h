// cpp-httplib's server on our connections and threads: every client is counted, timed and can be let go.
//
// Knows HTTP, no routes: server.cc registers those. One thread a connection, connections_max of them; a few more
// threads only refuse (503).
#pragma once

#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_map>

#include <cpp-httplib/httplib.h>

#include "api/connection.h"
#include "base/metrics.h"

namespace shoal {

// Runs jobs on up to `threads_max` threads, which start when needed and end when idle. A job never waits behind another
// while a thread may still be started.
class ConnectionThreads final : public httplib::TaskQueue {
 public:
  explicit ConnectionThreads(std::size_t threads_max) : threads_max_(threads_max) {}
  // False when every thread is busy and none may be started. Never blocks for long.
  bool enqueue(std::function<void()> job) override;
  // Runs what was accepted, then joins all threads.
  void shutdown() override;

 private:
  void Work(std::list<std::thread>::iterator self);

  const std::size_t threads_max_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  std::list<std::thread> threads_, finished_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
};

class HttpServer final : public httplib::Server {
 public:
  HttpServer(const ConnectionLimits& limits, int connections_max, Gauge& connections);

  // From now until its answer is written, the calling thread's request counts as being answered.
  void BeginAnswer();
  // Requests that are being answered. Any thread.
  std::size_t answering();

  // New requests on open connections are the last there; idle connections close now. Any thread.
  void StopKeepingAlive();
  // Every connection's socket is shut down: reads and writes on it fail from now. Any thread.
  void CloseAll();

 private:
  bool process_and_close_socket(socket_t sock) override;
  void Serve(socket_t sock);
  void Refuse(socket_t sock);
  // False when the limit is reached.
  bool Register(socket_t sock);
  enum class State { kIdle, kReading, kAnswering };
  // Marks a registered connection idle or reading. False when it shall not be used on.
  bool SetState(socket_t sock, State state);

  const ConnectionLimits limits_;
  const std::size_t connections_max_;
  Gauge& connections_gauge_;
  std::mutex mutex_;
  std::unordered_map<socket_t, State> open_;
  bool stopping_ = false, closing_ = false;
};

}  // namespace shoal
