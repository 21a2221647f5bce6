// Clusters that meet, lose each other, and agree again.
#include "cluster/cluster.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "cluster/pump_test.h"

namespace shoal {
namespace {

class ClusterTest : public testing::Test {
 protected:
  void Three() {
    for (int i = 0; i < 3; ++i) pump.Add();
    pump.Meet(0, 1);
    pump.Meet(0, 2);  // the third link comes by gossip
    ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 10 * kSecond));
  }
  // The model over the last three of four, and a copy of each of its stages.
  void FourWithCopies() {
    Three();
    pump.Add();
    pump.MeetAll();
    ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
    PlaceRequest request;
    request.nodes = {TestId(1), TestId(2), TestId(3)};
    ASSERT_TRUE(pump.Place(0, request).ok());
    ASSERT_TRUE(pump.Until([&] { return At(0)->survives.size() == 3; }, 20 * kSecond));
  }
  // `count` nodes, the model over the first two; the third has by far the most memory, each other one `budget` bytes.
  // The epoch.
  Epoch PlacedOnTwo(int count, std::uint64_t budget) {
    for (int i = 0; i < count; ++i) {
      pump.Add([&](ClusterOptions& options) {
        options.facts.device.memory_budget_bytes = i == 2 ? std::uint64_t{4'000'000} : budget;
      });
    }
    pump.MeetAll();
    EXPECT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
    PlaceRequest request;
    request.nodes = {TestId(0), TestId(1)};
    request.options.standby = 0;
    EXPECT_TRUE(pump.Place(0, request).ok());
    return At(0) ? At(0)->record.epoch : Epoch{};
  }
  std::optional<PlacementView> At(int n) { return pump.At(n).placement("m"); }
  // What node `n` answers when it is asked to prepare `record`; nothing when it takes the stages up.
  std::optional<StageStatus> Refusal(int n, PlacementRecord record) {
    record.state = PlacementState::kPreparing;
    record.decider = TestId(0);
    pump.At(n).OnMessage(pump.now, TestId(0), Prepare{record});
    std::optional<StageStatus> refusal;
    for (const Action& action : pump.At(n).TakeActions()) {
      if (std::holds_alternative<LoadStage>(action)) return std::nullopt;
      const auto* send = std::get_if<Send>(&action);
      const auto* news = send != nullptr ? std::get_if<StageNews>(&send->message) : nullptr;
      if (news != nullptr) refusal = news->status;
    }
    return refusal;
  }
  Pump pump;
};

TEST_F(ClusterTest, AloneItDecidesAndPlaces) {
  pump.Add();
  EXPECT_EQ(pump.At(0).decider(), TestId(0));
  ASSERT_TRUE(pump.Place(0, {}).ok());
  ASSERT_TRUE(At(0));
  EXPECT_EQ(At(0)->record.stages.size(), 1U);
  EXPECT_EQ(pump.Of(0).active.size(), 1U);
}

TEST_F(ClusterTest, ThreeMeetAndMeasureTheirLinks) {
  Three();
  ASSERT_TRUE(pump.Until([&] { return pump.At(2).links().size() == 6; }, 10 * kSecond));
  for (const LinkView& link : pump.At(1).links()) EXPECT_GT(link.facts.rtt_us, 0U);
  EXPECT_EQ(pump.At(2).decider(), TestId(0));
  EXPECT_EQ(pump.At(2).members()[0].record.id, TestId(2)) << "oneself first";
}

TEST_F(ClusterTest, ACrashIsNoticedByAll) {
  Three();
  pump.Crash(1);
  EXPECT_TRUE(
      pump.Until([&] { return pump.StateOf(0, 1) == MemberState::kDead && pump.StateOf(2, 1) == MemberState::kDead; },
                 15 * kSecond));
  EXPECT_EQ(pump.At(0).digest(), pump.At(2).digest());
}

// Bounds in virtual time: they are the promise.
TEST_F(ClusterTest, AProcessThatEndsIsMissedWithinAMoment) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  pump.Run(5 * kSecond);
  const Epoch first = At(0)->record.epoch;
  pump.Crash(1);  // its links end
  EXPECT_TRUE(pump.Until([&] { return At(0)->record.epoch > first && At(2)->record.epoch > first; }, 600'000));
}

TEST_F(ClusterTest, ASilentNodeIsReplacedWithinThreeSeconds) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  pump.Run(5 * kSecond);
  const Epoch first = At(0)->record.epoch;
  pump.Of(1).frozen = true;
  EXPECT_TRUE(pump.Until([&] { return At(0)->record.epoch > first; }, 3 * kSecond));
  pump.Of(1).frozen = false;
  EXPECT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 3 * kSecond)) << "and seen again as soon";
}

