// Engines in a process of their own, on a backend that is made to fail as drivers do; this program is that process too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/environment.h"
#include "base/program_path.h"
#include "base/test_models.h"
#include "engine/backend_files.h"
#include "engine/made_up_weights.h"
#include "offload/device_check.h"
#include "offload/process.h"
#include "offload/remote_engine.h"
#include "offload/seen_devices.h"
#include "offload/serve.h"
#include "offload/stage_engines.h"

namespace shoal {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(DeviceChoice, IsReadAndWritten) {
  for (const char* text : {"vulkan", "vulkan:1", "rpc:192.168.1.7:50052", "rpc:[::1]:1", "cpu"}) {
    const Result<DeviceChoice> device = ParseDeviceChoice(text);
    ASSERT_TRUE(device.ok()) << text;
    EXPECT_EQ(DeviceChoiceText(*device), text);
  }
  EXPECT_TRUE(ParseDeviceChoice("")->none());
  for (const char* text : {"Vulkan", "../x", "vulkan:", "vulkan:x", "vulkan:64", "rpc", "rpc:host", "rpc::1",
                           "rpc:h:70000", ":1", "vulkan:1:2"}) {
    EXPECT_FALSE(ParseDeviceChoice(text).ok()) << text;
  }
  // As its library is called, whatever ggml's registry says.
  EXPECT_EQ(RegistryNameOf(ParseDeviceChoice("metal:0")->backend), "MTL");
  EXPECT_EQ(RegistryNameOf("vulkan"), "vulkan");
}

TEST(DeviceCheck, Differences) {
  const std::vector<float> a{1, 2, 3, 4}, b{1, 2, 3, 5}, bad{1, 2, 3, NAN};
  EXPECT_EQ(RelativeDifference(a, a), 0);
  EXPECT_NEAR(RelativeDifference(b, a), 1.0 / 30, 1e-9);
  EXPECT_EQ(MeanDivergence(a, a, 2), 0);
  EXPECT_GT(MeanDivergence(b, a, 2), 0.01);
  EXPECT_TRUE(std::isinf(RelativeDifference(bad, a)));
  EXPECT_TRUE(std::isinf(MeanDivergence(bad, a, 2)));
  EXPECT_FALSE((DeviceReport{"", NAN, 1}).passed());

  const std::vector<float> cpu{3, 1, 0, 1, 2, 1.8F, 5, 0, 0}, device{3, 1, 0, 1, 1.7F, 1.9F, 0, 5, 0};
  DeviceReport report{"", 0, 1};
  CountTokens(cpu, cpu, 3, report);
  EXPECT_EQ(report.tokens, 3U);
  EXPECT_EQ(report.tokens_same, 3U);
  EXPECT_TRUE(report.passed());
  report = {"", 0, 1};
  CountTokens(device, cpu, 3, report);  // the same, a tie, another
  EXPECT_EQ(report.tokens, 3U);
  EXPECT_EQ(report.tokens_same, 1U);
  EXPECT_EQ(report.tokens_other, 1U);
  EXPECT_FALSE(report.passed());
  const auto sent = DecodeReport(EncodeReport(report));
  ASSERT_TRUE(sent.ok()) << sent.error().message;
  EXPECT_EQ(sent->tokens_same, 1U);
  EXPECT_FALSE(sent->passed());
}

class Offload : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = TestModelPath("smollm2");
    const fs::path backend = fs::path(ProgramPath()).parent_path() / "../../tests/tools/libggml-faulty.so";
    if (!fs::exists(backend)) GTEST_SKIP() << backend << " is not there";
    folder_ = fs::temp_directory_path() / ("shoal-offload-" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "backends");
    // Beside the CPU backends of a portable build, if it is one.
    for (const CpuBackendFile& file : CpuBackendFiles()) {
      fs::create_symlink(file.file, folder_ / "backends" / fs::path(file.file).filename());
    }
    fs::create_symlink(fs::canonical(backend), folder_ / "backends/libggml-faulty.so");
    const auto model = OpenModelFile(path);
    ASSERT_TRUE(model.ok()) << model.error().message << " (./dev model smollm2)";
    model_ = *model;
    options_.layers = {27, 30};
    options_.kv_tokens_max = 256;
    options_.sequences_max = 2;
    options_.threads = 2;
    options_.device.backend = "faulty";
    Fault("");
  }
  void TearDown() override {
    ::setenv(kBackendsFolderVariable, before_.c_str(), 1);  // empty is as if it were not set
    fs::remove_all(folder_);
  }

  // No engine is open: the environment is the next process's.
  void Fault(const char* what) {
    ::setenv(kBackendsFolderVariable, (folder_ / "backends").c_str(), 1);
    ::setenv("SHOAL_TEST_FAULT", what, 1);
    ::setenv("SHOAL_TEST_FAULT_FILE", (folder_ / "now").c_str(), 1);
  }
  void Now() { std::ofstream(folder_ / "now") << "x"; }

  static std::vector<std::string> Command() { return {ProgramPath(), kOffloadCommand}; }
  OffloadOptions Options() {
    OffloadOptions offload;
    offload.command = Command();
    offload.on_lost = [this](const Error& why) { lost_.push_back(why.message); };
    return offload;
  }
  std::unique_ptr<Engine> Open() {
    Result<OffloadedEngine> opened = OpenOffloaded(model_, options_, Options());
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    return opened.ok() ? std::move(opened->engine) : nullptr;
  }
  // T rows of sequence 0, the last with output, and their input.
  static std::vector<EngineRow> Rows(Position from, int count) {
    std::vector<EngineRow> rows;
    rows.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) rows.push_back({0, from + i, i + 1 == count});
    return rows;
  }
  std::vector<float> Input(const Engine& engine, std::size_t rows) const {
    std::vector<float> hidden(rows * static_cast<std::size_t>(engine.n_embd()));
    for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = std::sin(static_cast<float>(i));
    return hidden;
  }

  const std::string before_ = Environment(kBackendsFolderVariable);
  fs::path folder_;
  std::shared_ptr<const ModelFile> model_;
  EngineOptions options_;
  std::vector<std::string> lost_;
};

