// Every message there and back; and no bytes, changed or cut, do more than give an error.
#include "cluster/messages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <type_traits>

#include "wire/frame.h"

namespace shoal {
namespace {

NodeId Node(std::uint8_t n) {
  NodeId id;
  id.bytes.fill(n);
  return id;
}

ModelShape Shape() { return {{100, 200, 300}, {4, 4, 8}, 50, 64, {1, 2}}; }

MemberRecord Member() {
  MemberRecord m;
  m.id = Node(3);
  m.incarnation = 5 << 16;
  m.nonce = 9;
  m.facts_version = 2;
  m.facts = {"phone", true, false, {"/ip4/10.0.0.1/tcp/48100"}, "http://10.0.0.1:1", {}, {}, {}};
  m.facts.device = {"linux", "aarch64", 8, 1000, 500, 400, 2e10, {{"Q4_0", 1e10, 3e9, 4e-6}}};
  m.facts.device.stage_speeds = {{0xfeed, {2e-5, 1e10, 8e9, 6e9, 4e9, 1e9, 5e9, 2e10, 2e10, 1e10, 6e9, 2.5e9, 3e-4}}};
  m.facts.device.ration = 0.25;
  m.facts.device.power_measured = true;
  m.facts.device.pace = 0.5;
  m.facts.device.battery_percent = 85;
  m.facts.device.rest = 0.2;
  m.facts.device.draining = "its battery is low";
  m.facts.device.idle_w = 0.5;
  m.facts.device.active_w = 5;
  m.facts.device.on_battery = true;
  m.facts.device.groups = {{"prime", 1, 9e9}};
  m.facts.device.offload = {"vulkan:1", 7, OffloadUse::kFailed, "its process was ended by signal 11"};
  m.facts.models = {{"m", 77, 650, "Q4_0", Shape(), {{{0, 1}, {2, 3}}, true, true, false, 400}}};
  m.facts.standby = {{"m", 77, {2, 3}, 9}};
  m.facts.fetching = {{"m", 10, 400}};
  m.facts.observed = {{"m", 7, {12, 40, 7.5, 800}}};
  return m;
}

PlacementRecord Placement(PlacementState state) {
  PlacementRecord p;
  p.model = "m";
  p.epoch = MakeEpoch(4, Node(1), 7);
  p.state = state;
  p.decider = Node(1);
  p.continues = MakeEpoch(3, Node(2), 7);
  p.request.model = "m";
  p.request.shape = Shape();
  p.request.nodes = {Node(1), Node(2)};
  p.request.ranges = {{0, 2}, {2, 3}};
  p.request.goal = PlaceGoal::kLatency;
  p.forecast = {0.5, 10, 30, true, "both together"};
  if (state != PlacementState::kRetired) p.stages = {{Node(1), 5, {0, 2}}, {Node(2), 6, {2, 3}}};
  return p;
}

std::vector<ClusterMessage> AllMessages() {
  SyncAsk ask{true, {{Node(1), 2, 3, MemberState::kDead, 4, 5}}, {{6, 7}}, {8}};
  MemberRecord with_links = Member();
  with_links.links_version = 3;
  with_links.links = {{Node(2), 1000, 25}};
  SyncDelta delta{
      {{with_links, true, true}}, {Placement(PlacementState::kLive), Placement(PlacementState::kRetired)}, {{1, 2, 3}}};
  return {Hello{Member(), 11},
          Heartbeat{1, 500, 2, 3, 4, 5, 6, 7},
          ask,
          delta,
          HearsAsk{Node(4), 2},
          HearsAnswer{Node(4), 2, Hearing::kClosed},
          PlaceAsk{1, false, Placement(PlacementState::kLive).request},
          PlaceAnswer{1, true, false, ErrorCode::kOutOfMemory, "too big", 0},
          Prepare{Placement(PlacementState::kPreparing)},
          Abort{"m", 4},
          StageNews{"m", 4, 1, StageStatus::kFailed, 5, "no file"},
          StandbyAsk{"m", 4, 1},
          MoveFailed{"m", 4, "nowhere"}};
}

TEST(ClusterMessages, EveryKindThereAndBack) {
  const auto all = AllMessages();
  ASSERT_EQ(all.size(), std::variant_size_v<ClusterMessage>);
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i].index(), i);
    const auto frame = EncodeClusterMessage(all[i]);
    const auto decoded = DecodeClusterMessage(frame);
    ASSERT_TRUE(decoded.ok()) << i << ": " << decoded.error().message;
    EXPECT_EQ(*decoded, all[i]) << i;
  }
}

