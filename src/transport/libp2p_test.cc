// Real networks over loopback: who gets in and who does not, streams, invites, losses.
#include "transport/libp2p.h"

#include <gtest/gtest.h>
#include <shoal_net.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "transport/stream_link.h"
#include "wire/frame.h"

namespace shoal {
namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr const char* kProtocol = "/shoal/test/1";
constexpr std::chrono::seconds kPatience{20};
constexpr std::uint32_t kOpenMs = 5000;

Bytes Seed(std::uint8_t fill) { return Bytes(SN_KEY_BYTES, fill); }

NodeId PublicOf(const Bytes& seed) {
  NodeId id;
  EXPECT_EQ(sn_key_public(seed.data(), id.bytes.data()), SN_OK);
  return id;
}

const Bytes kClusterSeed = Seed(1);

struct CertificateFields {
  Bytes signer = kClusterSeed;
  Bytes member;
  std::uint64_t serial = 1;
  std::int64_t expires_s = INT64_MAX;
};

Bytes Certify(const CertificateFields& fields) {
  sn_certificate certificate{};
  const NodeId member = PublicOf(fields.member);
  std::copy(member.bytes.begin(), member.bytes.end(), certificate.member);
  certificate.serial = fields.serial;
  certificate.expires_s = fields.expires_s;
  certificate.name[0] = 'n';
  Bytes out(SN_CERTIFICATE_BYTES_MAX);
  const std::int64_t size = sn_certificate_issue(fields.signer.data(), &certificate, out.data(), out.size());
  EXPECT_GT(size, 0);
  out.resize(static_cast<std::size_t>(size));
  return out;
}

// A network whose events the test waits for.
class TestNode {
 public:
  TestNode(std::uint8_t key, Bytes certificate, std::uint64_t instance = 0) : seed_(Seed(key)) {
    NetworkOptions options;
    options.seed = seed_;
    options.cluster = PublicOf(kClusterSeed);
    options.certificate = std::move(certificate);
    options.instance = instance != 0 ? instance : key;
    auto started = Network::Start(options, [this](NetworkEvent event) {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
      changed_.notify_all();
    });
    EXPECT_TRUE(started.ok());
    network_ = *std::move(started);
    EXPECT_TRUE(network_->Serve(kProtocol).ok());
    EXPECT_TRUE(network_->Listen("/ip4/127.0.0.1/tcp/0").ok());
    address_ = Wait(NetworkEventKind::kListening).address;
  }
  explicit TestNode(std::uint8_t key) : TestNode(key, Certify({kClusterSeed, Seed(key)})) {}

  Network& network() { return *network_; }
  NodeId id() const { return PublicOf(seed_); }
  const std::string& address() const { return address_; }

  // Takes the first event of that kind, waiting for it.
  NetworkEvent Wait(NetworkEventKind kind) {
    std::unique_lock lock(mutex_);
    NetworkEvent found;
    const bool came = changed_.wait_for(lock, kPatience, [&] { return Take(kind, found); });
    EXPECT_TRUE(came) << "no event of kind " << static_cast<int>(kind);
    return found;
  }
  bool Saw(NetworkEventKind kind) {
    const std::lock_guard lock(mutex_);
    NetworkEvent found;
    return Take(kind, found);
  }

 private:
  bool Take(NetworkEventKind kind, NetworkEvent& found) {
    for (auto it = events_.begin(); it != events_.end(); ++it) {
      if (it->kind != kind) continue;
      found = std::move(*it);
      events_.erase(it);
      return true;
    }
    return false;
  }

