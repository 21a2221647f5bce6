// The two ends of `bench/bulk.py`: small round trips beside a large transfer, over the product's own network.
//
//   shoal_bench_bulk_peer serve PORT           answers on PORT, and by a second network on PORT + 1, until it is ended
//   shoal_bench_bulk_peer ask ADDRESS PORT SECONDS ROUNDS   prints a JSON object: by way of the transfer, by round
//
// Ways: "alone" (no transfer), "shared" (the transfer on the connection of the round trips), "bulk" (on the bulk
// connection, as layers travel), "network" (a network of its own: a second thread, port and key). They alternate.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/socket.h"
#include "bench.h"
#include "identity/certificate.h"
#include "identity/keys.h"
#include "transport/libp2p.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

constexpr char kEcho[] = "/shoal/bench-echo/1";
constexpr char kSink[] = "/shoal/bench-sink/1";
constexpr std::size_t kEchoBytes = 16 << 10;   // 14 rows of 576 values in f16
constexpr std::size_t kSinkBytes = 256 << 10;  // of one write
constexpr std::chrono::milliseconds kWarmUp{700};
constexpr std::uint32_t kOpenMs = 5000;

NodeKey KeyOf(std::uint8_t number) {
  return Must(NodeKey::FromSeed(std::vector<std::uint8_t>(NodeKey::kSeedBytes, number)));
}

