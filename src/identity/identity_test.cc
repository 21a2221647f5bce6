// Keys, seals, certificates, invites and instances, over the real crypto of net/.
#include <gtest/gtest.h>

#include "identity/certificate.h"
#include "identity/crypto.h"
#include "identity/instance.h"
#include "identity/invite.h"
#include "identity/keys.h"

namespace shoal {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;

NodeKey KeyOf(std::uint8_t fill) { return *NodeKey::FromSeed(std::vector<std::uint8_t>(32, fill)); }

TEST(Keys, AnIdSurvivesItsText) {
  const NodeKey key = KeyOf(3);
  const std::string text = PeerIdText(key.id());
  EXPECT_EQ(text.size(), 52U);
  EXPECT_EQ(text.rfind("12D3KooW", 0), 0U);
  EXPECT_EQ(*ParsePeerId(text), key.id());
  for (const std::string& bad : {std::string(), text.substr(1), text + "x", std::string(5000, '1'), "Qm" + text}) {
    EXPECT_EQ(ParsePeerId(bad).error().code, ErrorCode::kInvalidArgument) << bad.substr(0, 60);
  }
  EXPECT_EQ(NodeKey::FromSeed(std::vector<std::uint8_t>(31)).error().code, ErrorCode::kCorrupt);
  EXPECT_NE(NodeKey::Generate()->id(), NodeKey::Generate()->id());
}

TEST(Keys, BytesThatAreNoKeyHaveANameAllTheSame) {
  NodeId id;
  for (int fill = 0; fill < 256; ++fill) {
    id.bytes.fill(static_cast<std::uint8_t>(fill));
    EXPECT_FALSE(PeerIdText(id).empty());
  }
}

TEST(Crypto, ASealOpensOnlyWithItsKeyAndUnchanged) {
  const Bytes text = {1, 2, 3};
  const SecretKey key = DeriveKey(text, "a label"), other = DeriveKey(text, "another");
  EXPECT_FALSE(key == other);
  const Bytes sealed = *Seal(key, text);
  EXPECT_EQ(sealed.size(), text.size() + kSealOverheadBytes);
  EXPECT_EQ(Open(key, sealed), text);
  EXPECT_FALSE(Open(other, sealed));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Bytes changed = sealed;
    changed[i] ^= 1;
    EXPECT_FALSE(Open(key, changed)) << i;
  }
  EXPECT_FALSE(Open(key, Bytes(sealed.begin(), sealed.begin() + 39)));
  EXPECT_NE(*Seal(key, text), sealed);
}

TEST(Certificates, SayWhatWasIssuedAndExpire) {
  const NodeKey cluster = KeyOf(1), member = KeyOf(2);
  const Result<Certificate> issued = IssueCertificate(cluster, member.id(), "phone", 7, kNow);
  ASSERT_TRUE(issued.ok());
  const Result<Certificate> parsed = ParseCertificate(issued->encoded, kNow);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(*parsed, *issued);
  EXPECT_EQ(parsed->cluster, cluster.id());
  EXPECT_EQ(parsed->member, member.id());
  EXPECT_EQ(parsed->name, "phone");
  EXPECT_TRUE(ParseCertificate(issued->encoded, -5).ok()) << "a board whose clock is in the past";
  EXPECT_EQ(ParseCertificate(issued->encoded, issued->expires_s).error().code, ErrorCode::kStale);
  for (std::size_t i = 0; i < issued->encoded.size(); ++i) {
    Bytes changed = issued->encoded;
    changed[i] ^= 4;
    EXPECT_EQ(ParseCertificate(changed, kNow).error().code, ErrorCode::kCorrupt) << i;
  }
  EXPECT_FALSE(IssueCertificate(cluster, member.id(), "", 7, kNow).ok());
  EXPECT_FALSE(IssueCertificate(cluster, member.id(), "two\nlines", 7, kNow).ok());
}

TEST(Certificates, AnyHostNameBecomesAName) {
  EXPECT_EQ(CleanNodeName("laptop"), "laptop");
  EXPECT_EQ(CleanNodeName("a\x1b[2Jb\xff\n"), "a[2Jb");
  EXPECT_EQ(CleanNodeName(""), "node");
  EXPECT_EQ(CleanNodeName("\n\xff"), "node");
  EXPECT_LE(CleanNodeName(std::string(500, 'x')).size(), kNodeNameBytesMax);
}

TEST(Invites, ACodeIsTypedAsPeopleType) {
  const InviteSecret secret = *GenerateInviteSecret();
  const std::string code = InviteCode(secret);
  EXPECT_EQ(code.size(), 19U);
  EXPECT_EQ(*ParseInviteCode(code), secret);
  std::string loose = " ";
  for (const char c : code) {
    if (c != '-') loose += static_cast<char>(std::tolower(c));
    if (c == '-') loose += "  ";
  }
  EXPECT_EQ(*ParseInviteCode(loose), secret);
  EXPECT_EQ(*ParseInviteCode("OOOO-IIII-LLLL-0000"), *ParseInviteCode("0000-1111-1111-0000"));
  for (const std::string& bad :
       {std::string(), code.substr(1), code + "0", std::string("UUUU-0000-0000-0000"), std::string(1000, '0')}) {
    EXPECT_EQ(ParseInviteCode(bad).error().code, ErrorCode::kInvalidArgument) << bad.substr(0, 40);
  }
}

TEST(Invites, AUrlCarriesCodeAndAddresses) {
  Invite invite{*GenerateInviteSecret(), {"192.168.1.7:48100", "[fe80::1]:48100"}};
  const Result<Invite> parsed = ParseInvite(InviteUrl(invite));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->secret, invite.secret);
  EXPECT_EQ(parsed->addresses, invite.addresses);
  EXPECT_TRUE(ParseInvite(InviteCode(invite.secret))->addresses.empty());
  EXPECT_FALSE(ParseInvite(InviteUrl(invite) + ",").ok());
  EXPECT_FALSE(ParseInvite(InviteUrl(invite) + ",two words").ok());
  const Result<std::string> qr = QrForTerminal(InviteUrl(invite));
  ASSERT_TRUE(qr.ok());
  EXPECT_EQ(qr->back(), '\n');
  EXPECT_FALSE(QrForTerminal(std::string(600, 'x')).ok());
}

// Over all pairs of ages: at least one of two clones gives way, and a run never gives way to itself.
TEST(Instances, OfTwoClonesOneGivesWay) {
  const std::int64_t ages[] = {0, 1'000'000, 3'900'000, 5'000'000, 60'000'000, INT64_MAX};
  for (const std::int64_t a : ages) {
    for (const std::int64_t b : ages) {
      EXPECT_TRUE(GivesWay({1, a}, {2, b}) || GivesWay({2, b}, {1, a})) << a << " " << b;
      EXPECT_FALSE(GivesWay({1, a}, {1, b}));
    }
  }
  EXPECT_TRUE(GivesWay({1, 0}, {2, 60'000'000})) << "the younger";
  EXPECT_FALSE(GivesWay({2, 60'000'000}, {1, 0}));
  EXPECT_NE(*MakeInstance(), 0U);
}

}  // namespace
}  // namespace shoal