  const Bytes seed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<NetworkEvent> events_;
  std::string address_;
  std::unique_ptr<Network> network_;
};

void Connect(TestNode& a, TestNode& b) {
  ASSERT_TRUE(a.network().Dial(b.address()).ok());
  EXPECT_EQ(a.Wait(NetworkEventKind::kConnected).peer, b.id());
  EXPECT_EQ(b.Wait(NetworkEventKind::kConnected).peer, a.id());
}

struct LinkPair {
  StreamLink near, far;
};

LinkPair OpenLink(TestNode& a, TestNode& b) {
  const Result<int> fd = a.network().OpenStream(b.id(), kProtocol, kOpenMs);
  EXPECT_TRUE(fd.ok()) << (fd.ok() ? "" : fd.error().message);
  LinkPair pair{MakeStreamLink(*fd, kFrameBytesMax), {}};
  // libp2p names the protocol with the first bytes: nothing is inbound before.
  FrameBytes first(kFrameHeaderBytes);
  SealFrame(FrameType::kPipeHello, 0, first);
  EXPECT_TRUE(pair.near.sender->Send(first).ok());
  const NetworkEvent inbound = b.Wait(NetworkEventKind::kInbound);
  EXPECT_EQ(inbound.text, kProtocol);
  EXPECT_EQ(inbound.peer, a.id());
  pair.far = MakeStreamLink(inbound.fd, kFrameBytesMax);
  EXPECT_EQ(pair.far.receiver->Receive(), first);
  return pair;
}

FrameBytes Frame(std::size_t payload_bytes, Epoch epoch = 1) {
  FrameBytes frame(kFrameHeaderBytes + payload_bytes, 9);
  SealFrame(FrameType::kBatch, epoch, frame);
  return frame;
}

TEST(Libp2p, MembersConnectAndFramesGoBothWays) {
  TestNode a(2), b(3);
  Connect(a, b);
  LinkPair link = OpenLink(a, b);
  std::thread echo([&] {
    while (auto frame = link.far.receiver->Receive()) ASSERT_TRUE(link.far.sender->Send(*std::move(frame)).ok());
  });
  for (std::size_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(link.near.sender->Send(Frame(i * 4001, i)).ok());
    EXPECT_EQ(link.near.receiver->Receive(), Frame(i * 4001, i));
  }
  link.near.sender->Close();
  echo.join();
  EXPECT_TRUE(EndedCleanly(*link.far.receiver));
  EXPECT_GT(a.network().stats().bytes_sent, 50U * 49 / 2 * 4001);
}

TEST(Libp2p, AStreamToNobodyOrOfAnUnknownProtocolIsAnError) {
  TestNode a(2), b(3);
  EXPECT_EQ(a.network().OpenStream(b.id(), kProtocol, kOpenMs).error().code, ErrorCode::kUnavailable);
  Connect(a, b);
  EXPECT_FALSE(a.network().Serve(kProtocol).ok()) << "served already";
  EXPECT_EQ(a.network().Dial("not an address").error().code, ErrorCode::kInvalidArgument);
}

struct BadCertificate {
  const char* name;
  Bytes certificate;
  RefusalReason reason;
};

class Stranger : public testing::TestWithParam<BadCertificate> {};

TEST_P(Stranger, IsRefusedWhoeverDials) {
  TestNode member(3), stranger(2, GetParam().certificate);
  ASSERT_TRUE(stranger.network().Dial(member.address()).ok());
  const NetworkEvent told = stranger.Wait(NetworkEventKind::kRefused);
  EXPECT_TRUE(told.by_peer);
  EXPECT_EQ(told.reason, GetParam().reason);
  EXPECT_EQ(member.Wait(NetworkEventKind::kRefused).reason, GetParam().reason);
  EXPECT_EQ(stranger.network().OpenStream(member.id(), kProtocol, kOpenMs).error().code, ErrorCode::kUnavailable);

  ASSERT_TRUE(member.network().Dial(stranger.address()).ok());
  EXPECT_EQ(member.Wait(NetworkEventKind::kRefused).reason, GetParam().reason);
  EXPECT_FALSE(member.Saw(NetworkEventKind::kConnected));
  EXPECT_FALSE(member.Saw(NetworkEventKind::kInbound));
  EXPECT_GE(member.network().stats().refused_inbound, 1U);
}

Bytes Scratched() {
  Bytes certificate = Certify({kClusterSeed, Seed(2)});
  certificate[80] ^= 1;
  return certificate;
}

INSTANTIATE_TEST_SUITE_P(
    Certificates, Stranger,
    testing::Values(BadCertificate{"none", {}, RefusalReason::kNoCertificate},
                    BadCertificate{"scratched", Scratched(), RefusalReason::kForged},
                    BadCertificate{"of_another_key", Certify({kClusterSeed, Seed(4)}), RefusalReason::kForged},
                    BadCertificate{"of_another_cluster", Certify({Seed(9), Seed(2)}), RefusalReason::kOtherCluster},
                    BadCertificate{"expired", Certify({kClusterSeed, Seed(2), 1, 1}), RefusalReason::kExpired}),
    [](const auto& certificate) { return std::string(certificate.param.name); });

TEST(Libp2p, ARevokedMemberIsThrownOutAndStaysOut) {
  TestNode a(2), b(3);
  Connect(a, b);
  LinkPair link = OpenLink(a, b);
  sn_revocation fields{};
  const NodeId member = a.id();
  std::copy(member.bytes.begin(), member.bytes.end(), fields.member);
  fields.serial = UINT64_MAX;
  Bytes revocation(SN_REVOCATION_BYTES_MAX);
  const std::int64_t size = sn_revocation_issue(kClusterSeed.data(), &fields, revocation.data(), revocation.size());
  ASSERT_GT(size, 0);
  revocation.resize(static_cast<std::size_t>(size));

  Bytes forged = revocation;
  forged.back() ^= 1;
  EXPECT_EQ(b.network().Revoke(forged).error().code, ErrorCode::kCorrupt);
  ASSERT_TRUE(b.network().Revoke(revocation).ok());
  EXPECT_EQ(b.Wait(NetworkEventKind::kDisconnected).peer, a.id());
  EXPECT_FALSE(link.near.receiver->Receive()) << "its streams end";
  EXPECT_FALSE(EndedCleanly(*link.near.receiver));
  a.Wait(NetworkEventKind::kDisconnected);
  ASSERT_TRUE(a.network().Dial(b.address()).ok());
  EXPECT_EQ(a.Wait(NetworkEventKind::kRefused).reason, RefusalReason::kRevoked);
}

InviteOptions Invite(const Bytes& secret) {
  InviteOptions options;
  options.cluster_seed = kClusterSeed;
  options.secret = secret;
  options.expires_s = INT64_MAX;
  options.extras = {1, 2, 3};
  return options;
}

TEST(Libp2p, AnInviteLetsOneJoinerInWhoKnowsTheSecret) {
  TestNode inviter(2);
  const Bytes secret(10, 77), wrong(10, 78), seed = Seed(5);
  const auto join = [&](const Bytes& with) { return Network::Join(seed, "phone", inviter.address(), with, 5000); };
  EXPECT_EQ(join(secret).error().code, ErrorCode::kInvalidArgument) << "no invite is open";
  ASSERT_TRUE(inviter.network().OpenInvite(Invite(secret)).ok());
  EXPECT_EQ(join(wrong).error().code, ErrorCode::kInvalidArgument);
  const Result<JoinGrant> grant = join(secret);
  ASSERT_TRUE(grant.ok()) << grant.error().message;
  EXPECT_EQ(grant->cluster, PublicOf(kClusterSeed));
  EXPECT_EQ(grant->inviter, inviter.id());
  EXPECT_EQ(grant->extras, (Bytes{1, 2, 3}));
  EXPECT_EQ(inviter.Wait(NetworkEventKind::kJoined).peer, PublicOf(seed));
  EXPECT_FALSE(join(secret).ok()) << "it is used up";

  TestNode joined(5, grant->certificate);
  Connect(joined, inviter);
}

TEST(Libp2p, AnInviterMustKnowTheSecretToo) {
  TestNode inviter(2);
  EXPECT_EQ(Network::Join(Seed(5), "phone", "/ip4/127.0.0.1/tcp/1", Bytes(10, 1), 2000).error().code,
            ErrorCode::kUnavailable);
  EXPECT_EQ(Network::Join(Seed(5), "phone", inviter.address(), Bytes(3, 1), 2000).error().code,
            ErrorCode::kInvalidArgument)
      << "a secret that short is none";
  InviteOptions foreign = Invite(Bytes(10, 1));
  foreign.cluster_seed = Seed(8);
  EXPECT_EQ(inviter.network().OpenInvite(foreign).error().code, ErrorCode::kInvalidArgument);
}

TEST(Libp2p, ALostPeerIsNoCleanEnd) {
  TestNode a(2);
  auto b = std::make_unique<TestNode>(3);
  Connect(a, *b);
  LinkPair link = OpenLink(a, *b);
  ASSERT_TRUE(a.network().Disconnect(b->id()).ok());
  EXPECT_FALSE(link.far.receiver->Receive());
  EXPECT_FALSE(EndedCleanly(*link.far.receiver));
  EXPECT_TRUE(a.Wait(NetworkEventKind::kStreamEnd).lost);
  EXPECT_TRUE(b->Wait(NetworkEventKind::kStreamEnd).lost);
}

TEST(Libp2p, StoppingDeliversWhatWasSentAndIsBounded) {
  auto a = std::make_unique<TestNode>(2);
  TestNode b(3);
  Connect(*a, b);
  LinkPair link = OpenLink(*a, b);
  ASSERT_TRUE(link.near.sender->Send(Frame(200'000)).ok());
  link.near.sender->Close();
  std::thread reader([&] {
    EXPECT_EQ(link.far.receiver->Receive(), Frame(200'000));
    EXPECT_FALSE(link.far.receiver->Receive());
    EXPECT_TRUE(EndedCleanly(*link.far.receiver));
    link.far.sender->Close();
  });
  a->network().Stop(2000);
  reader.join();
  EXPECT_EQ(b.Wait(NetworkEventKind::kDisconnected).peer, a->id());
}

TEST(Libp2p, AStageThatDoesNotReadHoldsTheSender) {
  TestNode a(2), b(3);
  Connect(a, b);
  LinkPair link = OpenLink(a, b);
  std::atomic<std::size_t> sent{0};
  std::thread writer([&] {
    while (link.near.sender->Send(Frame(1 << 20)).ok()) ++sent;
  });
  std::size_t before = 0;
  do {
    before = sent;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  } while (sent != before);
  EXPECT_LT(sent, 64U) << "the rest waits at the sender, not in memory";
  link.far.receiver->Receive();
  link.near.sender->Close();
  writer.join();
}

TEST(Libp2p, ACloneOfOurKeyIsNoticedByBoth) {
  const Bytes certificate = Certify({kClusterSeed, Seed(2)});
  TestNode a(2, certificate, 100), b(2, certificate, 200);
  ASSERT_TRUE(a.network().Dial(b.address()).ok());
  EXPECT_NE(a.Wait(NetworkEventKind::kClone).later, b.Wait(NetworkEventKind::kClone).later);
}

}  // namespace
}  // namespace shoal