TEST_F(Offload, ComputesThereWhatTheCpuComputesHere) {
  const std::unique_ptr<Engine> there = Open();
  ASSERT_NE(there, nullptr);
  EngineOptions cpu = options_;
  cpu.device = {};
  const auto here = Engine::Open(model_, cpu).value();
  EXPECT_EQ(there->n_embd(), here->n_embd());
  EXPECT_EQ(there->n_vocab(), here->n_vocab());
  EXPECT_TRUE(there->is_last() && !there->is_first());

  std::vector<float> mine, reference;
  const std::vector<float> input = Input(*here, 20);
  ASSERT_TRUE(there->Forward(Rows(0, 20), input, mine).ok());
  ASSERT_TRUE(here->Forward(Rows(0, 20), input, reference).ok());
  EXPECT_LT(MeanDivergence(mine, reference, static_cast<std::size_t>(here->n_vocab())), 5e-3);
  EXPECT_EQ(there->Length(0), 20);

  // The cache: copied, cut, passed on as rows.
  ASSERT_TRUE(there->Copy(0, 1, 12).ok());
  EXPECT_EQ(there->Length(1), 12);
  ASSERT_TRUE(there->Rewind(0, 5).ok());
  EXPECT_EQ(there->Length(0), 5);
  const auto rows = there->ReadRows(1, 5, 12);
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  ASSERT_TRUE(there->WriteRows(0, 5, 12, *rows).ok());
  EXPECT_EQ(there->Length(0), 12);
  // What it refuses it refuses there, and goes on.
  EXPECT_FALSE(there->WriteRows(0, 99, 100, *rows).ok());
  EXPECT_TRUE(there->Forward(Rows(12, 1), Input(*here, 1), mine).ok());
  EXPECT_TRUE(lost_.empty());
}

