// The commands of the test switch: one JSON object a line in, one out.
//
//   {"op":"add_port","name":"a","netns":"/proc/7/ns/net","device":"eth0","offload":true}
//   {"op":"remove_port","name":"a"}
//   {"op":"link","from":"a","to":"b","delay_us":1000,"loss":0.1}   "*": every port; fields left out stay as they are
//   {"op":"stats"}
// An answer is {"ok":true,…} or {"ok":false,"error":"…"}. For "*" to "*" the settings also become those of links to
// ports added later. Knows no sockets. One thread.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "fabric.h"
#include "tap.h"

namespace shoal::test_switch {

struct Ports {
  std::map<std::string, PortId> ids;
  std::map<PortId, std::unique_ptr<Tap>> taps;
  PortId next = 0;
};

// Carries out one line; returns the answer without a line end.
std::string RunCommand(const std::string& line, Fabric& fabric, Ports& ports);

}  // namespace shoal::test_switch
