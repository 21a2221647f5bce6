// A node's folder over restarts, crashes between two writes, copies, and files that somebody broke. The crypto is real.
#include "identity/home.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/test_folder.h"
#include "identity/private_file.h"

namespace shoal {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;

// `path_` does not exist yet.
class HomeTest : public testing::Test {
 protected:
  std::unique_ptr<Home> OpenHome(std::int64_t now_s = kNow) {
    auto home = Home::Open(path_, now_s);
    EXPECT_TRUE(home.ok()) << home.error().message;
    return home.ok() ? std::move(home).value() : nullptr;
  }
  Error OpenFails(std::int64_t now_s = kNow) {
    auto home = Home::Open(path_, now_s);
    EXPECT_FALSE(home.ok());
    return home.ok() ? Error{} : home.error();
  }
  void Put(const std::string& name, const std::string& text) {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    chmod(path.c_str(), 0600);
  }
  bool Exists(const std::string& name) { return std::filesystem::exists(path_ + "/" + name); }
  mode_t ModeOf(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777;
  }

  const TestFolder temporary_;
  const std::string root_ = temporary_.path(), path_ = root_ + "/deep/er";
};

TEST_F(HomeTest, ANewFolderHasAKeyThatStaysAndIsPrivate) {
  umask(0);  // the modes come from us, not from the umask
  NodeId id;
  {
    const auto home = OpenHome();
    EXPECT_TRUE(home->is_new());
    EXPECT_FALSE(home->membership());
    id = home->id();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    ASSERT_TRUE(home->StorePeers("{}").ok());
  }
  umask(022);
  EXPECT_EQ(ModeOf(path_), 0700U);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    EXPECT_EQ(ModeOf(entry.path()), 0600U) << entry.path();
    EXPECT_NE(entry.path().extension(), ".new");
    ++files;
  }
  EXPECT_EQ(files, 7);
  const auto home = OpenHome();
  EXPECT_FALSE(home->is_new());
  EXPECT_EQ(home->id(), id);
  ASSERT_TRUE(home->membership());
  EXPECT_TRUE(home->membership()->is_owner());
  EXPECT_EQ(home->membership()->certificate.name, "laptop");
  EXPECT_EQ(home->membership()->certificate.member, id);
  EXPECT_FALSE(home->CreateCluster("again", kNow).ok());
}

