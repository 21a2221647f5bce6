// Linux and Android: sched_setaffinity of the calling thread.
#include "device/cpu_affinity.h"

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>

#include "base/thread_name.h"

namespace shoal {

#if defined(__linux__)
static_assert(kCpusMax <= CPU_SETSIZE);

namespace {

std::vector<int> CpusOf(pid_t thread) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(thread, sizeof set, &set) != 0) return cpus;
  for (int i = 0; i < kCpusMax; ++i) {
    if (CPU_ISSET(i, &set)) cpus.push_back(i);
  }
  return cpus;
}

}  // namespace

std::vector<int> AllowedCpus() { return CpusOf(0); }
std::vector<int> ProcessCpus() { return CpusOf(::getpid()); }

Status PinThisThread(std::span<const int> cpus) {
  SHOAL_RETURN_IF_ERROR(CheckCpus(cpus));
  cpu_set_t set;
  CPU_ZERO(&set);
  std::string list;
  for (const int cpu : cpus) {
    CPU_SET(cpu, &set);
    list += (list.empty() ? "" : ",") + std::to_string(cpu);
  }
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    return Error{ErrorCode::kInvalidArgument, "cannot run on CPUs " + list + ": " + std::strerror(errno)};
  }
  return {};
}
#else
std::vector<int> AllowedCpus() { return {}; }
std::vector<int> ProcessCpus() { return {}; }
Status PinThisThread(std::span<const int> cpus) { return CheckCpus(cpus); }
#endif

int AllowedCpuCount() {
  const std::size_t allowed = AllowedCpus().size();
  return std::max(1, static_cast<int>(allowed > 0 ? allowed : std::thread::hardware_concurrency()));
}

void OnAllCpus(const char* name, std::size_t most, const std::function<void(bool is_caller)>& work) {
  const std::size_t threads = std::min(most, static_cast<std::size_t>(AllowedCpuCount()));
  std::vector<std::thread> others;
  try {
    while (others.size() + 1 < threads) {
      others.emplace_back([name, &work] {
        NameThisThread(name);
        work(false);
      });
    }
  } catch (const std::system_error&) {}  // then fewer do it
  work(true);
  for (std::thread& other : others) other.join();
}

void UseProcessCpus() {
  const std::vector<int> cpus = ProcessCpus();
  if (!cpus.empty() && cpus != AllowedCpus()) (void)PinThisThread(cpus);
}

PlacedWhile::PlacedWhile(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  before_ = AllowedCpus();
  (void)PinThisThread(cpus);
}

PlacedWhile::~PlacedWhile() {
  if (!before_.empty()) (void)PinThisThread(before_);
}

Status CheckCpus(std::span<const int> cpus) {
  std::vector<int> sorted(cpus.begin(), cpus.end());
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted[i] < 0 || sorted[i] >= kCpusMax || (i > 0 && sorted[i] == sorted[i - 1])) {
      return Error{ErrorCode::kInvalidArgument, "CPU " + std::to_string(sorted[i]) +
                                                    " is out of range or named twice (0 to " +
                                                    std::to_string(kCpusMax - 1) + ")"};
    }
  }
  return {};
}

}  // namespace shoal