TEST_F(Offload, TheFirstStageLooksItsTokensUpThere) {
  options_.layers = {0, 2};
  const std::unique_ptr<Engine> there = Open();
  ASSERT_NE(there, nullptr);
  EngineOptions cpu = options_;
  cpu.device = {};
  const auto here = Engine::Open(model_, cpu).value();
  std::vector<float> mine, reference;
  const std::vector<TokenId> tokens{1, 2, 300};
  ASSERT_TRUE(there->Embed(tokens, mine).ok());
  ASSERT_TRUE(here->Embed(tokens, reference).ok());
  EXPECT_EQ(mine, reference);
  const Status refused = there->Embed(std::vector<TokenId>{-1}, mine);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(Offload, ACrashAtTheStartIsAnError) {
  Fault("start");
  const auto opened = OpenOffloaded(model_, options_, Options());
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(opened.error().message, HasSubstr("faulty was ended by signal 11"));
}

TEST_F(Offload, ACrashWhileItComputesLosesTheEngineAndNothingElse) {
  Fault("compute");
  const std::unique_ptr<Engine> there = Open();
  ASSERT_NE(there, nullptr);
  std::vector<float> out;
  ASSERT_TRUE(there->Forward(Rows(0, 3), Input(*there, 3), out).ok());
  Now();
  const Status lost = there->Forward(Rows(3, 1), Input(*there, 1), out);
  ASSERT_FALSE(lost.ok());
  EXPECT_EQ(lost.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(lost.error().message, HasSubstr("signal 11"));
  EXPECT_EQ(lost_, std::vector<std::string>{lost.error().message});
  // What a stage does next with an engine that is lost.
  EXPECT_TRUE(there->Rewind(0, 3).ok());
  there->Abort();
  EXPECT_EQ(there->Forward(Rows(3, 1), Input(*there, 1), out).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(lost_.size(), 1U);
}

TEST_F(Offload, OneThatHangsIsEnded) {
  Fault("hang");
  OffloadOptions offload = Options();
  offload.silence_max = offload.first_silence_max = std::chrono::seconds(2);
  auto opened = OpenOffloaded(model_, options_, std::move(offload));
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  Now();
  std::vector<float> out;
  const Status lost = opened->engine->Forward(Rows(0, 1), Input(*opened->engine, 1), out);
  ASSERT_FALSE(lost.ok());
  EXPECT_EQ(lost.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(lost.error().message, HasSubstr("said nothing"));
}

TEST_F(Offload, ADriverMayCompileAtTheFirstPassOfSoManyRows) {
  OffloadOptions offload = Options();
  offload.silence_max = std::chrono::milliseconds(1);  // less than any pass of these rows
  auto opened = OpenOffloaded(model_, options_, std::move(offload));
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  std::vector<float> out;
  const Status passed = opened->engine->Forward(Rows(0, 64), Input(*opened->engine, 64), out);
  EXPECT_TRUE(passed.ok()) << passed.error().message;
}

TEST_F(Offload, ADeviceThatIsNotThereIsNotFound) {
  options_.device.backend = "nonesuch";
  EXPECT_EQ(OpenOffloaded(model_, options_, Options()).error().code, ErrorCode::kNotFound);
  options_.device = {"faulty", "1"};
  EXPECT_EQ(OpenOffloaded(model_, options_, Options()).error().code, ErrorCode::kNotFound);
}

TEST_F(Offload, ACheckTellsRightFromWrong) {
  const auto right = CheckOffloaded(model_, options_, Command());
  ASSERT_TRUE(right.ok()) << right.error().message;
  EXPECT_TRUE(right->passed()) << right->difference;
  EXPECT_EQ(right->device, "Faulty0: made to fail");
  Fault("wrong");
  const auto wrong = CheckOffloaded(model_, options_, Command());
  ASSERT_TRUE(wrong.ok()) << wrong.error().message;
  EXPECT_FALSE(wrong->passed()) << wrong->difference;
}

TEST_F(Offload, WhatABackendSeesIsAskedInAProcessThatItMayCrash) {
  const auto ask = [] {
    std::vector<BackendDevices> seen = SeeDevices(Command());
    EXPECT_EQ(seen.size(), 1U);  // nothing is linked in that is not the CPU's
    return seen.empty() ? BackendDevices() : seen.front();
  };
  const BackendDevices there = ask();
  EXPECT_EQ(there.backend, "faulty");
  EXPECT_EQ(there.unknown, "");
  ASSERT_EQ(there.devices.size(), 1U);
  EXPECT_EQ(there.devices[0].name, "Faulty0");
  EXPECT_EQ(there.devices[0].description, "made to fail");
  Fault("start");
  const BackendDevices crashed = ask();
  EXPECT_TRUE(crashed.devices.empty());
  EXPECT_THAT(crashed.unknown, HasSubstr("signal 11"));
}

TEST_F(Offload, NobodyWaitsForWhatIsCancelled) {
  options_.on_progress = [](float) { return false; };
  const auto report = CheckOffloaded(model_, options_, {"sleep", "60"});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::kCancelled);
}

TEST_F(Offload, OneThatDoesNotAnswerIsUnknown) {
  const std::vector<BackendDevices> seen = SeeDevices({"sleep", "60"}, std::chrono::milliseconds(200));
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].unknown, "its process did not answer in time");
}

// A CPU's engine computes in this process, whatever faults the environment asks for.
void ExpectCpu(Result<std::unique_ptr<Engine>> engine) {
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  EXPECT_TRUE((*engine)->options().device.none());
}

TEST_F(Offload, AStageIsOpenedOnTheCpuWhereTheDeviceFails) {
  const std::string home = (folder_ / "home").string();
  fs::create_directories(home);
  EngineOptions stage = options_;
  stage.device = {};
  for (const char* fault : {"start", "wrong"}) {
    fs::remove(home + "/devices.json");
    Fault(fault);
    ExpectCpu(StageEngines(options_.device, home, Command()).Open(model_, stage));
    Fault("");  // the verdict stands, after a start anew too
    ExpectCpu(StageEngines(options_.device, home, Command()).Open(model_, stage));
  }
  fs::remove(home + "/devices.json");
  Fault("compute");
  StageEngines engines(options_.device, home, Command());
  auto there = engines.Open(model_, stage);
  ASSERT_TRUE(there.ok()) << there.error().message;
  EXPECT_EQ((*there)->options().device, options_.device);
  Now();
  std::vector<float> out;
  EXPECT_EQ((*there)->Forward(Rows(0, 1), Input(**there, 1), out).error().code, ErrorCode::kUnavailable);
  ExpectCpu(engines.Open(model_, stage));
}

// The same weights in another file: all but the header's name of the model.
std::shared_ptr<const ModelFile> Twin(const ModelFile& model, const fs::path& path) {
  fs::copy_file(model.path, path);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  std::string header(4096, 0);
  file.read(header.data(), static_cast<std::streamsize>(header.size()));
  const std::size_t name = header.find("general.name");
  SHOAL_CHECK(name != std::string::npos);
  file.seekp(static_cast<std::streamoff>(name + 12 + 4 + 8));  // after its type and its length
  file.put('#');
  file.close();
  return OpenModelFile(path.string()).value();
}

TEST_F(Offload, WhatFailsWithOneModelIsThereForAnother) {
  const std::string home = (folder_ / "home").string();
  fs::create_directories(home);
  const auto twin = Twin(*model_, folder_ / "twin.gguf");
  const ModelFingerprint failed = FingerprintOf(*model_).value(), fine = FingerprintOf(*twin).value();
  ASSERT_NE(failed, fine);
  EngineOptions stage = options_;
  stage.device = {};
  StageEngines engines(options_.device, home, Command());
  Fault("wrong");
  ExpectCpu(engines.Open(model_, stage));
  EXPECT_EQ(engines.State().use, DeviceState::Use::kFailed);
  EXPECT_THAT(engines.State().text, testing::StartsWith("smollm2: Faulty0: made to fail does not compute"));
  Fault("");
  const auto there = engines.Open(twin, stage);
  ASSERT_TRUE(there.ok()) << there.error().message;
  EXPECT_EQ((*there)->options().device, options_.device);
  ExpectCpu(engines.Open(model_, stage));
  EXPECT_EQ(engines.State().use, DeviceState::Use::kComputes);
  EXPECT_THAT(engines.State().text, testing::StartsWith("Faulty0: made to fail; the CPU computes smollm2: "));
  EXPECT_EQ(engines.SpeedKey(failed), "");
  EXPECT_THAT(engines.SpeedKey(fine), HasSubstr("faulty"));
}

TEST_F(Offload, WhatBecameOfADeviceIsToldAndItsSpeedIsItsOwn) {
  const std::string home = (folder_ / "home").string();
  fs::create_directories(home);
  StageEngines engines(options_.device, home, Command());
  int changes = 0;
  engines.OnChange([&] { ++changes; });
  EXPECT_EQ(engines.State().use, DeviceState::Use::kUntried);
  EngineOptions stage = options_;
  stage.device = {};
  Fault("compute");
  auto there = engines.Open(model_, stage);
  ASSERT_TRUE(there.ok()) << there.error().message;
  EXPECT_EQ(engines.State().use, DeviceState::Use::kComputes);
  EXPECT_EQ(engines.State().text, "Faulty0: made to fail");
  const ModelFingerprint model = FingerprintOf(*model_).value();
  EXPECT_THAT(engines.SpeedKey(model), HasSubstr("faulty"));
  const auto slice = engines.OpenForSpeed(WithMadeUpWeights(*model_), stage);  // as a speed test has it
  ASSERT_TRUE(slice.ok()) << slice.error().message;
  EXPECT_EQ((*slice)->options().device, options_.device);
  EXPECT_EQ(changes, 1);
  Now();
  std::vector<float> out;
  EXPECT_FALSE((*there)->Forward(Rows(0, 1), Input(**there, 1), out).ok());
  EXPECT_EQ(engines.State().use, DeviceState::Use::kFailed);
  EXPECT_THAT(engines.State().text, HasSubstr("signal 11"));
  EXPECT_EQ(engines.SpeedKey(model), "");
  EXPECT_EQ(changes, 2);
  EXPECT_EQ(engines.OpenForSpeed(model_, stage).error().code, ErrorCode::kUnavailable);  // it does not crash again

  DeviceChoice part = options_.device;
  part.layers = 1;
  EXPECT_EQ(StageEngines(part, home, Command()).OpenForSpeed(model_, stage).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == shoal::kOffloadCommand)
    return shoal::ServeOffload(shoal::kOffloadDescriptor);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