TEST_F(HomeTest, OneNodeAFolderAlsoOverProcesses) {
  auto home = OpenHome();
  const Error second = OpenFails();
  EXPECT_EQ(second.code, ErrorCode::kUnavailable);
  EXPECT_NE(second.message.find(std::to_string(getpid())), std::string::npos) << second.message;
  const pid_t child = fork();
  if (child == 0) {
    const auto opened = Home::Open(path_, kNow);
    _exit(!opened.ok() && opened.error().code == ErrorCode::kUnavailable ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  home.reset();
  EXPECT_TRUE(OpenHome());
}

TEST_F(HomeTest, ALockDiesWithItsProcess) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto opened = Home::Open(path_, kNow);
    const char ok = opened.ok() ? '1' : '0';
    if (write(ready[1], &ok, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char ok = 0;
  ASSERT_EQ(read(ready[0], &ok, 1), 1);
  EXPECT_EQ(ok, '1');
  EXPECT_EQ(OpenFails().code, ErrorCode::kUnavailable);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(OpenHome());
  close(ready[0]);
  close(ready[1]);
}

TEST_F(HomeTest, AGrantMakesAMemberAndForgettingEndsIt) {
  const NodeKey cluster = *NodeKey::Generate();
  SecretKey secret;
  ASSERT_TRUE(FillRandom(secret.bytes).ok());
  NodeId id;
  {
    const auto home = OpenHome();
    id = home->id();
    const Certificate foreign = *IssueCertificate(cluster, cluster.id(), "other", 1, kNow);
    EXPECT_EQ(home->StoreGrant(foreign, secret).error().code, ErrorCode::kInvalidArgument);
    ASSERT_TRUE(home->StoreGrant(*IssueCertificate(cluster, id, "phone", 1, kNow), secret).ok());
    EXPECT_EQ(home->NextSerial(kNow).error().code, ErrorCode::kUnavailable);
    EXPECT_EQ(home->Revoke(cluster.id(), kNow).error().code, ErrorCode::kUnavailable);
    const NodeKey elsewhere = *NodeKey::Generate();
    EXPECT_FALSE(home->StoreGrant(*IssueCertificate(elsewhere, id, "phone", 1, kNow), secret).ok());
    ASSERT_TRUE(home->StorePeers("{}").ok());
  }
  const auto home = OpenHome();
  ASSERT_TRUE(home->membership());
  EXPECT_FALSE(home->membership()->is_owner());
  EXPECT_EQ(home->membership()->cluster(), cluster.id());
  EXPECT_EQ(home->membership()->cluster_secret, secret);
  ASSERT_TRUE(home->ForgetCluster().ok());
  EXPECT_FALSE(home->membership());
  for (const char* name : {"certificate", "cluster.secret", "cluster.key", "revocations", "peers.json"}) {
    EXPECT_FALSE(Exists(name)) << name;
  }
  EXPECT_EQ(home->id(), id);
  EXPECT_TRUE(home->CreateCluster("alone", kNow).ok());
}

TEST_F(HomeTest, AloneUntilItInvites) {
  const auto home = OpenHome();
  EXPECT_FALSE(*home->HasNeverInvited()) << "in no cluster";
  ASSERT_TRUE(home->CreateCluster("first", kNow).ok());
  EXPECT_TRUE(*home->HasNeverInvited());
  ASSERT_TRUE(home->NextSerial(kNow).ok());
  EXPECT_FALSE(*home->HasNeverInvited()) << "it has made an invite";
}

TEST_F(HomeTest, ARevocationStaysAndCoversOnlyWhatWasIssuedBefore) {
  const NodeId phone = NodeKey::Generate()->id();
  Revocation revocation;
  Certificate before, after;
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    const NodeKey& key = *home->membership()->cluster_key;
    before = *IssueCertificate(key, phone, "phone", *home->NextSerial(kNow), kNow);
    EXPECT_EQ(home->Revoke(home->id(), kNow).error().code, ErrorCode::kInvalidArgument);
    revocation = *home->Revoke(phone, kNow);
    after = *IssueCertificate(key, phone, "phone", *home->NextSerial(kNow), kNow);
    EXPECT_FALSE(*home->AddRevocation(revocation)) << "no news";
    const NodeKey stranger = *NodeKey::Generate();
    EXPECT_FALSE(home->AddRevocation(*IssueRevocation(stranger, phone, 9, kNow)).ok());
  }
  const auto home = OpenHome();
  ASSERT_EQ(home->revocations().size(), 1U);
  EXPECT_EQ(home->revocations()[0], revocation);
  EXPECT_TRUE(home->IsRevoked(before));
  EXPECT_FALSE(home->IsRevoked(after)) << "it covers what was issued before";
  EXPECT_FALSE(home->IsRevoked(home->membership()->certificate));
  ASSERT_TRUE(home->Revoke(phone, kNow).ok());
  EXPECT_EQ(home->revocations().size(), 1U) << "the later one replaces the earlier";
  EXPECT_TRUE(home->IsRevoked(after));
}

TEST_F(HomeTest, CountsOnlyRise) {
  std::uint64_t incarnation = 0, serial = 0;
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    EXPECT_EQ(*home->NextIncarnation(0), 1U);
    EXPECT_EQ(*home->NextIncarnation(40), 40U);
    incarnation = *home->NextIncarnation(7);
    EXPECT_EQ(incarnation, 41U);
    serial = *home->NextSerial(kNow);
    EXPECT_GT(serial, home->membership()->certificate.serial);
  }
  const auto home = OpenHome();
  EXPECT_EQ(*home->NextIncarnation(0), incarnation + 1);
  EXPECT_GT(*home->NextSerial(0), serial) << "a clock set back changes nothing";
  Put("incarnation", "12 monkeys");
  EXPECT_EQ(home->NextIncarnation(0).error().code, ErrorCode::kCorrupt);
  Put("incarnation", "18446744073709551615");
  EXPECT_EQ(home->NextIncarnation(0).error().code, ErrorCode::kCorrupt);
}

TEST_F(HomeTest, ACloneTakesANewKey) {
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    const NodeId before = home->id();
    const NodeId cluster = home->membership()->cluster();
    ASSERT_TRUE(home->ReplaceNodeKey(kNow).ok());
    EXPECT_NE(home->id(), before);
    EXPECT_EQ(home->membership()->certificate.member, home->id());
    EXPECT_EQ(home->membership()->cluster(), cluster);
  }
  const auto home = OpenHome();
  const NodeId owner = home->id();
  EXPECT_EQ(home->membership()->certificate.member, owner);
  ASSERT_TRUE(home->ForgetCluster().ok());
  const NodeKey cluster = *NodeKey::Generate();
  ASSERT_TRUE(home->StoreGrant(*IssueCertificate(cluster, owner, "phone", 1, kNow), SecretKey{}).ok());
  ASSERT_TRUE(home->ReplaceNodeKey(kNow).ok());
  EXPECT_NE(home->id(), owner);
  EXPECT_FALSE(home->membership()) << "who is no owner has to be invited again";
}

