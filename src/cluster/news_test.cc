// What is told to who asks: all of it, in frames that are never too long.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "cluster/cluster.h"

namespace shoal {
namespace {

NodeId Node(std::size_t number) {
  NodeId id;
  id.bytes.fill(0xAA);
  id.bytes[0] = static_cast<std::uint8_t>(number);
  return id;
}

std::string Long(std::size_t bytes, std::size_t number) {
  const std::string end = std::to_string(number);
  return std::string(bytes - end.size(), 'x') + end;
}

// A member that says as much of everything as it may.
MemberRecord Loud(std::size_t number) {
  MemberRecord m;
  m.id = Node(number);
  m.incarnation = 1 << 16;
  m.facts_version = m.links_version = 1;
  MemberFacts& facts = m.facts;
  facts.name = Long(kNameBytesMax, number);
  facts.api = Long(kAddressBytesMax, number);
  for (std::size_t i = 0; i < kAddressesMax; ++i) facts.addresses.push_back(Long(kAddressBytesMax, i));
  DeviceFacts& device = facts.device;
  device.os = device.arch = device.draining = Long(kNameBytesMax, number);
  device.memory_bytes_s = 1e10;
  for (std::size_t i = 0; i < kSpeedsMax; ++i) device.speeds.push_back({Long(kQuantizationBytesMax, i), 1e10, 1e10, 0});
  for (std::size_t i = 0; i < kStageSpeedsMax; ++i) {
    StageSpeedFacts speed;
    speed.fingerprint = i;
    for (double* const value : RatesOf(speed.speed)) *value = 1e10;
    device.stage_speeds.push_back(speed);
  }
  for (std::size_t i = 0; i < kCoreGroupsMax; ++i) device.groups.push_back({Long(kNameBytesMax, i), 1, 1e10});
  device.offload = {Long(kOffloadDeviceBytesMax, number), 1, OffloadUse::kComputes, Long(kOffloadSaidBytesMax, number)};
  constexpr std::size_t kLayers = kHoldingLayersMax / kHoldingsMax;
  for (std::size_t i = 0; i < kHoldingsMax; ++i) {
    ModelHolding model;
    model.name = Long(kModelNameBytesMax, i);
    model.quantization = Long(kQuantizationBytesMax, i);
    model.shape.layer_bytes.assign(kLayers, 1);
    model.shape.kv_bytes.assign(kLayers, 1);
    for (std::int32_t layer = 0; layer < static_cast<std::int32_t>(kLayers); ++layer) {
      if (layer > 0) model.shape.cuts.push_back(layer);
      if (layer % 2 == 0) model.held.layers.push_back({layer, layer + 1});
    }
    facts.models.push_back(model);
  }
  for (std::size_t i = 0; i < kStandbyCopiesMax; ++i)
    facts.standby.push_back({Long(kModelNameBytesMax, i), 1, {0, 1}, 1});
  for (std::size_t i = 0; i < kFetchingMax; ++i) facts.fetching.push_back({Long(kModelNameBytesMax, i), 1, 2});
  for (std::size_t i = 0; i < kObservedMax; ++i) facts.observed.push_back({Long(kModelNameBytesMax, i), 1, {}});
  for (std::size_t i = 0; i < kMemberLinksMax; ++i) m.links.push_back({Node(i), 1, 1});
  return m;
}

// Once a node that knew eight such members ended itself when it was asked for news.
TEST(News, OfMembersThatSayAllTheyMayIsToldInFramesThatFit) {
  constexpr std::size_t kLoud = 20, kPeer = 200;
  ClusterOptions options;
  options.self = Node(100);
  Cluster cluster(options, 0);
  cluster.OnLinkUp(1, Node(kPeer));
  MemberRecord peer;
  peer.id = Node(kPeer);
  peer.incarnation = 1 << 16;
  cluster.OnMessage(2, Node(kPeer), Hello{peer, 0});
  for (std::size_t i = 0; i < kLoud; ++i) {
    const ClusterMessage told = SyncDelta{{{Loud(i), true, true}}, {}, {}};
    const auto decoded = DecodeClusterMessage(EncodeClusterMessage(told));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    cluster.OnMessage(3, Node(kPeer), *decoded);
  }
  (void)cluster.TakeActions();
  cluster.OnMessage(4, Node(kPeer), SyncAsk{});
  std::set<NodeId> told;
  for (const Action& action : cluster.TakeActions()) {
    const auto* send = std::get_if<Send>(&action);
    const auto* delta = send != nullptr ? std::get_if<SyncDelta>(&send->message) : nullptr;
    if (delta == nullptr) continue;
    const auto decoded = DecodeClusterMessage(send->frame);
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(*decoded, send->message);
    for (const SyncDelta::Member& member : delta->members) told.insert(member.record.id);
  }
  for (std::size_t i = 0; i < kLoud; ++i) EXPECT_TRUE(told.contains(Node(i))) << i;
}

}  // namespace
}  // namespace shoal
