// The queue's limit, its order, its end; and several producers and consumers at once (run with TSan too).
#include "runtime/bounded_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace shoal {
namespace {

TEST(BoundedQueue, FirstInFirstOut) {
  BoundedQueue<int> queue(3);
  EXPECT_EQ(queue.capacity(), 3U);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.Push(i));
  EXPECT_EQ(queue.size(), 3U);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.Pop(), i);
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueue, TryPushLeavesTheValueWhenFullOrClosed) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  auto first = std::make_unique<int>(1), second = std::make_unique<int>(2);
  EXPECT_TRUE(queue.TryPush(first));
  EXPECT_EQ(first, nullptr);
  EXPECT_FALSE(queue.TryPush(second));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(**queue.Pop(), 1);
  queue.Close();
  EXPECT_FALSE(queue.TryPush(second));
  EXPECT_EQ(*second, 2);
}

TEST(BoundedQueue, PushWaitsForRoom) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.Push(1));
  std::atomic<bool> pushed{false};
  std::thread producer([&] {
    EXPECT_TRUE(queue.Push(2));
    pushed = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(pushed);
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), 2);
  producer.join();
  EXPECT_TRUE(pushed);
}

TEST(BoundedQueue, PopForGivesUp) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.PopFor(std::chrono::milliseconds(1)), std::nullopt);
  queue.Push(5);
  EXPECT_EQ(queue.PopFor(std::chrono::hours(1)), 5);
}

TEST(BoundedQueue, CloseDrainsThenEnds) {
  BoundedQueue<int> queue(2);
  queue.Push(1);
  queue.Close();
  EXPECT_TRUE(queue.closed());
  EXPECT_FALSE(queue.Push(2));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueue, CloseWakesEveryWaiter) {
  BoundedQueue<int> empty(1), full(1);
  full.Push(0);
  std::vector<std::thread> waiters;
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] { EXPECT_EQ(empty.Pop(), std::nullopt); });
    waiters.emplace_back([&] { EXPECT_FALSE(full.Push(1)); });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  empty.Close();
  full.Close();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(full.size(), 1U);
}

TEST(BoundedQueue, NothingIsLostOrDoubledBetweenManyThreads) {
  constexpr int kProducers = 3, kConsumers = 3, kEach = 3000;
  BoundedQueue<int> queue(4);
  std::vector<std::atomic<int>> seen(kProducers * kEach);
  std::atomic<bool> over_limit{false};
  std::vector<std::thread> producers, consumers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < kEach; ++i) {
        int value = p * kEach + i;
        if (i % 2 == 0 || !queue.TryPush(value)) { EXPECT_TRUE(queue.Push(value)); }
        if (queue.size() > queue.capacity()) over_limit = true;
      }
    });
  }
  for (int c = 0; c < kConsumers; ++c) {
    consumers.emplace_back([&] {
      while (const auto value = queue.Pop()) ++seen[static_cast<std::size_t>(*value)];
    });
  }
  for (std::thread& producer : producers) producer.join();
  queue.Close();
  for (std::thread& consumer : consumers) consumer.join();
  EXPECT_FALSE(over_limit);
  for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
}

TEST(BoundedQueueDeathTest, NeedsRoom) { EXPECT_DEATH(BoundedQueue<int>(0), "capacity > 0"); }

}  // namespace
}  // namespace shoal
