// Parts of a model: written from one store, taken into another, damaged on the way.
#include "weights/part_file.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/test_folder.h"
#include "weights/test_model.h"

namespace shoal {
namespace {

class PartFileTest : public testing::Test {
 protected:
  PartFileTest() {
    model_path_ = WriteTestModel(folder_ + "/model.gguf", 4, 512);
    from_ = Open("from");
    EXPECT_TRUE(from_->AddLocal(model_path_, "model", {}).ok());
  }

  std::unique_ptr<WeightStore> Open(const std::string& name) const {
    StoreOptions options;
    options.folder = folder_ + "/" + name;
    return *WeightStore::Open(options);
  }
  std::string Write(LayerRange layers) {
    const StoredModel model = *from_->Find("model");
    const std::string path = folder_ + "/part";
    const auto written = WritePartFile(*from_, model, *RangesOf(*model.manifest, layers), path, {});
    EXPECT_TRUE(written.ok());
    EXPECT_EQ(*written, std::filesystem::file_size(path));
    return path;
  }

  const TestFolder temporary_;
  const std::string folder_ = temporary_.path();
  std::string model_path_;
  std::unique_ptr<WeightStore> from_;
};

TEST_F(PartFileTest, GivesTheRangesOfItsStage) {
  const std::string path = Write({1, 3});
  EXPECT_TRUE(IsPartFile(path));
  EXPECT_FALSE(IsPartFile(model_path_));
  const std::unique_ptr<WeightStore> to = Open("to");
  const auto name = TakePartFile(*to, path, "", {});
  ASSERT_TRUE(name.ok()) << name.error().message;
  EXPECT_EQ(*name, "model");
  const StoredModel model = *to->Find("model");
  EXPECT_EQ(model.id, from_->Find("model")->id);
  const std::vector<std::size_t> wanted = *RangesOf(*model.manifest, {1, 3});
  for (std::size_t i = 0; i < model.held.size(); ++i) {
    EXPECT_EQ(model.held[i], std::find(wanted.begin(), wanted.end(), i) != wanted.end()) << i;
    EXPECT_TRUE(!model.held[i] || to->Verify(*model.manifest, i).ok()) << i;
  }
  EXPECT_TRUE(TakePartFile(*to, path, "again", {}).ok()) << "what is there already is no error";
}

TEST_F(PartFileTest, DamageIsFoundWhereverItIs) {
  const std::string path = Write({0, 2});
  const std::vector<std::uint8_t> good = ReadTestFile(path);
  const auto taken = [&](const std::vector<std::uint8_t>& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    std::filesystem::remove_all(folder_ + "/to");
    const std::unique_ptr<WeightStore> to = Open("to");
    const auto name = TakePartFile(*to, path, "", {});
    EXPECT_TRUE(name.ok() || to->Models().empty());
    return name.ok();
  };
  EXPECT_TRUE(taken(good));
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{9}, std::size_t{13}, std::size_t{40}, good.size() / 2, good.size() - 1}) {
    std::vector<std::uint8_t> bad = good;
    bad[at] ^= 0x40;
    EXPECT_FALSE(taken(bad)) << at;
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{30}, good.size() - 1}) {
    EXPECT_FALSE(taken({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)})) << size;
  }
  std::vector<std::uint8_t> longer = good;
  longer.push_back(0);
  EXPECT_FALSE(taken(longer));
}

}  // namespace
}  // namespace shoal