TEST_F(ClusterTest, AFrozenNodeIsSuspectedThenDeadAndComesBack) {
  Three();
  pump.Of(1).frozen = true;
  ASSERT_TRUE(pump.Until([&] { return pump.StateOf(0, 1) == MemberState::kSuspect; }, 10 * kSecond));
  ASSERT_TRUE(pump.Until([&] { return pump.StateOf(0, 1) == MemberState::kDead; }, 15 * kSecond));
  pump.Of(1).frozen = false;
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 30 * kSecond));
  EXPECT_EQ(pump.At(1).counters().deaths_declared, 0U) << "who was stopped accuses nobody";
  EXPECT_GE(pump.At(1).incarnation(), (std::uint64_t{1} << 16) + 1) << "it refuted its death";
}

TEST_F(ClusterTest, AClockThatJumpsAccusesNobody) {
  Three();
  for (const DurationUs jump : {3600 * kSecond, -7200 * kSecond}) {
    pump.skew[1] = jump;
    pump.Run(10 * kSecond);
    EXPECT_TRUE(pump.AllAlive());
  }
  EXPECT_EQ(pump.At(1).counters().deaths_declared, 0U);
}

TEST_F(ClusterTest, ALinkThatIsCutBetweenTwoKillsNobody) {
  Three();
  pump.Part(1, 2);
  pump.Run(30 * kSecond);
  EXPECT_NE(pump.StateOf(1, 2), MemberState::kDead) << "the third hears it";
  EXPECT_EQ(pump.StateOf(0, 2), MemberState::kAlive);
  pump.Heal();
  EXPECT_TRUE(pump.Until([&] { return pump.AllAlive(); }, 30 * kSecond));
}

TEST_F(ClusterTest, ARestartComesWithAHigherIncarnation) {
  Three();
  pump.Crash(2);
  pump.Run(kSecond);
  pump.Restart(2);
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 20 * kSecond));
  EXPECT_EQ(pump.At(2).incarnation() >> 16, 2U);
  EXPECT_EQ(pump.At(0).members().size(), 3U) << "no ghost";
}

TEST_F(ClusterTest, ARestartThatForgotItsBootNumberIsHeardAll) {
  Three();
  pump.Crash(2);
  pump.Run(kSecond);
  pump.Of(2).options.boot = 0;  // Restart makes it 1 again: as before the crash
  pump.Restart(2);
  EXPECT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }, 20 * kSecond));
}

TEST_F(ClusterTest, PlacesOverAllAndActivatesEverywhere) {
  Three();
  pump.Add([](ClusterOptions& options) { options.facts.device.memory_budget_bytes = 0; });
  pump.MeetAll();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
  PlaceRequest request;
  request.stages = 3;
  ASSERT_TRUE(pump.Place(2, request).ok());
  ASSERT_TRUE(pump.Until([&] { return pump.Agree() && At(3); }));
  const PlacementView view = *At(3);
  ASSERT_EQ(view.record.stages.size(), 3U);
  EXPECT_FALSE(view.broken);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(view.record.stages[static_cast<std::size_t>(i)].layers.count(), 2);
    EXPECT_TRUE(pump.At(i).MayServe("m", view.record.epoch));
    EXPECT_EQ(pump.Of(i).active.size(), 1U);
  }
  EXPECT_EQ(pump.Of(3).activated, std::vector<Epoch>{view.record.epoch}) << "an entry node learns of it";
  EXPECT_FALSE(pump.At(3).MayServe("m", view.record.epoch));
}

// Who has just joined is not told of the model yet; its layers come with the stage.
TEST_F(ClusterTest, WhoDoesNotKnowTheModelGetsLayersOfItAtOnce) {
  pump.Add();
  pump.Add([](ClusterOptions& options) { options.facts.models.clear(); });
  pump.Add([](ClusterOptions& options) { options.facts.models.front().fingerprint = 78; });  // another one named so
  pump.MeetAll();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
  PlaceRequest request;
  request.fingerprint = TestHolding(6).fingerprint;
  ASSERT_TRUE(pump.Place(2, request).ok());
  ASSERT_TRUE(pump.Until([&] { return pump.Agree() && At(2); }));
  EXPECT_TRUE(At(2)->record.Has(TestId(0)));
  EXPECT_TRUE(At(2)->record.Has(TestId(1)));
  EXPECT_FALSE(At(2)->record.Has(TestId(2))) << "one name, another model";
}

