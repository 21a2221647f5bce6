// What is known of devices, over starts of the program.
#include "offload/verdicts.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/test_folder.h"

namespace shoal {
namespace {

namespace fs = std::filesystem;

class VerdictsTest : public testing::Test {
 protected:
  const TestFolder folder_;
  const fs::path home_ = folder_.path();
};

TEST_F(VerdictsTest, AreThereAfterAStart) {
  const Verdict fails{false, "crashed \"at\" once"};
  Verdicts(home_.string()).Keep("vulkan", fails);
  EXPECT_EQ(Verdicts(home_.string()).Find("vulkan"), fails);
  EXPECT_EQ(Verdicts(home_.string()).Find("rpc"), std::nullopt);
}

TEST_F(VerdictsTest, TheNewestStaysWhereverItsNameStands) {
  Verdicts verdicts(home_.string());
  for (int i = 999; i > 899; --i) {  // more than are kept, each before all others
    const std::string key = std::to_string(i);
    verdicts.Keep(key, {true, key});
    ASSERT_TRUE(verdicts.Find(key)) << key;
  }
  EXPECT_TRUE(Verdicts(home_.string()).Find("900"));
}

TEST_F(VerdictsTest, WhatIsNoSuchTextIsAsIfItWereNotThere) {
  for (const char* text : {"", "{", "[]", R"({"version":1,"devices":3})", R"({"version":99,"devices":{}})"}) {
    std::ofstream(home_ / "devices.json") << text;
    EXPECT_EQ(Verdicts(home_.string()).Find("vulkan"), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace shoal
