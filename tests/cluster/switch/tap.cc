// TAP devices by the tun driver of Linux (Documentation/networking/tuntap.rst). See tap.h.
#include "tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace shoal::test_switch {
namespace {

constexpr std::size_t kFrameBytesMax = 14 + 4 + 65535;
constexpr std::size_t kOffloadBytes = 10;  // struct virtio_net_hdr, which the driver puts before every frame

std::string Failed(const std::string& what) { return what + ": " + std::strerror(errno); }

// In the calling thread's namespace. -1 and `error` on failure.
int OpenHere(const std::string& name, bool offload, std::string* error) {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    *error = Failed("/dev/net/tun");
    return -1;
  }
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  name.copy(request.ifr_name, sizeof(request.ifr_name) - 1);
  const unsigned int features = offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0;
  if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETOFFLOAD, features) < 0) {
    *error = Failed("device " + name);
    close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

std::unique_ptr<Tap> Tap::Open(const std::string& netns, const std::string& name, bool offload, std::string* error) {
  const int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  const int there = open(netns.c_str(), O_RDONLY | O_CLOEXEC);
  int fd = -1;
  if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0) {
    *error = Failed("namespace " + netns);
  } else {
    fd = OpenHere(name, offload, error);
    if (setns(here, CLONE_NEWNET) < 0) *error = Failed("return to the own namespace");
  }
  if (here >= 0) close(here);
  if (there >= 0) close(there);
  return fd < 0 ? nullptr : std::unique_ptr<Tap>(new Tap(fd));
}

Tap::~Tap() { close(fd_); }

std::shared_ptr<const Frame> Tap::Read() {
  static thread_local std::array<std::uint8_t, kOffloadBytes + kFrameBytesMax> buffer;
  const ssize_t got = read(fd_, buffer.data(), buffer.size());
  if (got < static_cast<ssize_t>(kOffloadBytes)) return nullptr;
  auto frame = std::make_shared<Frame>();
  frame->offload.assign(buffer.begin(), buffer.begin() + kOffloadBytes);
  frame->ethernet.assign(buffer.begin() + kOffloadBytes, buffer.begin() + got);
  return frame;
}

bool Tap::Write(const Frame& frame) const {
  std::array<iovec, 2> parts = {
      iovec{const_cast<std::uint8_t*>(frame.offload.data()), frame.offload.size()},
      iovec{const_cast<std::uint8_t*>(frame.ethernet.data()), frame.ethernet.size()},
  };
  return writev(fd_, parts.data(), parts.size()) >= 0;
}

}  // namespace shoal::test_switch
