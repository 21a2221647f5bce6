// An Ethernet device inside another network namespace whose wire is a file descriptor of this process.
//
// A TAP device with segmentation offload: a TCP sender's 64 KiB pass as one frame, as between virtual machines. Knows
// no switch. The device lives as long as the Tap. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fabric.h"

namespace shoal::test_switch {

class Tap {
 public:
  // Makes device `name` in the namespace of the file `netns` (as /proc/PID/ns/net). Without `offload` every frame is at
  // most one MTU long and has its checksum, as on a real wire. Null and `error` on failure. The calling thread changes
  // its namespace meanwhile and comes back.
  static std::unique_ptr<Tap> Open(const std::string& netns, const std::string& name, bool offload, std::string* error);
  ~Tap();
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

  int fd() const { return fd_; }
  // The next frame the namespace sent; null when none waits. Does not block.
  std::shared_ptr<const Frame> Read();
  // False: the device refused it, as when it is down. Does not block.
  bool Write(const Frame& frame) const;

 private:
  explicit Tap(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace shoal::test_switch