TEST_F(ClusterTest, WhatCannotBePlacedIsSaid) {
  Three();
  PlaceRequest request;
  request.stages = 4;
  EXPECT_EQ(pump.Place(1, request).error().code, ErrorCode::kInvalidArgument);
  request = {};
  request.options.context_tokens = 1;
  request.nodes = {TestId(9)};
  EXPECT_EQ(pump.Place(1, request).error().code, ErrorCode::kInvalidArgument);
  const std::uint64_t id = pump.At(2).RequestUnplace(pump.now, "m");
  ASSERT_TRUE(pump.Until([&] { return pump.Of(2).done.contains(id); }));
  EXPECT_EQ(pump.Of(2).done.at(id).status.error().code, ErrorCode::kNotFound);
}

TEST_F(ClusterTest, LayersThatKeepComingAreWaitedFor) {
  Three();
  pump.slow = {1};
  PlaceRequest request;
  request.model = "m";
  request.stages = 3;
  const std::uint64_t id = pump.At(2).RequestPlacement(pump.now, request);
  ASSERT_TRUE(pump.Until([&] { return !pump.loading.empty(); }));
  MemberFacts facts = pump.At(1).members().front().record.facts;
  for (std::uint64_t done = 1; done <= 10; ++done) {
    pump.Run(100 * kSecond);
    ASSERT_FALSE(pump.Of(2).done.contains(id)) << "after " << done - 1;
    facts.fetching = {{"m", done, 10}};
    pump.At(1).SetSelfFacts(pump.now, facts);
  }
  pump.Loaded();
  ASSERT_TRUE(pump.Until([&] { return pump.Of(2).done.contains(id); }));
  EXPECT_TRUE(pump.Of(2).done.at(id).status.ok());
}

TEST_F(ClusterTest, LayersThatDoNotComeAreNotWaitedForLong) {
  Three();
  pump.slow = {1};
  PlaceRequest request;
  request.stages = 3;
  const TimeUs start = pump.now;
  EXPECT_EQ(pump.Place(2, request).error().code, ErrorCode::kUnavailable);
  EXPECT_LT(pump.now - start, 300 * kSecond);
}

TEST_F(ClusterTest, AStageThatCannotBeLoadedFailsThePlacement) {
  Three();
  pump.load = [](int node, const PlacementRecord&) {
    return node == 1 ? Status(Error{ErrorCode::kOutOfMemory, "too large"}) : Status();
  };
  const Status placed = pump.Place(0, {});
  ASSERT_FALSE(placed.ok());
  EXPECT_NE(placed.error().message.find("too large"), std::string::npos);
  pump.Run(5 * kSecond);
  for (int n = 0; n < 3; ++n) EXPECT_TRUE(pump.Of(n).loaded.empty()) << "what was loaded is dropped";
}

TEST_F(ClusterTest, ADeadNodesLayersGoToOthersAndTheRestStays) {
  Three();
  PlaceRequest request;
  request.options.standby = 0;
  ASSERT_TRUE(pump.Place(0, request).ok());
  const PlacementRecord first = At(0)->record;
  pump.Crash(1);
  ASSERT_TRUE(pump.Until(
      [&] { return At(0) && At(0)->record.epoch > first.epoch && At(2) && At(2)->record.epoch > first.epoch; }));
  const PlacementRecord next = At(0)->record;
  EXPECT_FALSE(next.Has(TestId(1)));
  EXPECT_EQ(next.continues, first.epoch);
  ASSERT_EQ(next.stages.size(), 3U) << "as it was cut: one node has two stages now";
  EXPECT_EQ(pump.Of(0).loads + pump.Of(2).loads, 3) << "what was there was not loaded again";
  ASSERT_TRUE(pump.Until([&] { return pump.Of(0).loaded.size() + pump.Of(2).loaded.size() == 3; }));
  EXPECT_FALSE(pump.At(0).MayServe("m", first.epoch));
  EXPECT_EQ(pump.wrong, "");
}

