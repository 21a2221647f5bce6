// For the tests of this module: nodes in this process that answer each other's questions about weights.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "weights/peers.h"

namespace shoal {

// A node: its store and its server, behind a link of so many bytes a second that all who ask share.
struct TestNode {
  std::string name;
  std::shared_ptr<WeightStore> store;
  std::unique_ptr<WeightServer> server;
  std::uint64_t bytes_per_s = 0;  // 0: no limit
  std::mutex uplink;
  std::atomic<std::uint64_t> bytes_sent{0};
  std::atomic<int> answers_left{-1};          // then it is gone; -1: never
  std::atomic<int> answers_until_silent{-1};  // then it takes questions and says nothing; -1: never
  std::atomic<bool> lies{false};
};

class TestLink final : public WeightLink {
 public:
  explicit TestLink(TestNode& node) : node_(node) {}
  Result<std::vector<std::uint8_t>> Ask(std::vector<std::uint8_t> question, std::chrono::milliseconds limit) override {
    if (node_.answers_until_silent == 0) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, limit, [this] { return cancelled_; });
      return Error{ErrorCode::kUnavailable, "no answer"};
    }
    if (node_.answers_until_silent > 0) --node_.answers_until_silent;
    if (node_.answers_left == 0) return Error{ErrorCode::kUnavailable, "gone"};
    if (node_.answers_left > 0) --node_.answers_left;
    std::vector<std::uint8_t> answer = node_.server->Answer(question);
    if (node_.lies && answer.size() > 4096) answer[answer.size() / 2] ^= 1;
    node_.bytes_sent += answer.size();
    if (node_.bytes_per_s > 0) {
      const std::lock_guard lock(node_.uplink);
      std::this_thread::sleep_for(std::chrono::microseconds(answer.size() * 1'000'000 / node_.bytes_per_s));
    }
    return answer;
  }
  void Cancel() override {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }

 private:
  TestNode& node_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;  // guarded by mutex_
};

inline WeightPeer Peer(TestNode& node, bool first = false) {
  return {node.name,
          [&node]() -> Result<std::unique_ptr<WeightLink>> {
            if (node.answers_left == 0) return Error{ErrorCode::kUnavailable, "gone"};
            return std::unique_ptr<WeightLink>(std::make_unique<TestLink>(node));
          },
          first};
}

}  // namespace shoal