// SHOAL_FUZZ_SEEDS=tests/fuzz/cluster_message writes the fuzz target's corpus: frames without their header.
TEST(ClusterMessages, SeedsOfTheFuzzTarget) {
  static constexpr const char* kNames[] = {"hello",      "heartbeat",   "sync_ask",   "sync_delta", "hears_ask",
                                           "hears",      "place_ask",   "place",      "prepare",    "abort",
                                           "stage_news", "standby_ask", "move_failed"};
  const auto all = AllMessages();
  ASSERT_EQ(all.size(), std::size(kNames));
  const char* const folder = std::getenv("SHOAL_FUZZ_SEEDS");
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::vector<std::uint8_t> frame = EncodeClusterMessage(all[i]);
    ASSERT_TRUE(DecodeClusterMessage(frame).ok());
    if (folder == nullptr) continue;
    std::ofstream(std::string(folder) + "/" + kNames[i], std::ios::binary)
        .write(reinterpret_cast<const char*>(frame.data() + kFrameHeaderBytes),
               static_cast<std::streamsize>(frame.size() - kFrameHeaderBytes));
  }
}

// What a member says of its speed is within limits, or the message is refused.
TEST(ClusterMessages, AbsurdSpeedsAreRefused) {
  MemberRecord member = Member();
  member.links_version = 1;
  member.links = {{Node(2), 1000, 0x1234567}};
  // The frame with the first 8 bytes of `value` as those of `other`.
  const auto at = [&](auto value, std::type_identity_t<decltype(value)> other) {
    auto frame = EncodeClusterMessage(SyncDelta{{{member, true, true}}, {}, {}});
    std::uint8_t find[8], replace[8];
    std::memcpy(find, &value, 8);
    std::memcpy(replace, &other, 8);
    const auto found = std::search(frame.begin(), frame.end(), std::begin(find), std::end(find));
    EXPECT_NE(found, frame.end());
    if (frame.end() - found < 8) return false;
    std::copy(std::begin(replace), std::end(replace), found);
    SealFrame(FrameType::kCluster, 0, frame);
    return DecodeClusterMessage(frame).ok();
  };
  EXPECT_TRUE(at(1e10, 2e10));
  for (const double wrong : {0.0, 5e-324, 0.5, -1.0, 1e15, std::nan(""), HUGE_VAL}) {
    EXPECT_FALSE(at(1e10, wrong));   // one row
    EXPECT_FALSE(at(2e10, wrong));   // memory
    EXPECT_FALSE(at(9e9, wrong));    // a group of cores
    EXPECT_FALSE(at(8e9, wrong));    // two rows of a stage
    EXPECT_FALSE(at(2.5e9, wrong));  // eight rows of an output head
  }
  EXPECT_FALSE(at(4e-6, -1e-6));
  EXPECT_FALSE(at(4e-6, 2));
  EXPECT_TRUE(at(std::uint64_t{0x1234567}, 100'000'000'000'000));
  EXPECT_FALSE(at(std::uint64_t{0x1234567}, 100'000'000'000'001));  // of a link
}

TEST(ClusterMessages, LayersHeldAreOfTheModelAndInOrder) {
  const auto taken = [](const std::array<std::int32_t, 4>& held) {
    const std::array<std::int32_t, 5> before{2, 0, 1, 2, 3};  // two ranges: layers 0 and 2
    auto frame = EncodeClusterMessage(Hello{Member(), 0});
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(before.data());
    const auto found = std::search(frame.begin(), frame.end(), bytes, bytes + sizeof before);
    EXPECT_NE(found, frame.end());
    std::memcpy(&*found + sizeof(std::int32_t), held.data(), sizeof held);
    SealFrame(FrameType::kCluster, 0, frame);
    return DecodeClusterMessage(frame).ok();
  };
  EXPECT_TRUE(taken({0, 1, 2, 3}));
  for (const auto& wrong : std::vector<std::array<std::int32_t, 4>>{
           {0, 1, 2, 4}, {2, 3, 0, 1}, {0, 1, 1, 3}, {0, 1, 0, 1}, {-1, 1, 2, 3}, {0, 0, 2, 3}, {1, 0, 2, 3}}) {
    EXPECT_FALSE(taken(wrong)) << wrong[0] << '-' << wrong[1] << ", " << wrong[2] << '-' << wrong[3];
  }
}