TEST_F(ClusterTest, ACopyTakesOverAndNothingIsLoaded) {
  ASSERT_NO_FATAL_FAILURE(FourWithCopies());
  EXPECT_EQ(pump.Of(0).copies.size(), 3U) << "who has no stage of the model comes first";
  int loads = 0;
  for (int n = 0; n < 4; ++n) loads += pump.Of(n).loads;
  for (const int victim : {2, 1}) {  // the second one, when there is a copy again
    const Epoch before = At(0)->record.epoch;
    pump.Crash(victim);
    ASSERT_TRUE(pump.Until([&] { return At(0)->record.epoch > before; }, 3 * kSecond));
    EXPECT_FALSE(At(0)->record.Has(TestId(victim)));
    ASSERT_TRUE(pump.Until([&] { return At(0)->survives.size() == 2 || victim == 1; }, 20 * kSecond));
  }
  for (int n = 0; n < 4; ++n) loads -= pump.Of(n).loads;
  EXPECT_EQ(loads, 0);
  EXPECT_EQ(pump.wrong, "");
}

// Two stages lose each other, in one direction only; all others hear both, and nobody is dead.
TEST_F(ClusterTest, StagesThatDoNotHearEachOtherAreParted) {
  for (const bool there : {true, false}) {
    pump = {};
    ASSERT_NO_FATAL_FAILURE(FourWithCopies());
    const PlacementRecord first = At(0)->record;
    const int a = pump.NumberOf(first.stages[1].node), b = pump.NumberOf(first.stages[2].node);
    pump.deaf.insert(there ? std::pair(a, b) : std::pair(b, a));
    ASSERT_TRUE(pump.Until([&] { return At(0)->record.epoch > first.epoch; }, 4 * kSecond)) << there;
    const PlacementRecord next = At(0)->record;
    EXPECT_EQ(next.continues, first.epoch);
    EXPECT_NE(next.Has(TestId(a)), next.Has(TestId(b))) << "one of the two";
    EXPECT_EQ(next.stages[0], first.stages[0]);
    pump.Run(20 * kSecond);
    EXPECT_EQ(At(0)->record.epoch, next.epoch) << "it stays there";
    for (int n = 0; n < 4; ++n) EXPECT_EQ(pump.At(0).members().size(), 4U);
    pump.deaf.clear();
    ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
    EXPECT_EQ(pump.wrong, "");
  }
}

// A word that a stage does not hear another one is good for a while. Who waits for the placement hears both times.
TEST_F(ClusterTest, AProblemThatPassesByItselfIsTold) {
  PlacedOnTwo(2, 300);
  ASSERT_TRUE(At(0));
  pump.Run(5 * kSecond);
  const auto told_broken = [&] { return !pump.Of(0).told.empty() && pump.Of(0).told.front().broken; };
  EXPECT_FALSE(told_broken());
  pump.At(0).OnMessage(pump.now, TestId(1), StageNews{"m", At(0)->record.epoch, 1, StageStatus::kUnheard, 0, {}});
  ASSERT_TRUE(pump.Until(told_broken, 2 * kSecond));
  EXPECT_TRUE(pump.Until([&] { return !told_broken() && !At(0)->broken; }, 20 * kSecond));
}

TEST_F(ClusterTest, AFrozenStageIsNotTakenForOneThatIsUnheard) {
  ASSERT_NO_FATAL_FAILURE(FourWithCopies());
  const PlacementRecord first = At(0)->record;
  const int frozen = pump.NumberOf(first.stages[1].node);
  pump.Of(frozen).frozen = true;
  ASSERT_TRUE(pump.Until([&] { return At(0)->record.epoch > first.epoch; }, 10 * kSecond));
  EXPECT_FALSE(At(0)->record.Has(TestId(frozen)));
  EXPECT_EQ(At(0)->record.stages[0], first.stages[0]);
  EXPECT_EQ(At(0)->record.stages[2], first.stages[2]);
}