// What a crash between the writes of ReplaceNodeKey and of CreateCluster leaves.
TEST_F(HomeTest, CrashesBetweenTwoFilesAreUnderstood) {
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
  }
  const NodeKey other = *NodeKey::Generate();
  ASSERT_TRUE(WritePrivateFile(path_ + "/node.key", other.seed()).ok());
  {
    const auto home = OpenHome();
    EXPECT_EQ(home->id(), other.id());
    EXPECT_EQ(home->membership()->certificate.member, other.id());
    EXPECT_EQ(home->membership()->certificate.name, "laptop");
  }
  std::filesystem::remove(path_ + "/certificate");
  Put("node.key.new", "half a ke");
  const auto home = OpenHome();
  EXPECT_EQ(home->id(), other.id());
  EXPECT_FALSE(home->membership());
  EXPECT_TRUE(home->CreateCluster("laptop", kNow).ok());
}

TEST_F(HomeTest, AnOwnerRenewsItsCertificateAndAMemberIsTold) {
  const std::int64_t later = kNow + kCertificateLifetimeS + 1;
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
  }
  { EXPECT_GT(OpenHome(later)->membership()->certificate.expires_s, later); }
  std::filesystem::remove(path_ + "/cluster.key");
  {
    const auto home = OpenHome(later + kCertificateLifetimeS);
    EXPECT_FALSE(home->membership());
    EXPECT_EQ(home->expired().error().code, ErrorCode::kStale);
  }
  EXPECT_TRUE(Exists("certificate")) << "nothing is thrown away for a clock that may be wrong";
  EXPECT_TRUE(OpenHome(later)->membership());
  const auto home = OpenHome(later + kCertificateLifetimeS);  // whoever is invited again becomes a member again
  const NodeKey cluster = *NodeKey::Generate();
  const Certificate anew = *IssueCertificate(cluster, home->id(), "laptop", 1, later + kCertificateLifetimeS);
  ASSERT_TRUE(home->StoreGrant(anew, SecretKey()).ok());
  EXPECT_TRUE(home->expired().ok());
  EXPECT_EQ(home->membership()->cluster(), cluster.id());
}

TEST_F(HomeTest, AnOwnerRemembersNamesUntilTheyAreThrownOut) {
  const NodeId phone = NodeKey::Generate()->id(), tablet = NodeKey::Generate()->id();
  {
    const auto home = OpenHome();
    EXPECT_TRUE(home->Remember(phone, "phone").ok());
    EXPECT_TRUE(home->known_members().empty()) << "no owner yet";
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    ASSERT_TRUE(home->Remember(phone, "mobile").ok());
    ASSERT_TRUE(home->Remember(phone, "phone").ok());
    ASSERT_TRUE(home->Remember(tablet, "a\ntablet").ok());
    ASSERT_TRUE(home->Remember(home->id(), "laptop").ok());
    EXPECT_EQ(home->known_members().size(), 2U);
    EXPECT_EQ(home->known_members().at(phone), "phone");
  }
  const auto home = OpenHome();
  EXPECT_EQ(home->known_members().size(), 2U);
  EXPECT_EQ(home->known_members().at(tablet).find('\n'), std::string::npos);
  ASSERT_TRUE(home->Revoke(phone, kNow).ok());
  ASSERT_TRUE(home->Remember(phone, "phone").ok());
  EXPECT_FALSE(home->known_members().contains(phone));
  ASSERT_TRUE(home->ForgetCluster().ok());
  EXPECT_FALSE(Exists("members"));
}

TEST_F(HomeTest, ABrokenListOfNamesIsBegunAnew) {
  const NodeId phone = NodeKey::Generate()->id();
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    ASSERT_TRUE(home->Remember(phone, "phone").ok());
  }
  Put("members", "half a li");
  const auto home = OpenHome();
  EXPECT_TRUE(home->known_members().empty());
  ASSERT_TRUE(home->Remember(phone, "phone").ok());
  EXPECT_EQ(home->known_members().size(), 1U);
}

TEST(KnownMembersFile, ComesBackAndIsRefusedWhenBroken) {
  const NodeId one = NodeKey::Generate()->id(), other = NodeKey::Generate()->id();
  const KnownMembers members = {{one, "a phone of mine"}, {other, ""}};
  EXPECT_EQ(*ParseKnownMembers(EncodeKnownMembers(members)), members);
  const std::string line = PeerIdText(one) + " phone\n";
  for (const std::string& bad : {line + line, line.substr(0, line.size() - 1), std::string("phone\n"),
                                 PeerIdText(one) + "\n", "x" + line, std::string("\n")}) {
    const Bytes bytes(bad.begin(), bad.end());
    const Result<KnownMembers> parsed = ParseKnownMembers(bytes);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt);
  }
}

