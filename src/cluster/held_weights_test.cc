// What is wanted, found and told as missing.
#include "cluster/held_weights.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

MissingWeights Wanted(const std::vector<LayerRange>& stages) {
  MissingWeights missing;
  for (const LayerRange& stage : stages) missing.Want(stage, 30);
  return missing;
}

TEST(MissingWeights, NothingIsWantedAtFirst) {
  EXPECT_TRUE(MissingWeights().empty());
  EXPECT_EQ(MissingWeights().Text(), "");
  EXPECT_FALSE(MissingWeights().Find({{{0, 30}}, true, true, true, 1}));
}

TEST(MissingWeights, WhatAStageNeeds) {
  EXPECT_EQ(Wanted({{3, 6}}).Text(), "layers 3-5 and the tensors that all stages share");
  EXPECT_EQ(Wanted({{0, 1}}).Text(), "layer 0, the embeddings and the tensors that all stages share");
  EXPECT_EQ(Wanted({{29, 30}}).Text(), "layer 29, the output head and the tensors that all stages share");
  EXPECT_EQ(Wanted({{6, 9}, {1, 2}, {3, 6}}).Text(), "layers 1, 3-8 and the tensors that all stages share");
}

TEST(MissingWeights, WhatIsFoundIsNotMissing) {
  MissingWeights missing = Wanted({{0, 10}, {10, 30}});
  EXPECT_TRUE(missing.Find({{{2, 4}, {8, 12}}, true, false, false, 1}));
  EXPECT_EQ(missing.Text(), "layers 0-1, 4-7, 12-29, the embeddings and the output head");
  EXPECT_FALSE(missing.Find({{{2, 3}, {9, 11}}, true, false, false, 1})) << "that was there already";
  EXPECT_FALSE(missing.Find({}));
  EXPECT_TRUE(missing.Find({{}, false, true, false, 1}));
  EXPECT_TRUE(missing.Find({{{0, 29}}, false, false, true, 1}));
  EXPECT_EQ(missing.Text(), "layer 29");
  EXPECT_FALSE(missing.empty());
  EXPECT_TRUE(missing.Find({{{29, 30}}, false, false, false, 1}));
  EXPECT_TRUE(missing.empty());
}

TEST(MissingWeights, NothingIsMissingOfAModelThatCanBeHadFromItsSource) {
  MissingWeights missing = Wanted({{0, 10}, {10, 30}});
  EXPECT_TRUE(missing.Find({{}, false, false, false, 0, true}));
  EXPECT_TRUE(missing.empty());
  EXPECT_FALSE(missing.Find({{}, false, false, false, 0, true}));
}

}  // namespace
}  // namespace shoal
