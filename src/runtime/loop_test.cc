// Both loops: order, timers, cancel, stop; and the real one under many threads (run with TSan too).
#include "runtime/loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/bounded_queue.h"

namespace shoal {
namespace {

// Waits until everything posted to `loop` before has run.
void Drain(RealLoop& loop) {
  BoundedQueue<int> done(1);
  loop.Post([&] { done.Push(1); });
  ASSERT_TRUE(done.Pop().has_value());
}

TEST(RealClock, NeverGoesBack) {
  const RealClock clock;
  TimeUs last = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const TimeUs now = clock.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(SimulatedLoop, RunsNothingByItself) {
  SimulatedLoop loop;
  int ran = 0;
  loop.Post([&] { ++ran; });
  EXPECT_EQ(ran, 0);
  EXPECT_TRUE(loop.RunOne());
  EXPECT_EQ(ran, 1);
  EXPECT_FALSE(loop.RunOne());
}

TEST(SimulatedLoop, OrdersByTimeThenSequence) {
  SimulatedLoop loop;
  std::vector<int> order;
  loop.After(20, [&] { order.push_back(4); });
  loop.After(10, [&] { order.push_back(2); });
  loop.Post([&] { order.push_back(0); });
  loop.After(10, [&] { order.push_back(3); });
  loop.After(-5, [&] { order.push_back(1); });  // a delay in the past is now
  EXPECT_TRUE(loop.RunUntilIdle(100));
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(loop.clock().Now(), 20);
}

TEST(SimulatedLoop, TaskSeesItsDueTime) {
  SimulatedLoop loop;
  TimeUs seen = -1, nested = -1;
  loop.After(1000, [&] {
    seen = loop.clock().Now();
    loop.After(500, [&] { nested = loop.clock().Now(); });
  });
  EXPECT_TRUE(loop.RunUntilIdle(10));
  EXPECT_EQ(seen, 1000);
  EXPECT_EQ(nested, 1500);
}

TEST(SimulatedLoop, RunUntilStopsAtTheTimeAndMovesTheClock) {
  SimulatedLoop loop;
  std::vector<int> order;
  loop.After(10, [&] {
    order.push_back(10);
    loop.After(5, [&] { order.push_back(15); });
    loop.After(11, [&] { order.push_back(21); });
  });
  loop.RunUntil(20);
  EXPECT_EQ(order, (std::vector<int>{10, 15}));
  EXPECT_EQ(loop.clock().Now(), 20);
  loop.RunUntil(5);  // never goes back
  EXPECT_EQ(loop.clock().Now(), 20);
  loop.RunUntil(21);
  EXPECT_EQ(order.back(), 21);
}

TEST(SimulatedLoop, CancelledTimerDoesNotRun) {
  SimulatedLoop loop;
  int ran = 0;
  const TimerId first = loop.After(10, [&] { ran += 1; });
  const TimerId second = loop.After(10, [&] { ran += 10; });
  EXPECT_NE(first, 0U);
  EXPECT_NE(first, second);
  loop.CancelTimer(first);
  loop.CancelTimer(first);  // twice, and an unknown one: nothing
  loop.CancelTimer(12345);
  EXPECT_TRUE(loop.RunUntilIdle(10));
  EXPECT_EQ(ran, 10);
  loop.CancelTimer(second);  // it ran: nothing
}

TEST(SimulatedLoop, ATaskMayCancelAnotherThatIsDue) {
  SimulatedLoop loop;
  bool ran = false;
  TimerId victim = 0;
  loop.After(10, [&] { loop.CancelTimer(victim); });
  victim = loop.After(10, [&] { ran = true; });
  EXPECT_TRUE(loop.RunUntilIdle(10));
  EXPECT_FALSE(ran);
}

TEST(SimulatedLoop, RunUntilIdleKeepsToItsBudget) {
  SimulatedLoop loop;
  int ran = 0;
  std::function<void()> again = [&] {
    ++ran;
    loop.Post(again);
  };
  loop.Post(again);
  EXPECT_FALSE(loop.RunUntilIdle(50));
  EXPECT_EQ(ran, 50);
  loop.Post([] {});
}

TEST(SimulatedLoop, BudgetOfExactlyAllTasksIsIdle) {
  SimulatedLoop loop;
  loop.Post([] {});
  loop.Post([] {});
  EXPECT_TRUE(loop.RunUntilIdle(2));
}

TEST(SimulatedLoop, DelaysPastTheEndOfTimeSaturate) {
  SimulatedLoop loop;
  loop.RunUntil(1000);
  bool ran = false;
  loop.After(std::numeric_limits<DurationUs>::max(), [&] { ran = true; });
  loop.RunUntil(1'000'000'000'000);
  EXPECT_FALSE(ran);
}

TEST(RealLoop, RunsPostsInOrderOnItsOwnThread) {
  RealLoop loop;
  EXPECT_FALSE(loop.InLoop());
  std::vector<int> order;
  bool in_loop = true;
  std::thread::id runner;
  for (int i = 0; i < 100; ++i) {
    loop.Post([&, i] {
      order.push_back(i);
      in_loop = in_loop && loop.InLoop();
      runner = std::this_thread::get_id();
    });
  }
  Drain(loop);
  ASSERT_EQ(order.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  EXPECT_TRUE(in_loop);
  EXPECT_NE(runner, std::this_thread::get_id());
}

TEST(RealLoop, KnowsItIsNotAnotherLoop) {
  RealLoop a, b;
  bool b_in_a = true;
  a.Post([&] { b_in_a = b.InLoop(); });
  Drain(a);
  EXPECT_FALSE(b_in_a);
}

TEST(RealLoop, TimersRunInOrderOfTheirDueTimeAndNotEarly) {
  BoundedQueue<int> ran(4);
  RealLoop loop;
  const TimeUs start = loop.clock().Now();
  loop.After(30'000, [&] { ran.Push(30); });
  loop.After(10'000, [&] { ran.Push(10); });
  loop.After(20'000, [&] { ran.Push(20); });
  EXPECT_EQ(ran.Pop(), 10);
  EXPECT_EQ(ran.Pop(), 20);
  EXPECT_EQ(ran.Pop(), 30);
  EXPECT_GE(loop.clock().Now() - start, 30'000);
}

TEST(RealLoop, AnEarlierTimerWakesASleepingLoop) {
  BoundedQueue<int> ran(2);
  RealLoop loop;
  loop.After(std::numeric_limits<DurationUs>::max(), [&] { ran.Push(2); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  loop.After(1'000, [&] { ran.Push(1); });
  EXPECT_EQ(ran.Pop(), 1);
  EXPECT_EQ(ran.TryPop(), std::nullopt);
}

TEST(RealLoop, CancelOnTheLoopIsCertain) {
  std::atomic<bool> ran{false};
  RealLoop loop;
  loop.Post([&] {
    const TimerId id = loop.After(0, [&] { ran = true; });
    loop.CancelTimer(id);
  });
  Drain(loop);
  Drain(loop);
  EXPECT_FALSE(ran);
}

TEST(RealLoop, ATimerThatRearmsItselfDoesNotStarvePosts) {
  std::function<void()> again;
  RealLoop loop;
  again = [&] { loop.After(0, again); };
  loop.Post(again);
  for (int i = 0; i < 100; ++i) Drain(loop);  // would hang
  loop.Stop();
}

TEST(RealLoop, StopDropsWhatIsQueuedAndLaterPosts) {
  auto alive = std::make_shared<int>(0);
  std::atomic<int> ran{0};
  BoundedQueue<int> entered(1), go_on(1);
  RealLoop loop;
  loop.Post([&] {
    entered.Push(1);
    go_on.Pop();
    ++ran;
  });
  entered.Pop();
  loop.Post([&, alive] { ++ran; });
  loop.After(0, [&, alive] { ++ran; });
  EXPECT_EQ(alive.use_count(), 3);
  std::thread stopper([&] { loop.Stop(); });
  while (alive.use_count() != 1) std::this_thread::yield();  // the queue is dropped while the first task runs
  go_on.Close();
  stopper.join();
  EXPECT_EQ(ran, 1);
  loop.Post([&, alive] { ++ran; });
  EXPECT_NE(loop.After(0, [&, alive] { ++ran; }), 0U);
  loop.CancelTimer(1);
  loop.Stop();
  EXPECT_EQ(alive.use_count(), 1);
  EXPECT_EQ(ran, 1);
}

TEST(RealLoop, ADroppedTaskMayPostFromItsDestructor) {
  struct PostsWhenDropped {
    explicit PostsWhenDropped(RealLoop* to) : loop(to) {}
    RealLoop* loop;
    ~PostsWhenDropped() {
      loop->Post([] {});
    }
  };
  RealLoop loop;
  const TimerId id = loop.After(1'000'000'000, [held = std::make_shared<PostsWhenDropped>(&loop)] { (void)held; });
  loop.CancelTimer(id);  // would deadlock if dropped under the lock
  loop.After(1'000'000'000, [held = std::make_shared<PostsWhenDropped>(&loop)] { (void)held; });
  loop.Stop();
  SUCCEED();
}

TEST(RealLoop, ManyThreadsPostAndCancel) {
  constexpr int kThreads = 4, kEach = 2000;
  std::vector<int> per_thread_last(kThreads, -1);  // touched on the loop only
  int ran = 0;
  bool in_order = true;
  std::atomic<int> timers_ran{0};
  RealLoop loop;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        loop.Post([&, t, i] {
          ++ran;
          int& last = per_thread_last[static_cast<std::size_t>(t)];
          in_order = in_order && last == i - 1;
          last = i;
        });
        const TimerId id = loop.After(i % 3 == 0 ? 0 : 3'600'000'000, [&] { ++timers_ran; });
        if (i % 3 != 0) loop.CancelTimer(id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Drain(loop);
  EXPECT_EQ(ran, kThreads * kEach);
  EXPECT_TRUE(in_order);
  EXPECT_EQ(timers_ran, kThreads * ((kEach + 2) / 3));
}

TEST(RealLoop, StopMayRaceWithPostsAndOtherStops) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> ran{0};
    RealLoop loop;
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) loop.Post([&] { ++ran; });
      });
      threads.emplace_back([&] { loop.Stop(); });
    }
    for (std::thread& thread : threads) thread.join();
    const int after_stop = ran;
    std::this_thread::yield();
    EXPECT_EQ(ran, after_stop);
    EXPECT_LE(after_stop, 400);
  }
}

}  // namespace
}  // namespace shoal
