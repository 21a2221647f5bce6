// The small parts of a cluster's node, each alone.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "base/test_folder.h"
#include "base/test_models.h"
#include "device/cpu_affinity.h"
#include "model/test_parts.h"
#include "node/cluster_backend.h"
#include "node/control_link.h"
#include "node/joining.h"
#include "node/link_meter.h"
#include "node/model_library.h"
#include "node/peer_tasks.h"
#include "node/pipe_rendezvous.h"
#include "node/resolve.h"
#include "node/stage_metrics.h"
#include "node/token_cost.h"
#include "runtime/blocking_tasks.h"
#include "runtime/bounded_queue.h"
#include "transport/stream_link.h"

namespace shoal {
namespace {

using std::chrono::milliseconds;

NodeId Id(int number) {
  NodeId id;
  id.bytes.fill(static_cast<std::uint8_t>(number));
  return id;
}

struct TwoEnds {
  StreamLink here;
  int there;
};
TwoEnds MakeEnds() {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  return {MakeStreamLink(fds[0], kFrameBytesMax), fds[1]};
}

TEST(SpeedMetrics, OfAPlacementThatEndedAreGone) {
  MetricsRegistry metrics;
  PlacementStatus one, other;
  one.model = "one";
  other.model = "other";
  one.forecast.tokens_s = other.forecast.tokens_s = 20;
  one.observed.tokens_s_many = 70;
  SetSpeedMetrics(metrics, {one, other});
  const std::string expected = R"(shoal_tokens_per_second{model="one",of="one_stream",is="expected"} 20)";
  const std::string measured = R"(shoal_tokens_per_second{model="one",of="many_streams",is="measured"} 70)";
  EXPECT_NE(metrics.PrometheusText().find(expected), std::string::npos);
  EXPECT_NE(metrics.PrometheusText().find(measured), std::string::npos);
  one.observed = {};  // placed anew: nothing is measured yet
  SetSpeedMetrics(metrics, {one, other});
  EXPECT_NE(metrics.PrometheusText().find(expected), std::string::npos);
  EXPECT_EQ(metrics.PrometheusText().find(measured), std::string::npos);
  SetSpeedMetrics(metrics, {other});
  EXPECT_EQ(metrics.PrometheusText().find("model=\"one\""), std::string::npos);
  EXPECT_NE(metrics.PrometheusText().find("model=\"other\""), std::string::npos);
  SetSpeedMetrics(metrics, {});
  EXPECT_EQ(metrics.PrometheusText(), "");
}

TEST(TokenCost, IsPositiveAndLeavesNoSocket) {
  const auto model = OpenModelFile(TestModelPath("smollm2"));
  ASSERT_TRUE(model.ok()) << model.error().message;
  const TestFolder folder;
  const std::vector<int> cpus = AllowedCpus();
  for (const double ration : {1.0, 0.5}) {
    const auto cost = MeasureTokenCost(*model, {cpus.front()}, ration, folder.path());
    ASSERT_TRUE(cost.ok()) << cost.error().message;
    EXPECT_GT(*cost, 0);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
  EXPECT_EQ(AllowedCpus(), cpus) << "the calling thread stays where it was";
  EXPECT_FALSE(MeasureTokenCost(*model, {}, 1, folder.path()).ok());
  EXPECT_FALSE(MeasureTokenCost(*model, {cpus.front()}, 1, folder.path() + std::string(200, 'x')).ok());
}

TEST(LinkMeterTest, UnknownLinksAreProbedSoonAndKnownOnesSeldom) {
  LinkMeter meter;
  constexpr TimeUs kStart = 1'000'000;
  meter.LinkUp(Id(1), kStart);
  meter.LinkUp(Id(2), kStart);
  EXPECT_EQ(meter.Due(kStart), std::nullopt) << "a new link is left alone";
  TimeUs now = kStart + LinkMeter::kSettleUs;
  EXPECT_EQ(meter.Due(now), Id(1));
  EXPECT_EQ(meter.Due(now), std::nullopt) << "one after the other";
  EXPECT_TRUE(meter.Measured(Id(1), 20'000'000, now));
  EXPECT_FALSE(meter.Measured(Id(1), 20'000'000, now)) << "no news";
  EXPECT_FALSE(meter.Measured(Id(1), 21'000'000, now)) << "about the same";
  EXPECT_TRUE(meter.Measured(Id(1), 40'000'000, now));
  EXPECT_FALSE(meter.Measured(Id(3), 1'000'000, now)) << "nobody linked";
  now += LinkMeter::kNewSpacingUs;
  EXPECT_EQ(meter.Due(now), Id(2));
  for (DurationUs again = LinkMeter::kAgainUs; again < LinkMeter::kSpacingUs; again *= 2) {
    EXPECT_EQ(meter.Due(now + again - 1), std::nullopt);
    EXPECT_EQ(meter.Due(now += again), Id(2)) << "nothing came of the one before";
  }
  EXPECT_EQ(meter.Due(now + LinkMeter::kSpacingUs - 1), std::nullopt);
  EXPECT_EQ(meter.Due(now += LinkMeter::kSpacingUs), Id(2)) << "as seldom as any";
  EXPECT_TRUE(meter.Measured(Id(2), 1'000'000, now));
  EXPECT_EQ(meter.Due(now + LinkMeter::kFreshUs / 2), std::nullopt) << "all are known";
  meter.LinkDown(Id(2));
  EXPECT_EQ(meter.Due(now + LinkMeter::kFreshUs), Id(1)) << "an old figure";
}

TEST(LinkMeterTest, AHundredLinksCostLittleAnHour) {
  LinkMeter meter;
  for (int i = 1; i <= 100; ++i) meter.LinkUp(Id(i), 0);
  int probes = 0;
  constexpr TimeUs kHour = 3'600'000'000;
  const auto run = [&](TimeUs from, TimeUs to) {
    for (TimeUs now = from; now < to; now += 1'000'000) {
      const std::optional<NodeId> peer = meter.Due(now);
      if (!peer) continue;
      ++probes;
      meter.Measured(*peer, 1'000'000 + static_cast<std::uint64_t>(now / 1000), now);
    }
  };
  run(0, kHour);
  EXPECT_EQ(probes, 100) << "each once";
  probes = 0;
  run(kHour, 4 * kHour);
  EXPECT_LE(probes, 3 * kHour / LinkMeter::kSpacingUs + 1);
  EXPECT_GE(probes, 80);
}

TEST(PeerTasksTest, OnePeerLeavesRoomForOthers) {
  PeerTasks tasks;
  std::atomic<bool> go{false};
  const auto wait = [&] {
    while (!go) std::this_thread::sleep_for(milliseconds(1));
  };
  for (std::size_t i = 0; i < PeerTasks::kPerPeerMax; ++i) ASSERT_TRUE(tasks.Run(Id(1), wait)) << i;
  EXPECT_FALSE(tasks.Run(Id(1), wait));
  EXPECT_TRUE(tasks.Run(Id(2), wait));
  go = true;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!tasks.Run(Id(1), [] {})) {  // a place comes back with the task that had it
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(milliseconds(1));
  }
  tasks.Join();
  EXPECT_FALSE(tasks.Run(Id(3), [] {})) << "after the end";
}

TEST(BlockingTasksTest, RunsAtMostSoManyAndJoinsThem) {
  std::atomic<int> ran{0};
  std::atomic<bool> go{false};
  {
    BlockingTasks tasks(2);
    const auto wait = [&] {
      while (!go) std::this_thread::sleep_for(milliseconds(1));
      ++ran;
    };
    EXPECT_TRUE(tasks.Run(wait));
    EXPECT_TRUE(tasks.Run(wait));
    EXPECT_FALSE(tasks.Run(wait)) << "two run";
    go = true;
    tasks.Join();
    EXPECT_EQ(ran, 2);
    EXPECT_FALSE(tasks.Run(wait)) << "after the end";
  }
  EXPECT_EQ(ran, 2);
}

TEST(PipeRendezvousTest, StreamAndStageMeetInEitherOrder) {
  PipeRendezvous pipes;
  const PipeHello hello{PipeKind::kInput, 0, 1};
  TwoEnds early = MakeEnds();
  pipes.Add(Id(1), 5, hello, ReceivingEnd(std::move(early.here)));
  EXPECT_TRUE(pipes.Take(Id(1), 5, hello, milliseconds(10)).ok());
  EXPECT_EQ(pipes.Take(Id(1), 5, hello, milliseconds(10)).error().code, ErrorCode::kUnavailable) << "taken already";

  TwoEnds late = MakeEnds();
  std::thread adder([&] {
    std::this_thread::sleep_for(milliseconds(30));
    pipes.Add(Id(1), 6, hello, ReceivingEnd(std::move(late.here)));
  });
  EXPECT_TRUE(pipes.Take(Id(1), 6, hello, milliseconds(10'000)).ok());
  adder.join();
}

TEST(PipeRendezvousTest, AnotherPeerOrEpochGetsNothing) {
  PipeRendezvous pipes;
  const PipeHello hello{PipeKind::kResults, 1, 0};
  pipes.Add(Id(1), 5, hello, ReceivingEnd(MakeEnds().here));
  EXPECT_FALSE(pipes.Take(Id(2), 5, hello, milliseconds(1)).ok());
  EXPECT_FALSE(pipes.Take(Id(1), 6, hello, milliseconds(1)).ok());
  EXPECT_FALSE(pipes.Take(Id(1), 5, {PipeKind::kInput, 1, 0}, milliseconds(1)).ok());
  EXPECT_TRUE(pipes.Take(Id(1), 5, hello, milliseconds(1)).ok());
}

TEST(PipeRendezvousTest, AnEpochThatIsClosedIsClosedForGood) {
  PipeRendezvous pipes;
  const PipeHello hello{PipeKind::kInput, 0, 1};
  std::thread closer([&] {
    std::this_thread::sleep_for(milliseconds(30));
    pipes.CloseEpoch(5);
  });
  EXPECT_EQ(pipes.Take(Id(1), 5, hello, milliseconds(10'000)).error().code, ErrorCode::kCancelled);
  closer.join();
  pipes.Add(Id(1), 5, hello, ReceivingEnd(MakeEnds().here));
  EXPECT_EQ(pipes.Take(Id(1), 5, hello, milliseconds(1)).error().code, ErrorCode::kCancelled);
}

TEST(ControlLinkTest, CarriesMessagesAndTellsTheEnd) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  RealLoop loop;
  BoundedQueue<std::uint32_t> heard(16);
  std::atomic<bool> ended{false};
  auto a = *ControlLink::Open(loop, fds[0], ControlLink::Handlers{[](const ClusterMessage&) {}, [] {}});
  auto b = *ControlLink::Open(
      loop, fds[1],
      ControlLink::Handlers{[&](const ClusterMessage& message) { heard.Push(std::get<HearsAsk>(message).round); },
                            [&] { ended = true; }});
  for (std::uint32_t round = 0; round < 5; ++round) {
    EXPECT_TRUE(a->Send(EncodeClusterMessage(HearsAsk{Id(3), round})));
  }
  for (std::uint32_t round = 0; round < 5; ++round) EXPECT_EQ(heard.PopFor(std::chrono::seconds(10)), round);
  a.reset();
  for (int i = 0; i < 1000 && !ended; ++i) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_TRUE(ended);
  loop.Stop();
}

TEST(ControlLinkTest, APeerThatDoesNotReadFillsTheQueueAndBlocksNobody) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  RealLoop loop;
  TwoEnds unread{MakeStreamLink(fds[1], kFrameBytesMax), -1};
  const auto link = *ControlLink::Open(loop, fds[0], ControlLink::Handlers{[](const ClusterMessage&) {}, [] {}});
  const std::vector<std::uint8_t> frame = EncodeClusterMessage(SyncDelta{{}, {}, {std::vector<std::uint8_t>(500)}});
  int sent = 0;
  while (sent < 100'000 && link->Send(frame)) ++sent;
  EXPECT_LT(sent, 100'000);
  loop.Stop();
}

PlacementView PlacementOf(const std::string& model) {
  PlacementView view;
  view.record.model = model;
  view.record.request.fingerprint = 1;
  return view;
}

TEST(BackendTableTest, AModelThatTakesLongKeepsNobodyFromAnother) {
  PlacementTable placements;
  placements.Set({PlacementOf("slow"), PlacementOf("fast")});
  BackendTable table;
  std::promise<void> arrives;
  std::atomic<int> opened{0};
  const auto open = [&](const PlacementRecord& record) -> Result<std::shared_ptr<Backend>> {
    if (record.model == "slow" && ++opened == 1) arrives.get_future().wait();
    return Error{ErrorCode::kNotFound, "nothing of it is here"};
  };
  const auto never = [] { return false; };
  std::thread first([&] { EXPECT_EQ(table.Find("slow", placements, open, never), nullptr); });
  while (opened == 0) std::this_thread::yield();
  EXPECT_EQ(table.Find("fast", placements, open, never), nullptr) << "and not blocked";
  EXPECT_EQ(table.Find("slow", placements, open, [] { return true; }), nullptr) << "given up";
  EXPECT_EQ(opened, 1) << "one at a time";
  arrives.set_value();
  first.join();
  EXPECT_EQ(table.Find("slow", placements, open, never), nullptr);
  EXPECT_EQ(opened, 2) << "tried again";
}

class NamedBackend final : public Backend {
 public:
  explicit NamedBackend(const PlacementRecord& record)
      : card_{record.model, 0, record.request.options.context_tokens} {}
  ModelCard model() const override { return card_; }
  const Vocabulary& vocabulary() const override { std::abort(); }
  std::shared_ptr<const Vocabulary> shared_vocabulary() const override { return nullptr; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return nullptr; }
  Result<std::unique_ptr<GenerationHandle>> Generate(GenerateOptions) override {
    return Error{ErrorCode::kUnavailable, "it only has a name"};
  }

 private:
  const ModelCard card_;
};

TEST(BackendTableTest, KeepsWhatIsPlacedAsItIsPlaced) {
  PlacementTable placements;
  BackendTable table;
  int opened = 0;
  const auto open = [&](const PlacementRecord& record) -> Result<std::shared_ptr<Backend>> {
    ++opened;
    return std::shared_ptr<Backend>(std::make_shared<NamedBackend>(record));
  };
  const auto find = [&](const char* name) { return table.Find(name, placements, open, [] { return false; }); };
  PlacementView placed = PlacementOf("one");
  placements.Set({placed, PlacementOf("other")});
  EXPECT_EQ(find("one"), find("one"));
  EXPECT_EQ(opened, 1);
  placed.record.request.options.context_tokens = 8192;
  placements.Set({placed, PlacementOf("other")});
  EXPECT_EQ(find("one")->model().context_tokens_max, 8192);
  std::weak_ptr<Backend> one = find("one");
  placements.Set({PlacementOf("other")});
  EXPECT_NE(find("other"), nullptr);
  EXPECT_TRUE(one.expired()) << "nobody can ask for it any more";
}

TEST(InviteExtrasTest, ComeBackAsTheyWere) {
  InviteExtras extras;
  extras.cluster_secret.bytes.fill(9);
  extras.addresses = {"10.0.0.1:48100", "[fd77::1]:48100"};
  const Result<InviteExtras> read = DecodeInviteExtras(EncodeInviteExtras(extras));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->cluster_secret, extras.cluster_secret);
  EXPECT_EQ(read->addresses, extras.addresses);
  extras.addresses.assign(100, "10.0.0.1:48100");
  EXPECT_LE(EncodeInviteExtras(extras).size(), 480U) << "what does not fit is left out";
  EXPECT_EQ(DecodeInviteExtras(Bytes(31)).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(DecodeInviteExtras(Bytes(481)).error().code, ErrorCode::kCorrupt);
}

TEST(ResolveTest, LiteralsAndNames) {
  const auto literal = Resolve("10.0.0.1:7");
  ASSERT_TRUE(literal.ok());
  EXPECT_EQ(EndpointText(literal->front()), "10.0.0.1:7");
  const auto name = Resolve("localhost:7");
  ASSERT_TRUE(name.ok());
  for (const Endpoint& endpoint : *name) EXPECT_TRUE(IsLoopback(endpoint) && endpoint.port == 7);
  EXPECT_FALSE(Resolve("no-such-name.invalid:7").ok());
}

class ModelLibraryTest : public testing::Test {
 protected:
  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(ModelLibraryTest, FindsFilesAndLeavesOutWhatIsNone) {
  std::ofstream(folder_ + "/broken.gguf") << "nonsense";
  std::ofstream(folder_ + "/readme.txt") << "no model";
  const std::string model = TestModelPath("smollm2");
  if (!std::filesystem::exists(model)) GTEST_SKIP() << model << " is absent: `./dev model smollm2` fetches it";
  ModelLibrary library({folder_});
  EXPECT_EQ(library.Find("small").error().code, ErrorCode::kNotFound);
  std::filesystem::create_symlink(model, folder_ + "/small.gguf");
  const Result<LibraryModel> found = library.Find("small");
  ASSERT_TRUE(found.ok()) << "a file that came later is found";
  EXPECT_NE(found->fingerprint, 0U);
  EXPECT_EQ(library.models().size(), 1U);
  EXPECT_TRUE(library.FindFingerprint(found->fingerprint).ok());
  EXPECT_FALSE(library.FindFingerprint(found->fingerprint + 1).ok());
  const Result<LibraryModel> by_path = library.Find(model);
  ASSERT_TRUE(by_path.ok());
  EXPECT_EQ(by_path->fingerprint, found->fingerprint) << "one file, one fingerprint, whatever its name";
  const auto first = library.OpenVocabulary(*found), second = library.OpenVocabulary(*found);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*first, *second) << "opened once";
}

TEST_F(ModelLibraryTest, PartsAreOneModelOnceAllAreThere) {
  const std::string model = TestModelPath("smollm2");
  if (!std::filesystem::exists(model)) GTEST_SKIP() << model << " is absent: `./dev model smollm2` fetches it";
  const auto whole = OpenModelFile(model);
  ASSERT_TRUE(whole.ok());
  CutTestModel(model, folder_ + "/big", {0, 100, (*whole)->gguf.tensors.size() - 100});
  const SplitName name{folder_ + "/big", 1, 3};
  std::filesystem::rename(PartName(name, 3), folder_ + "/later");
  ModelLibrary library({folder_});
  library.Scan();
  EXPECT_TRUE(library.models().empty());
  std::filesystem::rename(folder_ + "/later", PartName(name, 3));
  const Result<LibraryModel> found = library.Find("big");
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(library.models().size(), 1U);
  const Result<LibraryModel> by_path = library.Find(PartName(name, 3));
  ASSERT_TRUE(by_path.ok());
  EXPECT_EQ(by_path->fingerprint, found->fingerprint);
  EXPECT_EQ(library.models().size(), 1U);
  EXPECT_TRUE(library.OpenVocabulary(*found).ok());
}

}  // namespace
}  // namespace shoal
