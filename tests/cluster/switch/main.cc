// shoal_test_switch SOCKET [SEED]: an Ethernet switch for tests, in one process; control.h lists its commands.
//
// Prints "ready" when SOCKET accepts commands; ends when its standard input does, so that it never outlives the test
// that started it. Sleeps between frames; a frame leaves within some 50 us of its time on an idle core.
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "control.h"

namespace shoal::test_switch {
namespace {

constexpr std::size_t kClientsMax = 16, kLineBytesMax = 64 << 10;
constexpr int kFramesPerTurn = 64;  // of one port before the others and the clock are looked at again

struct Client {
  int fd = -1;
  std::string input;
};

std::int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

int Listen(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof(address.sun_path)) return -1;
  std::strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0 || listen(fd, 4) < 0) {
    return -1;
  }
  return fd;
}

// Delays are only as good as the scheduler lets them be: before everything else where that is allowed.
void AskForPrecision() {
  prctl(PR_SET_TIMERSLACK, 1);
  sched_param priority{.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) setpriority(PRIO_PROCESS, 0, -10);
}

class Loop {
 public:
  Loop(int listener, std::uint64_t seed) : listener_(listener), fabric_(seed) {}

  void Run() {
    while (Turn()) {}
  }

 private:
  // One wait and what came of it. False: standard input ended.
  bool Turn() {
    const std::vector<pollfd> ready = Wait();
    if (ready[0].revents) return false;
    if (ready[1].revents) Accept();
    std::size_t at = 2;
    // Commands may change the ports: frames first.
    std::vector<PortId> gone;
    for (auto& [id, tap] : ports_.taps) {
      const short events = ready[at++].revents;
      if (events & POLLERR) {
        gone.push_back(id);  // with its namespace
      } else if (events) {
        ReadFrames(id, *tap);
      }
    }
    for (const PortId id : gone) Remove(id);
    for (std::size_t i = 0; at < ready.size(); ++at, ++i) {
      if (ready[at].revents) ReadCommands(clients_[i]);
    }
    std::erase_if(clients_, [](const Client& client) { return client.fd < 0; });
    while (auto due = fabric_.PopDue(NowNs())) {
      const auto tap = ports_.taps.find(due->to);
      if (tap != ports_.taps.end()) tap->second->Write(*due->frame);
    }
    return true;
  }

  // Standard input, the listener, the ports in their order, the clients in theirs.
  std::vector<pollfd> Wait() {
    std::vector<pollfd> fds = {{STDIN_FILENO, POLLIN, 0}, {listener_, POLLIN, 0}};
    for (const auto& [_, tap] : ports_.taps) fds.push_back({tap->fd(), POLLIN, 0});
    for (const Client& client : clients_) fds.push_back({client.fd, POLLIN, 0});
    timespec timeout{};
    const auto due = fabric_.NextDue();
    if (due) {
      const std::int64_t wait_ns = std::max<std::int64_t>(0, *due - NowNs());
      timeout = {.tv_sec = wait_ns / 1'000'000'000, .tv_nsec = wait_ns % 1'000'000'000};
    }
    if (ppoll(fds.data(), fds.size(), due ? &timeout : nullptr, nullptr) <= 0) {
      for (pollfd& fd : fds) fd.revents = 0;
    }
    return fds;
  }

  void ReadFrames(PortId port, Tap& tap) {
    for (int i = 0; i < kFramesPerTurn; ++i) {
      auto frame = tap.Read();
      if (!frame) return;
      fabric_.Receive(port, std::move(frame), NowNs());
    }
  }

  void Remove(PortId port) {
    fabric_.RemovePort(port);
    ports_.taps.erase(port);
    std::erase_if(ports_.ids, [&](const auto& entry) { return entry.second == port; });
  }

  void Accept() {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    if (clients_.size() >= kClientsMax) {
      close(fd);
      return;
    }
    clients_.push_back({fd, {}});
  }

  void ReadCommands(Client& client) {
    char buffer[4096];
    const ssize_t got = recv(client.fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got > 0) client.input.append(buffer, static_cast<std::size_t>(got));
    bool open = got > 0 || (got < 0 && errno == EAGAIN);
    std::size_t end = 0;
    while (open && (end = client.input.find('\n')) != std::string::npos) {
      const std::string answer = RunCommand(client.input.substr(0, end), fabric_, ports_) + "\n";
      client.input.erase(0, end + 1);
      open = send(client.fd, answer.data(), answer.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(answer.size());
    }
    if (open && client.input.size() <= kLineBytesMax) return;
    close(client.fd);
    client.fd = -1;
  }

  const int listener_;
  Fabric fabric_;
  Ports ports_;
  std::vector<Client> clients_;
};

}  // namespace
}  // namespace shoal::test_switch

int main(int argc, char** argv) {
  using namespace shoal::test_switch;
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: shoal_test_switch SOCKET [SEED]\n");
    return 2;
  }
  const int listener = Listen(argv[1]);
  if (listener < 0) {
    std::fprintf(stderr, "%s: %s\n", argv[1], std::strerror(errno));
    return 1;
  }
  AskForPrecision();
  std::printf("ready\n");
  std::fflush(stdout);
  Loop(listener, argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 1).Run();
  unlink(argv[1]);
  return 0;
}