TEST_F(ClusterTest, CopiesGiveWayToPlacements) {
  const auto small = [](ClusterOptions& options) {
    options.facts.device.memory_budget_bytes = 650;  // the whole model, and no more
    ModelHolding other = TestHolding(6);
    other.name = "other";
    other.fingerprint = 78;
    options.facts.models.push_back(other);
  };
  for (int i = 0; i < 2; ++i) pump.Add(small);
  pump.Meet(0, 1);
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
  ASSERT_TRUE(pump.Place(0, {}).ok());
  ASSERT_TRUE(pump.Until([&] { return pump.Of(0).copies.size() == 1 && pump.Of(1).copies.size() == 1; }, 20 * kSecond));
  EXPECT_EQ(At(1)->survives.size(), 2U);
  PlaceRequest other;
  other.model = "other";
  const std::uint64_t id = pump.At(0).RequestPlacement(pump.now, other);
  ASSERT_TRUE(pump.Until([&] { return pump.Of(0).done.contains(id); }));
  EXPECT_TRUE(pump.Of(0).done.at(id).status.ok());
  pump.Run(20 * kSecond);
  EXPECT_TRUE(pump.Of(0).copies.empty() && pump.Of(1).copies.empty());
  EXPECT_TRUE(At(0)->survives.empty());
  EXPECT_EQ(pump.wrong, "");
}

TEST_F(ClusterTest, ALinkThatBreaksIsMadeAnewByTheSameStages) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  ASSERT_TRUE(pump.Until([&] { return pump.Agree() && At(1); }));
  const PlacementRecord first = At(0)->record;
  pump.At(1).OnPipelineBroken(pump.now, "m", first.epoch);
  ASSERT_TRUE(pump.Until([&] { return At(1)->record.epoch > first.epoch && pump.Agree(); }, 2 * kSecond));
  EXPECT_EQ(At(1)->record.stages, first.stages);
  EXPECT_EQ(pump.Of(0).loads + pump.Of(1).loads + pump.Of(2).loads, 3);
  EXPECT_EQ(pump.wrong, "");
}

TEST_F(ClusterTest, AContinuationThatIsGivenUpLeavesWhatRuns) {
  Three();
  PlaceRequest request;
  request.options.standby = 0;
  ASSERT_TRUE(pump.Place(0, request).ok());
  const Epoch first = At(0)->record.epoch;
  pump.load = [](int, const PlacementRecord&) { return Status(Error{ErrorCode::kIo, "the card is full"}); };
  pump.At(1).SetDraining(pump.now, "hot");
  pump.Run(5 * kSecond);
  EXPECT_EQ(At(0)->record.epoch, first) << "nobody could load what it has";
  for (int n = 0; n < 3; ++n) EXPECT_EQ(pump.Of(n).active.size(), 1U);
  EXPECT_EQ(pump.wrong, "");
}

// The node that comes first, by its memory, never loads anything: the next one does.
TEST_F(ClusterTest, ANodeThatCannotLoadIsPassedOver) {
  const Epoch first = PlacedOnTwo(4, 1'000'000);
  ASSERT_TRUE(At(0));
  int failed = 0;
  pump.load = [&](int node, const PlacementRecord&) {
    failed += node == 2 ? 1 : 0;
    return node == 2 ? Status(Error{ErrorCode::kIo, "the card is full"}) : Status();
  };
  pump.Crash(1);
  ASSERT_TRUE(pump.Until([&] { return At(0)->record.epoch > first; }, 30 * kSecond));
  EXPECT_TRUE(At(0)->record.Has(TestId(0)) && At(0)->record.Has(TestId(3)));
  EXPECT_EQ(failed, 1) << "it came first, and was not asked again";
  EXPECT_EQ(pump.wrong, "");
}

// Nobody else has room: it is asked again, and as soon as it can load it does.
TEST_F(ClusterTest, ANodeThatCannotLoadIsAskedAgainWhereNobodyElseIs) {
  const Epoch first = PlacedOnTwo(3, 350);
  ASSERT_TRUE(At(0));
  int failed = 0;
  pump.load = [&](int node, const PlacementRecord&) {
    return node == 2 && ++failed < 3 ? Status(Error{ErrorCode::kIo, "the card is full"}) : Status();
  };
  pump.Crash(1);
  ASSERT_TRUE(pump.Until([&] { return At(0)->record.epoch > first; }, 50 * kSecond));
  EXPECT_TRUE(At(0)->record.Has(TestId(2)));
  EXPECT_EQ(pump.wrong, "");
}

TEST_F(ClusterTest, ANodeThatRestsGivesItsLayersAwayAndStays) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  pump.At(0).SetDraining(pump.now, "the battery is low");
  ASSERT_TRUE(
      pump.Until([&] { return At(1) && !At(1)->record.Has(TestId(0)) && pump.Of(0).loaded.empty(); }, 20 * kSecond));
  EXPECT_EQ(pump.At(0).decider(), TestId(1));
  pump.At(0).SetDraining(pump.now, "");
  ASSERT_TRUE(pump.Until([&] { return !pump.Of(0).copies.empty(); }, 20 * kSecond)) << "it is of use again";
  EXPECT_TRUE(pump.AllAlive());
}