TEST_F(HomeTest, BrokenFilesAreNamedAndKept) {
  {
    const auto home = OpenHome();
    ASSERT_TRUE(home->CreateCluster("laptop", kNow).ok());
    ASSERT_TRUE(home->Revoke(NodeKey::Generate()->id(), kNow).ok());
  }
  for (const char* name : {"node.key", "certificate", "cluster.secret", "cluster.key", "revocations"}) {
    const Bytes good = **ReadPrivateFile(path_ + "/" + name, 4096);
    for (const std::string& bad : {std::string("?"), std::string(3000, 'x'), std::string(31, '\0')}) {
      Put(name, bad);
      const Error error = OpenFails();
      EXPECT_EQ(error.code, ErrorCode::kCorrupt) << error.message;
      EXPECT_NE(error.message.find(name), std::string::npos) << error.message;
      EXPECT_EQ(std::filesystem::file_size(path_ + "/" + name), bad.size());
    }
    ASSERT_TRUE(WritePrivateFile(path_ + "/" + name, good).ok());
  }
  std::filesystem::remove(path_ + "/node.key");
  EXPECT_EQ(OpenFails().code, ErrorCode::kCorrupt) << "a lost key beside a certificate is no new node";
}

TEST_F(HomeTest, WhatOthersCouldReadOrWriteIsRefused) {
  OpenHome().reset();
  const std::string key = path_ + "/node.key";
  ASSERT_EQ(chmod(key.c_str(), 0644), 0);
  const Error error = OpenFails();
  EXPECT_EQ(error.code, ErrorCode::kIo);
  EXPECT_NE(error.message.find("chmod 600"), std::string::npos) << error.message;
  ASSERT_EQ(chmod(key.c_str(), 0600), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0777), 0);
  EXPECT_EQ(OpenFails().code, ErrorCode::kIo);
  ASSERT_EQ(chmod(path_.c_str(), 0755), 0);
  EXPECT_TRUE(OpenHome());
  EXPECT_EQ(ModeOf(path_), 0700U) << "narrowed";
  EXPECT_EQ(Home::Open(key, kNow).error().code, ErrorCode::kIo) << "a file is no folder";
  EXPECT_EQ(Home::Open("", kNow).error().code, ErrorCode::kIo);
}

TEST_F(HomeTest, PeersAreBounded) {
  const auto home = OpenHome();
  EXPECT_EQ(*home->LoadPeers(), "");
  ASSERT_TRUE(home->StorePeers("{\"a\":1}").ok());
  EXPECT_EQ(*home->LoadPeers(), "{\"a\":1}");
  EXPECT_EQ(home->StorePeers(std::string(kPeersFileBytesMax + 1, ' ')).error().code, ErrorCode::kInvalidArgument);
  Put("peers.json", std::string(kPeersFileBytesMax + 1, ' '));
  EXPECT_EQ(*home->LoadPeers(), "");
}

// A disk that is full leaves the file as it was. /dev/full cannot be renamed over, so: a limit on the size of files.
TEST_F(HomeTest, AWriteThatFailsLeavesTheOldFile) {
  const std::string file = root_ + "/file";
  ASSERT_TRUE(WritePrivateFile(file, Bytes(10, 'a')).ok());
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100, 100};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    const Status status = WritePrivateFile(file, Bytes(1000, 'b'));
    _exit(!status.ok() && status.error().code == ErrorCode::kIo ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(**ReadPrivateFile(file, 100), Bytes(10, 'a'));
  EXPECT_FALSE(std::filesystem::exists(file + ".new"));
}

TEST(DefaultHome, ComesFromTheEnvironment) {
  const char* home = std::getenv("HOME");
  const std::string before = home != nullptr ? home : "";
  const char* own = std::getenv("SHOAL_HOME");
  const std::string own_before = own != nullptr ? own : "";
  setenv("SHOAL_HOME", "/somewhere/s", 1);
  EXPECT_EQ(*DefaultHomeFolder(), "/somewhere/s");
  unsetenv("SHOAL_HOME");
  setenv("HOME", "/somewhere", 1);
  EXPECT_EQ(*DefaultHomeFolder(), "/somewhere/.shoal");
  unsetenv("HOME");
  EXPECT_EQ(DefaultHomeFolder().error().code, ErrorCode::kNotFound);
  if (home != nullptr) setenv("HOME", before.c_str(), 1);
  if (own != nullptr) setenv("SHOAL_HOME", own_before.c_str(), 1);
}

}  // namespace
}  // namespace shoal
