// Endpoints as people write them, the book of addresses, and sealed beacon packets.
#include <gtest/gtest.h>

#include <set>

#include "discovery/address_book.h"
#include "discovery/beacon_filter.h"
#include "discovery/beacon_packet.h"
#include "discovery/endpoint.h"

namespace shoal {
namespace {

NodeId Id(int number) {
  NodeId id;
  id.bytes.fill(static_cast<std::uint8_t>(number));
  return id;
}

Endpoint At(const std::string& text) {
  const Result<Endpoint> endpoint = ParseEndpoint(text);
  EXPECT_TRUE(endpoint.ok()) << text;
  return endpoint.ok() ? *endpoint : Endpoint{};
}

TEST(Endpoints, AreReadInEveryNotation) {
  EXPECT_EQ(EndpointText(At("10.0.0.1:99")), "10.0.0.1:99");
  EXPECT_EQ(EndpointText(At("10.0.0.1")), "10.0.0.1:48100");
  EXPECT_EQ(EndpointText(At("[::1]:5")), "[::1]:5");
  EXPECT_EQ(EndpointText(At("fd77:0::1")), "[fd77::1]:48100");
  EXPECT_EQ(EndpointText(At("/ip4/1.2.3.4/tcp/7")), "1.2.3.4:7");
  EXPECT_EQ(EndpointText(At("/ip6/::1/tcp/7/p2p/12D3KooWQTU2m5jnSfed87dKDodE9pjRFA1P1cE1x7451fdzdcp9")), "[::1]:7");
  EXPECT_EQ(At("::ffff:1.2.3.4").kind, HostKind::kIpv4);
  EXPECT_EQ(At("kitchen.local:9").kind, HostKind::kName);
  EXPECT_EQ(EndpointMultiaddr(At("[fd77::1]:9")), "/ip6/fd77::1/tcp/9");
  EXPECT_EQ(EndpointMultiaddr(At("kitchen:9")), "/dns/kitchen/tcp/9");
}

TEST(Endpoints, RefuseWhatIsNone) {
  for (const char* wrong : {"", ":", "1.2.3.4:99999", "1.2.3.4:x", "[::1", "[::1]x", "/ip4/1.2.3/tcp/4", "/udp/5",
                            "a b", "/ip4/1.2.3.4/udp/4", "\x01"}) {
    EXPECT_FALSE(ParseEndpoint(wrong).ok()) << wrong;
  }
  EXPECT_FALSE(ParseEndpoint(std::string(100'000, 'a')).ok());
}

TEST(Endpoints, KnowWhatCanBeDialled) {
  EXPECT_TRUE(IsLoopback(At("127.9.9.9")));
  EXPECT_TRUE(IsLinkLocal(At("169.254.1.1")));
  EXPECT_FALSE(IsDialable(At("0.0.0.0:5")));
  EXPECT_FALSE(IsDialable(At("224.0.0.1:5")));
  EXPECT_FALSE(IsDialable(At("255.255.255.255:5")));
  EXPECT_TRUE(IsDialable(At("10.0.0.1:5")));
}

TEST(AddressBookTest, DialsOnceThenWaitsLongerEachTime) {
  AddressBook book(Id(1), 7);
  TimeUs now = 1'000'000;
  book.Learn(Id(2), At("10.0.0.2:5"), AddressSource::kBeacon, now);
  std::vector<DurationUs> waits;
  for (int i = 0; i < 8; ++i) {
    std::vector<Dial> dials;
    const TimeUs asked = now;
    while ((dials = book.Due(now)).empty()) now += 50'000;
    ASSERT_EQ(dials.size(), 1U);
    EXPECT_TRUE(book.Due(now).empty()) << "it is in flight";
    waits.push_back(now - asked);
    book.Failed(dials[0], now);
  }
  EXPECT_EQ(waits[0], 0);
  EXPECT_GT(waits[5], waits[1]);
  EXPECT_LE(waits[7], 2 * kDialBackoffMaxUs);
}

TEST(AddressBookTest, TheFirstConnectionWinsAndALossMakesAllDueAgain) {
  AddressBook book(Id(1), 7);
  book.Learn(Id(2), At("10.0.0.2:5"), AddressSource::kMdns, 1);
  book.Learn(Id(2), At("[fd77::2]:5"), AddressSource::kGossiped, 1);
  const std::vector<Dial> dials = book.Due(1);
  ASSERT_EQ(dials.size(), 2U);
  book.Succeeded(dials[0], Id(2), 1'700'000'000);
  book.Connected(Id(2));
  EXPECT_TRUE(book.IsConnected(Id(2)));
  EXPECT_TRUE(book.Due(kDialTimeoutUs * 20).empty());
  book.Disconnected(Id(2), kDialTimeoutUs * 20);
  EXPECT_EQ(book.Due(kDialTimeoutUs * 20 + kDialBackoffMinUs).size(), 2U);
  EXPECT_EQ(book.AddressesOf(Id(2)).front().success_unix_s, 1'700'000'000);
}

TEST(AddressBookTest, IgnoresItselfAndNonsense) {
  AddressBook book(Id(1), 7);
  book.Learn(Id(1), At("10.0.0.2:5"), AddressSource::kBeacon, 1);
  book.Learn(Id(2), At("0.0.0.0:5"), AddressSource::kBeacon, 1);
  EXPECT_TRUE(book.Due(1).empty());
}

TEST(AddressBookTest, IsBounded) {
  AddressBook book(Id(1), 7);
  for (int node = 0; node < 2000; ++node) {
    NodeId id;
    id.bytes[0] = static_cast<std::uint8_t>(node);
    id.bytes[1] = static_cast<std::uint8_t>(node >> 8);
    id.bytes[2] = 9;
    for (int port = 1; port < 30; ++port) {
      book.Learn(id, At("10.0.0.2:" + std::to_string(port)), AddressSource::kMdns, node);
    }
    EXPECT_LE(book.AddressesOf(id).size(), kBookAddressesPerNodeMax);
  }
  EXPECT_LE(book.Nodes().size(), kBookNodesMax);
  EXPECT_LE(book.Due(3000).size(), kDialsAtOnceMax);
}

TEST(AddressBookTest, RemembersWhatWasReached) {
  AddressBook book(Id(1), 7);
  book.Learn(Id(2), At("10.0.0.2:5"), AddressSource::kMdns, 1);
  book.Learn(Id(2), At("10.0.0.3:5"), AddressSource::kMdns, 1);
  for (const Dial& dial : book.Due(1)) {
    if (dial.endpoint.host == "10.0.0.2") book.Succeeded(dial, Id(2), 1'700'000'000);
  }
  AddressBook later(Id(1), 8);
  // Ids here are no public keys: their text is none that is read again, so the round trip needs a real one.
  EXPECT_EQ(later
                .AddJson(R"({"version":1,"nodes":[{"id":"12D3KooWQTU2m5jnSfed87dKDodE9pjRFA1P1cE1x7451fdzdcp9",)"
                         R"("addresses":[{"at":"10.0.0.2:5","reached_s":1700000000}]}]})",
                         1)
                .ok(),
            true);
  ASSERT_EQ(later.Due(1).size(), 1U);
  AddressBook third(Id(1), 9);
  ASSERT_EQ(later.Nodes().size(), 1U);
  EXPECT_TRUE(third.AddJson(later.ToJson(), 1).ok());
  EXPECT_EQ(third.Nodes(), later.Nodes());
}

TEST(AddressBookTest, RefusesBrokenTexts) {
  for (const char* wrong : {"", "{", "[]", R"({"version":2,"nodes":[]})", R"({"version":1,"nodes":[{"id":5}]})",
                            R"({"version":1,"nodes":[{"id":"x","addresses":[]}]})"}) {
    AddressBook book(Id(1), 7);
    EXPECT_EQ(book.AddJson(wrong, 1).error().code, ErrorCode::kCorrupt) << wrong;
    EXPECT_TRUE(book.Nodes().empty());
  }
}

BeaconPacket Packet() {
  BeaconPacket packet;
  packet.kind = BeaconKind::kAnswer;
  packet.node = Id(3);
  packet.instance = 5;
  packet.uptime_us = 7;
  packet.unix_ms = 8;
  packet.sequence = 9;
  packet.echo_instance = 10;
  packet.echo_sequence = 11;
  packet.port = 12;
  packet.addresses = {"10.0.0.1", "fd77::1"};
  return packet;
}

TEST(BeaconPackets, OpenWithTheSameKeyOnly) {
  SecretKey secret, other;
  secret.bytes.fill(1);
  other.bytes.fill(2);
  const SecretKey key = BeaconClusterKey(secret);
  const Result<Bytes> sealed = SealBeacon(key, Packet());
  ASSERT_TRUE(sealed.ok());
  EXPECT_EQ(sealed->size(), kBeaconPacketBytes) << "all packets look alike";
  EXPECT_EQ(OpenBeacon(key, *sealed), Packet());
  EXPECT_FALSE(OpenBeacon(BeaconClusterKey(other), *sealed));
  EXPECT_FALSE(OpenBeacon(BeaconInviteKey({}), *sealed));
  for (std::size_t i = 0; i < sealed->size(); i += 13) {
    Bytes changed = *sealed;
    changed[i] ^= 1;
    EXPECT_FALSE(OpenBeacon(key, changed)) << i;
  }
  EXPECT_FALSE(OpenBeacon(key, ByteSpan(*sealed).first(100)));
  EXPECT_NE(*SealBeacon(key, Packet()), *sealed) << "a fresh nonce";
}

TEST(BeaconFilterTest, PlayedBackPacketsAreNoNews) {
  BeaconFilter filter(99);
  BeaconPacket packet = Packet();
  packet.kind = BeaconKind::kHello;
  packet.echo_instance = packet.echo_sequence = 0;
  packet.unix_ms = 1'000'000;
  EXPECT_EQ(filter.Judge(packet, "10.0.0.3", 1'000'000, 1), BeaconFilter::Verdict::kFresh);
  EXPECT_EQ(filter.Judge(packet, "10.0.0.9", 1'000'000, 30'000'000), BeaconFilter::Verdict::kReplayed);
  --packet.sequence;
  EXPECT_EQ(filter.Judge(packet, "10.0.0.3", 1'000'000, 30'000'000), BeaconFilter::Verdict::kReplayed);
  BeaconPacket old = packet;
  old.instance = 77;
  old.unix_ms = 1'000'000 - 10 * kBeaconWindowMs;
  EXPECT_EQ(filter.Judge(old, "10.0.0.4", 1'000'000, 30'000'000), BeaconFilter::Verdict::kUnproven);
}

}  // namespace
}  // namespace shoal