TEST_F(ClusterTest, TheDecidersDeathStopsNothing) {
  Three();
  ASSERT_TRUE(pump.Place(1, {}).ok());
  const Epoch first = At(1)->record.epoch;
  pump.Crash(0);
  ASSERT_TRUE(pump.Until([&] { return At(1)->record.epoch > first && At(2)->record.epoch == At(1)->record.epoch; }));
  EXPECT_EQ(pump.At(2).decider(), TestId(1));
}

TEST_F(ClusterTest, ARestartedNodeGetsItsLayersAgain) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  const Epoch first = At(0)->record.epoch;
  pump.Crash(2);
  pump.Restart(2);  // before anybody noticed
  ASSERT_TRUE(pump.Until([&] { return At(0)->record.epoch > first && pump.Agree(); }));
  EXPECT_FALSE(At(0)->broken);
}

TEST_F(ClusterTest, ABrokenPipelineIsPlacedAnewEverLessOften) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  int count = 0;
  for (int i = 0; i < 2000; ++i) {
    const Epoch epoch = At(0)->record.epoch;
    if (pump.At(0).MayServe("m", epoch)) pump.At(0).OnPipelineBroken(pump.now, "m", epoch);
    pump.Run(50'000);
    if (At(0)->record.epoch != epoch) ++count;
  }
  EXPECT_GE(count, 3);
  EXPECT_LE(count, 20) << "in 100 s";
}

TEST_F(ClusterTest, LeavingMovesTheLayersFirst) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  pump.At(1).Leave(pump.now);
  ASSERT_TRUE(pump.Until([&] { return pump.Of(1).left.size() == 1; }, 20 * kSecond));
  EXPECT_FALSE(At(0)->record.Has(TestId(1)));
  EXPECT_EQ(pump.Of(1).left[0], "");
  EXPECT_TRUE(
      pump.Until([&] { return pump.StateOf(0, 1) == MemberState::kLeft && pump.StateOf(2, 1) == MemberState::kLeft; }));
}

TEST_F(ClusterTest, LeavingWhereNobodyCanTakeTheLayersSaysSo) {
  pump.Add();
  pump.Add([](ClusterOptions& options) { options.facts.device.memory_budget_bytes = 0; });
  pump.Meet(0, 1);
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive(); }));
  ASSERT_TRUE(pump.Place(1, {}).ok());
  pump.At(0).Leave(pump.now);
  ASSERT_TRUE(pump.Until([&] { return pump.Of(0).left.size() == 1; }));
  EXPECT_NE(pump.Of(0).left[0].find("m"), std::string::npos);
}

TEST_F(ClusterTest, UnplacedIsUnplacedEverywhere) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  const std::uint64_t id = pump.At(2).RequestUnplace(pump.now, "m");
  ASSERT_TRUE(pump.Until([&] { return pump.Of(2).done.contains(id); }));
  EXPECT_TRUE(pump.Of(2).done.at(id).status.ok());
  EXPECT_TRUE(pump.Until([&] {
    return !At(0) && !At(1) && !At(2) && pump.Of(0).loaded.empty() && pump.Of(1).loaded.empty() &&
           pump.Of(2).loaded.empty();
  }));
}

// The decider remembers its answers by who asked and the request's number.
TEST_F(ClusterTest, ARequestAfterARestartGetsAnAnswerOfItsOwn) {
  Three();
  ASSERT_TRUE(pump.Place(2, {}).ok());
  pump.Crash(2);
  pump.Restart(2);
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree() && !pump.At(2).placement("m")->broken; }));
  pump.Of(2).done.clear();
  const std::uint64_t id = pump.At(2).RequestUnplace(pump.now, "m");
  ASSERT_TRUE(pump.Until([&] { return pump.Of(2).done.contains(id); }));
  EXPECT_TRUE(pump.Until([&] { return !pump.At(0).placement("m").has_value(); }, 5'000'000));
}

