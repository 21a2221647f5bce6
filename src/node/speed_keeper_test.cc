// What is told of speeds where a device beside the CPU computes some models and failed at others. Nothing is measured:
// all is in the file.
#include "node/speed_keeper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "base/test_folder.h"

namespace shoal {
namespace {

constexpr std::uint64_t kFirst = 1, kSecond = 2;
constexpr double kOnDevice = 8e9, kOnCpu = 4e9;
constexpr std::chrono::seconds kHangs{60};

class SpeedKeeperTest : public testing::Test {
 protected:
  SpeedKeeperTest() {
    const DeviceProfile profile = ReadDeviceProfile();
    const std::vector<int> cpus = SpeedCpus(profile, 0);
    const auto model = [&](std::uint64_t fingerprint, double bytes_s, const std::string& device) {
      return ModelSpeed{fingerprint,
                        cpus,
                        {1e-3, bytes_s, bytes_s, bytes_s, bytes_s, bytes_s, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e-3},
                        device};
    };
    const DeviceSpeed kind{"Q4_0", cpus, {kOnCpu, kOnCpu, 1e-6, "CPU"}, 1e10, {}};
    const KnownSpeeds kept{{kind},
                           {model(kFirst, kOnDevice, "gpu"), model(kFirst, kOnCpu, ""),
                            model(kSecond, kOnDevice, "gpu"), model(kSecond, kOnCpu, "")}};
    EXPECT_TRUE(SaveSpeeds(home_.path(), profile, kept).ok());
    for (const std::uint64_t fingerprint : {kFirst, kSecond}) {
      models_.emplace_back();
      models_.back().fingerprint = fingerprint;
      models_.back().quantization = "Q4_0";
    }
  }
  ~SpeedKeeperTest() override {
    tasks_.Join();
    loop_.Stop();
  }

  // After it has looked again: until `settled`, or for long.
  DeviceFacts FactsOnce(const std::function<bool(const DeviceFacts&)>& settled) {
    DeviceFacts facts;
    const auto end = std::chrono::steady_clock::now() + kHangs;
    do {
      std::promise<void> ticked;
      loop_.Post([&] {
        keeper_.Tick(now_ += 3'000'000, models_, {}, [] {});
        keeper_.Fill(facts);
        ticked.set_value();
      });
      ticked.get_future().wait();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    } while (!settled(facts) && std::chrono::steady_clock::now() < end);
    EXPECT_TRUE(settled(facts));
    return facts;
  }
  // Bytes a second of stages of a model, 0: nothing is told.
  static double Told(const DeviceFacts& facts, std::uint64_t fingerprint) {
    for (const StageSpeedFacts& one : facts.stage_speeds) {
      if (one.fingerprint == fingerprint) return one.speed.one_row_bytes_s;
    }
    return 0;
  }

  const TestFolder home_;
  std::atomic<std::uint64_t> works_{kFirst + kSecond};  // the sum of the models that the device computes
  std::vector<ModelHolding> models_;
  TimeUs now_ = 1;
  RealLoop loop_;
  BlockingTasks tasks_{4};
  SpeedKeeper keeper_{loop_,
                      tasks_,
                      home_.path(),
                      [](const std::string&) { return 0; },
                      true,
                      [](const ModelHolding&) { return nullptr; },
                      [this](std::uint64_t model) {
                        SpeedDevice device;
                        if ((works_ & model) != 0) device.key = "gpu";
                        return device;
                      }};
};

TEST_F(SpeedKeeperTest, EachModelIsToldOfWhatComputesIt) {
  DeviceFacts facts = FactsOnce([](const DeviceFacts& one) { return one.stage_speeds.size() == 2; });
  EXPECT_EQ(Told(facts, kFirst), kOnDevice);
  EXPECT_EQ(Told(facts, kSecond), kOnDevice);
  EXPECT_TRUE(facts.speeds.empty()) << "kinds of weights are the CPU's";

  works_ = kSecond;
  facts = FactsOnce([](const DeviceFacts& one) { return Told(one, kFirst) == kOnCpu; });
  EXPECT_EQ(Told(facts, kSecond), kOnDevice) << "the device has not failed at this one";
  EXPECT_TRUE(facts.speeds.empty());

  works_ = 0;
  facts = FactsOnce([](const DeviceFacts& one) { return Told(one, kSecond) == kOnCpu; });
  EXPECT_EQ(Told(facts, kFirst), kOnCpu);
  EXPECT_EQ(facts.speeds.size(), 1U);
}

}  // namespace
}  // namespace shoal