TEST(ClusterMessages, LayersOfAPlacementAreThoseOfItsModel) {
  const auto taken = [](std::int32_t last) {
    const std::array<std::int32_t, 4> before{6, 0, 2, 3};  // the second stage: its boot, then its layers
    auto frame = EncodeClusterMessage(Prepare{Placement(PlacementState::kPreparing)});
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(before.data());
    const auto found = std::search(frame.begin(), frame.end(), bytes, bytes + sizeof before);
    EXPECT_NE(found, frame.end());
    std::memcpy(&*found + 3 * sizeof last, &last, sizeof last);
    SealFrame(FrameType::kCluster, 0, frame);
    return DecodeClusterMessage(frame).ok();
  };
  EXPECT_TRUE(taken(3));
  EXPECT_FALSE(taken(4)) << "the model has three";
  EXPECT_FALSE(taken(1024));
}

TEST(ClusterMessages, HeartbeatIsSmall) { EXPECT_LE(EncodeClusterMessage(Heartbeat{}).size(), 72U); }

// Sealed again after each change, so that the checksum does not hide the decoder.
TEST(ClusterMessages, ChangedBytesAreRefusedOrAnotherMessage) {
  std::size_t refused = 0, taken = 0;
  for (const ClusterMessage& message : AllMessages()) {
    const auto frame = EncodeClusterMessage(message);
    for (std::size_t at = kFrameHeaderBytes; at < frame.size(); ++at) {
      for (const int value : {0, 1, 2, 0x7F, 0x80, 0xFF}) {
        auto changed = frame;
        changed[at] = static_cast<std::uint8_t>(value);
        SealFrame(FrameType::kCluster, 0, changed);
        const auto decoded = DecodeClusterMessage(changed);
        if (!decoded.ok()) {
          EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
          ++refused;
        } else {
          EXPECT_EQ(EncodeClusterMessage(*decoded), changed);
          ++taken;
        }
      }
    }
  }
  EXPECT_GT(refused, 1000U);
  EXPECT_GT(taken, 1000U);
}

TEST(ClusterMessages, CutAndLongerOnesAreRefused) {
  for (const ClusterMessage& message : AllMessages()) {
    const auto frame = EncodeClusterMessage(message);
    for (std::size_t size = kFrameHeaderBytes; size <= frame.size() + 1; ++size) {
      if (size == frame.size()) continue;
      auto other = frame;
      other.resize(size);
      SealFrame(FrameType::kCluster, 0, other);
      EXPECT_FALSE(DecodeClusterMessage(other).ok()) << message.index() << " of " << size << " bytes";
    }
  }
}

TEST(ClusterMessages, WhatNeverSpreadsIsRefused) {
  SyncDelta delta;
  delta.placements = {Placement(PlacementState::kLive)};
  auto frame = EncodeClusterMessage(delta);
  // Kind, members, placements' count, then the model's text and the epoch come before the state.
  const std::size_t state_at = kFrameHeaderBytes + 1 + 4 + 4 + 4 + 1 + 8;
  ASSERT_EQ(frame[state_at], static_cast<std::uint8_t>(PlacementState::kLive));
  frame[state_at] = static_cast<std::uint8_t>(PlacementState::kPreparing);
  SealFrame(FrameType::kCluster, 0, frame);
  EXPECT_FALSE(DecodeClusterMessage(frame).ok());
}

TEST(MemberRecords, LaterIncarnationThenWorseStateWins) {
  using enum MemberState;
  EXPECT_TRUE(Supersedes(2, kAlive, 1, kLeft));
  EXPECT_TRUE(Supersedes(1, kDead, 1, kAlive));
  EXPECT_TRUE(Supersedes(1, kLeft, 1, kDead));
  EXPECT_FALSE(Supersedes(1, kAlive, 1, kAlive));
  EXPECT_FALSE(Supersedes(1, kAlive, 1, kDead));
}

TEST(PlacementRecords, EpochsOfTwoDecidersOrIncarnationsDiffer) {
  EXPECT_NE(MakeEpoch(1, Node(1), 1), MakeEpoch(1, Node(2), 1));
  EXPECT_NE(MakeEpoch(1, Node(1), 1), MakeEpoch(1, Node(1), 2));
  EXPECT_GT(MakeEpoch(2, Node(1), 1), MakeEpoch(1, Node(2), 1));
  EXPECT_EQ(EpochRound(MakeEpoch(7, Node(1), 1)), 7U);
}

}  // namespace
}  // namespace shoal