TEST_F(ClusterTest, ADividedClusterHealsIntoOnePlacement) {
  for (int i = 0; i < 4; ++i) pump.Add();
  pump.MeetAll();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
  for (const int a : {0, 1}) {
    for (const int b : {2, 3}) pump.Part(a, b);
  }
  ASSERT_TRUE(
      pump.Until([&] { return pump.StateOf(0, 3) == MemberState::kDead && pump.StateOf(3, 0) == MemberState::kDead; }));
  ASSERT_TRUE(pump.Place(0, {}).ok());
  ASSERT_TRUE(pump.Place(3, {}).ok());
  const Epoch left = At(0)->record.epoch, right = At(3)->record.epoch;
  EXPECT_NE(left, right) << "two deciders never make the same epoch";
  pump.Heal();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
  for (int n = 0; n < 4; ++n) EXPECT_EQ(At(n)->record.epoch, std::max(left, right));
  ASSERT_TRUE(pump.Until([&] {
    std::size_t loaded = 0;
    for (int n = 0; n < 4; ++n) loaded += pump.Of(n).loaded.size();
    return loaded == At(0)->record.stages.size();
  })) << "the other one has drained";
}

TEST_F(ClusterTest, AStaleEpochIsRefused) {
  Three();
  ASSERT_TRUE(pump.Place(0, {}).ok());
  PlacementRecord stale = At(0)->record;
  stale.epoch -= Epoch{1} << 32;
  EXPECT_EQ(Refusal(1, stale), StageStatus::kStale);
}

// Whoever decides may not know what another part of the cluster has placed there.
TEST_F(ClusterTest, WhatHasNoRoomBesideOtherModelsIsRefused) {
  for (int i = 0; i < 2; ++i) {
    pump.Add([](ClusterOptions& options) { options.facts.device.memory_budget_bytes = 1'000; });
  }
  pump.MeetAll();
  ASSERT_TRUE(pump.Until([&] { return pump.AllAlive() && pump.Agree(); }));
  PlaceRequest request;
  request.nodes = {TestId(1)};
  ASSERT_TRUE(pump.Place(0, request).ok());
  ASSERT_TRUE(pump.Until([&] { return At(1).has_value(); }));
  PlacementRecord other = At(1)->record;
  other.model = other.request.model = "other";
  other.epoch += Epoch{1} << 32;
  EXPECT_EQ(Refusal(1, other), StageStatus::kFailed) << "600 bytes beside 600";
  other.stages.front().layers.last = 4;
  other.epoch += Epoch{1} << 32;
  EXPECT_EQ(Refusal(1, other), std::nullopt) << "400 bytes fit";
}

TEST_F(ClusterTest, ThrownOutIsOutEverywhere) {
  Three();
  const std::vector<std::uint8_t> revocation{2};
  ASSERT_TRUE(pump.At(0).AddRevocation(pump.now, revocation).ok());
  EXPECT_FALSE(pump.At(0).AddRevocation(pump.now, std::vector<std::uint8_t>{201}).ok()) << "not genuine";
  ASSERT_TRUE(pump.Until([&] { return pump.StateOf(1, 2) == MemberState::kLeft; }));
  pump.Run(10 * kSecond);
  EXPECT_NE(pump.StateOf(0, 2), MemberState::kAlive);
  pump.At(1).OnMessage(pump.now, TestId(2), Hello{pump.At(2).members()[0].record, 0});
  EXPECT_NE(pump.StateOf(1, 2), MemberState::kAlive);
}

TEST_F(ClusterTest, WhatANodeSaysStaysBoundedAsTheClusterGrows) {
  // Frames as encoded, of one node, in a calm cluster; docs/performance.md has the figures.
  for (const int count : {3, 10, 50, 100}) {
    Pump many;
    for (int i = 0; i < count; ++i) many.Add();
    many.MeetAll();
    ASSERT_TRUE(many.Until([&] { return many.Agree(); }, 60 * kSecond)) << count;
    many.Run(20 * kSecond);
    const std::uint64_t before = many.At(count / 2).counters().bytes_sent;
    many.Run(30 * kSecond);
    const std::uint64_t bytes_per_s = (many.At(count / 2).counters().bytes_sent - before) / 30;
    std::printf("%3d nodes: %llu bytes a node and second\n", count, static_cast<unsigned long long>(bytes_per_s));
    EXPECT_LT(bytes_per_s, 10'000U) << count;
    EXPECT_EQ(many.At(count / 2).counters().deaths_declared, 0U) << count;
  }
}

}  // namespace
}  // namespace shoal
