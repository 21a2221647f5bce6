// Beacons of one machine hear each other, and nobody without the secret hears anything.
#include "discovery/beacon.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "discovery/own_addresses.h"

namespace shoal {
namespace {

std::uint16_t FreeUdpPort() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t bytes = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

class BeaconTest : public testing::Test {
 protected:
  struct Listener {
    std::mutex mutex;
    std::vector<Sighting> heard;
    std::unique_ptr<Beacon> beacon;
    bool Heard(Sighting::Kind kind, const NodeId& node) {
      const std::lock_guard lock(mutex);
      return std::any_of(heard.begin(), heard.end(),
                         [&](const Sighting& s) { return s.kind == kind && s.node == node; });
    }
  };

  static NodeId Id(int number) {
    NodeId id;
    id.bytes.fill(static_cast<std::uint8_t>(number));
    return id;
  }

  BeaconOptions Options(int number, int secret) const {
    BeaconOptions options;
    options.self = Id(number);
    options.instance = 1000 + static_cast<std::uint64_t>(number);
    options.port = static_cast<std::uint16_t>(40'000 + number);
    options.beacon_port = port_;
    options.loopback_only = true;
    if (secret != 0) {
      SecretKey key;
      key.bytes.fill(static_cast<std::uint8_t>(secret));
      options.cluster_secret = key;
    }
    return options;
  }

  void Start(Listener& listener, const BeaconOptions& options) {
    Result<std::unique_ptr<Beacon>> beacon = Beacon::Start(options, [&listener](const Sighting& sighting) {
      const std::lock_guard lock(listener.mutex);
      listener.heard.push_back(sighting);
    });
    ASSERT_TRUE(beacon.ok()) << beacon.error().message;
    listener.beacon = *std::move(beacon);
  }

  template <typename F>
  static bool Within(std::chrono::seconds limit, F check) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!check()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  }

  const std::uint16_t port_ = FreeUdpPort();
};

TEST_F(BeaconTest, MembersHearEachOther) {
  Listener a, b, c;
  Start(a, Options(1, 7));
  Start(b, Options(2, 7));
  Start(c, Options(3, 7));
  const auto member = Sighting::Kind::kMember;
  EXPECT_TRUE(Within(std::chrono::seconds(10), [&] {
    return a.Heard(member, Id(2)) && a.Heard(member, Id(3)) && b.Heard(member, Id(1)) && b.Heard(member, Id(3)) &&
           c.Heard(member, Id(1)) && c.Heard(member, Id(2));
  }));
  const std::lock_guard lock(a.mutex);
  for (const Sighting& sighting : a.heard) {
    ASSERT_FALSE(sighting.addresses.empty());
    EXPECT_TRUE(sighting.addresses.front().port == 40'002 || sighting.addresses.front().port == 40'003);
  }
}

TEST_F(BeaconTest, StrangersHearNothing) {
  Listener a, b, stranger;
  Start(a, Options(1, 7));
  Start(stranger, Options(3, 8));
  Start(b, Options(2, 7));
  ASSERT_TRUE(Within(std::chrono::seconds(10), [&] { return a.Heard(Sighting::Kind::kMember, Id(2)); }));
  const std::lock_guard lock(stranger.mutex);
  EXPECT_TRUE(stranger.heard.empty());
  EXPECT_FALSE(a.Heard(Sighting::Kind::kMember, Id(3)));
}

TEST_F(BeaconTest, AnInviterAnswersWhoKnowsTheCode) {
  Listener inviter, joiner, wrong;
  const InviteSecret secret{1, 2, 3}, other{4, 5, 6};
  Start(inviter, Options(1, 7));
  inviter.beacon->SetInvites({secret});
  BeaconOptions options = Options(2, 0);
  options.seek = secret;
  Start(joiner, options);
  options = Options(3, 0);
  options.seek = other;
  Start(wrong, options);
  EXPECT_TRUE(Within(std::chrono::seconds(10), [&] { return joiner.Heard(Sighting::Kind::kInviter, Id(1)); }));
  EXPECT_FALSE(wrong.Heard(Sighting::Kind::kInviter, Id(1)));
}

TEST_F(BeaconTest, ACloneIsSeen) {
  Listener a, b;
  Start(a, Options(1, 7));
  BeaconOptions clone = Options(1, 7);
  clone.instance = 2000;
  Start(b, clone);
  EXPECT_TRUE(Within(std::chrono::seconds(10),
                     [&] { return a.Heard(Sighting::Kind::kClone, Id(1)) || b.Heard(Sighting::Kind::kClone, Id(1)); }));
}

TEST_F(BeaconTest, WorksWhereInterfacesCannotBeListed) {
  Listener a, b;
  BeaconOptions options = Options(1, 7);
  options.interfaces_unknown = true;
  Start(a, options);
  options = Options(2, 7);
  options.interfaces_unknown = true;
  Start(b, options);
  a.beacon->Hurry();
  EXPECT_TRUE(Within(std::chrono::seconds(10), [&] {
    return a.Heard(Sighting::Kind::kMember, Id(2)) && b.Heard(Sighting::Kind::kMember, Id(1));
  }));
}

std::set<std::string> HostsOf(const std::vector<OwnAddress>& list) {
  std::set<std::string> hosts;
  for (const OwnAddress& own : list) hosts.insert(own.host);
  return hosts;
}

TEST(OwnAddresses, AreTheSameWithAndWithoutNetlink) {
  const std::vector<OwnAddress> with = ListOwnAddresses(), without = ListOwnAddressesWithoutNetlink();
  EXPECT_TRUE(HostsOf(with).contains("127.0.0.1"));
  EXPECT_EQ(HostsOf(with), HostsOf(without));
  for (const OwnAddress& own : without) {
    EXPECT_NE(own.interface, 0U) << own.host;
    EXPECT_EQ(own.is_loopback, IsLoopback({own.kind, own.host, 1})) << own.host;
    EXPECT_TRUE(ParseEndpoint(own.kind == HostKind::kIpv6 ? "[" + own.host + "]" : own.host).ok()) << own.host;
  }
}

}  // namespace
}  // namespace shoal
