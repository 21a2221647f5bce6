// Fuzz target: frames of the control stream. What is read is written again as it was, and no state machine falls over.
#include <cstdint>
#include <cstdlib>

#include "cluster/cluster.h"
#include "cluster/messages.h"
#include "wire/frame.h"

// The input is a payload: with its header and checksum made right, so that the fuzzer need not find them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace shoal;
  if (size > 4096) return 0;
  std::vector<std::uint8_t> frame(kFrameHeaderBytes);
  frame.insert(frame.end(), data, data + size);
  SealFrame(FrameType::kCluster, 0, frame);
  const Result<ClusterMessage> message = DecodeClusterMessage(frame);
  if (!message.ok()) return 0;
  const Result<ClusterMessage> again = DecodeClusterMessage(EncodeClusterMessage(*message));
  if (!again.ok() || !(*again == *message)) std::abort();

  NodeId self, peer;
  self.bytes.fill(1);
  peer.bytes.fill(2);
  ClusterOptions options;
  options.self = self;
  Cluster cluster(options, 0);
  cluster.OnLinkUp(1, peer);
  for (int i = 0; i < 3; ++i) cluster.OnMessage(100'000 * (i + 2), peer, *message);
  for (TimeUs now = 500'000; now < 20'000'000; now += 200'000) {
    cluster.OnTick(now);
    (void)cluster.TakeActions();
  }
  return 0;
}