bool ReadAll(int fd, std::vector<char>& into) {
  for (std::size_t done = 0; done < into.size();) {
    const ssize_t n = ::read(fd, into.data() + done, into.size() - done);
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

bool WriteAll(int fd, const std::vector<char>& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::send(fd, bytes.data() + done, bytes.size() - done, kNoSignal);
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

void Serve(int fd, bool echo) {
  std::vector<char> bytes(echo ? kEchoBytes : kSinkBytes);
  while (ReadAll(fd, bytes) && (!echo || WriteAll(fd, bytes))) {}
  ::close(fd);
}

// A member of the bench's cluster, whose keys are made from `number`.
class Peer {
 public:
  explicit Peer(std::uint8_t number) : key_(KeyOf(number)) {
    const NodeKey cluster = KeyOf(1);
    NetworkOptions options;
    options.seed.assign(key_.seed().begin(), key_.seed().end());
    options.cluster = cluster.id();
    options.certificate = Must(IssueCertificate(cluster, key_.id(), "bench", 1, std::time(nullptr))).encoded;
    options.instance = number;
    network_ = Must(Network::Start(options, [this](NetworkEvent event) { Heard(std::move(event)); }));
    Must(network_->Serve(kEcho));
    Must(network_->Serve(kSink));
  }

  NodeId id() const { return key_.id(); }
  Network& network() { return *network_; }

  void Listen(const std::string& address) {
    Must(network_->Listen(address));
    Wait(NetworkEventKind::kListening);
  }
  void Connect(const std::string& address) {
    Must(network_->Dial(address));
    Wait(NetworkEventKind::kConnected);
  }

 private:
  void Heard(NetworkEvent event) {
    if (event.kind == NetworkEventKind::kInbound) {
      std::thread(Serve, event.fd, event.text == kEcho).detach();
      return;
    }
    const std::lock_guard lock(mutex_);
    seen_.push_back(event.kind);
    changed_.notify_all();
  }

  void Wait(NetworkEventKind kind) {
    std::unique_lock lock(mutex_);
    const bool came = changed_.wait_for(lock, std::chrono::seconds(10),
                                        [&] { return std::find(seen_.begin(), seen_.end(), kind) != seen_.end(); });
    if (!came) Must(Status(Error{ErrorCode::kUnavailable, "the other end of the bench is not there"}));
  }

  const NodeKey key_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<NetworkEventKind> seen_;
  std::unique_ptr<Network> network_;
};

// Writes as fast as the stream takes, for as long as it lives.
class Transfer {
 public:
  explicit Transfer(int fd) : fd_(fd), thread_([this] { Run(); }) {}
  ~Transfer() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  std::uint64_t bytes() const { return bytes_; }

 private:
  void Run() {
    const std::vector<char> zeros(kSinkBytes);
    while (WriteAll(fd_, zeros)) bytes_ += zeros.size();
  }

  const int fd_;
  std::atomic<std::uint64_t> bytes_{0};
  std::thread thread_;
};

double Quantile(std::vector<double>& sorted, double q) {
  return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
}

// Round trips for `seconds`, beside the transfer if there is one.
Json Measure(int echo, const Transfer* transfer, double seconds) {
  std::vector<char> bytes(kEchoBytes);
  std::vector<double> times_ms;
  const auto begin = SteadyClock::now() + kWarmUp;
  const auto end = begin + std::chrono::duration<double>(seconds);
  std::uint64_t sent_before = 0;
  for (auto now = SteadyClock::now(); now < end;) {
    if (!WriteAll(echo, bytes) || !ReadAll(echo, bytes)) Must(Status(Error{ErrorCode::kUnavailable, "the echo ended"}));
    const auto after = SteadyClock::now();
    if (now < begin) {
      sent_before = transfer != nullptr ? transfer->bytes() : 0;
    } else {
      times_ms.push_back(std::chrono::duration<double, std::milli>(after - now).count());
    }
    now = after;
  }
  const auto took_s = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  std::sort(times_ms.begin(), times_ms.end());
  Json out;
  out["round_trips"] = times_ms.size();
  out["p50_ms"] = Quantile(times_ms, 0.5);
  out["p95_ms"] = Quantile(times_ms, 0.95);
  out["max_ms"] = times_ms.back();
  out["transfer_bytes_per_s"] =
      transfer != nullptr ? static_cast<double>(transfer->bytes() - sent_before) / took_s : 0.0;
  return out;
}

int RunServer(const std::string& port) {
  Peer first(2), second(3);
  first.Listen("/ip4/0.0.0.0/tcp/" + port);
  second.Listen("/ip4/0.0.0.0/tcp/" + std::to_string(std::stoi(port) + 1));
  std::puts("ready");
  std::fflush(stdout);
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {}
  std::_Exit(0);
}

int RunAsker(const std::string& address, const std::string& port, double seconds, int rounds) {
  const NodeId server = KeyOf(2).id();
  const NodeId server_twin = KeyOf(3).id();
  Peer first(4), second(5);
  first.Connect("/ip4/" + address + "/tcp/" + port);
  second.Connect("/ip4/" + address + "/tcp/" + std::to_string(std::stoi(port) + 1));
  const int echo = Must(first.network().OpenStream(server, kEcho, kOpenMs));
  Json out;
  for (int round = 0; round < rounds; ++round) {
    for (const std::string way : {"alone", "shared", "bulk", "network"}) {
      std::unique_ptr<Transfer> transfer;
      const auto priority = way == "bulk" ? StreamPriority::kBulk : StreamPriority::kActivations;
      if (way == "shared" || way == "bulk") {
        transfer = std::make_unique<Transfer>(Must(first.network().OpenStream(server, kSink, kOpenMs, priority)));
      } else if (way == "network") {
        transfer = std::make_unique<Transfer>(Must(second.network().OpenStream(server_twin, kSink, kOpenMs)));
      }
      out[way].push_back(Measure(echo, transfer.get(), seconds));
      transfer.reset();
      std::this_thread::sleep_for(kWarmUp);  // what is still queued
    }
  }
  std::printf("%s\n", out.dump(2).c_str());
  std::fflush(stdout);
  std::_Exit(0);
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "serve") return shoal::RunServer(words[1]);
  if (words.size() == 5 && words[0] == "ask") {
    return shoal::RunAsker(words[1], words[2], std::stod(words[3]), std::stoi(words[4]));
  }
  std::fprintf(stderr, "usage: serve PORT | ask ADDRESS PORT SECONDS ROUNDS\n");
  return 2;
}
