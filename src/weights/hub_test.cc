// Names as people type them, the hub's list of files, URLs, and which file is taken and why.
#include "weights/hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "weights/catalogue.h"

namespace shoal {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kMiB = 1ULL << 20, kGiB = 1ULL << 30;

TEST(ModelNames, AsPeopleTypeThem) {
  ModelName name = *ParseModelName("hf:owner/repo", false);
  EXPECT_EQ(name.kind, ModelNameKind::kHub);
  EXPECT_EQ(name.repository, "owner/repo");
  EXPECT_EQ(name.quantization, "");
  name = *ParseModelName("hf:owner/repo:q4_k_m", false);
  EXPECT_EQ(name.repository, "owner/repo");
  EXPECT_EQ(name.quantization, "Q4_K_M");
  name = *ParseModelName("owner/repo:Q8_0", true);  // -hf, as llama.cpp takes it
  EXPECT_EQ(name.kind, ModelNameKind::kHub);
  EXPECT_EQ(name.quantization, "Q8_0");
  name = *ParseModelName("hf:owner/repo/sub/file-Q4_0.gguf", false);
  EXPECT_EQ(name.repository, "owner/repo");
  EXPECT_EQ(name.file, "sub/file-Q4_0.gguf");
  EXPECT_EQ(ParseModelName("hf:owner/repo:UD-Q4_K_XL", false)->quantization, "UD-Q4_K_XL");
  EXPECT_EQ(ParseModelName("hf:owner/repo:latest", false)->quantization, "");
  EXPECT_EQ(ParseModelName("https://host/x.gguf", false)->kind, ModelNameKind::kUrl);
  EXPECT_EQ(ParseModelName("dir/x.gguf", false)->kind, ModelNameKind::kPath);
  EXPECT_EQ(ParseModelName("x.gguf", false)->kind, ModelNameKind::kPath);
}

TEST(ModelNames, OfTheCatalogue) {
  const ModelName name = *ParseModelName("llama-3.2-3b:Q5_K_M", false);
  EXPECT_EQ(name.kind, ModelNameKind::kHub);
  EXPECT_EQ(name.repository, FindInCatalogue("llama-3.2-3b")->repository);
  EXPECT_EQ(name.quantization, "Q5_K_M");
  EXPECT_EQ(ParseModelName("llama-3.2-3b", false)->quantization, "");
  EXPECT_EQ(FindInCatalogue("llama-9000b"), nullptr);
}

TEST(ModelNames, WhatNamesNothingIsRefused) {
  for (const char* text : {"hf:", "hf:repo", "hf:/repo", "hf:owner/", "hf:owner/repo:", "hf:owner/..", "hf:owner/re po",
                           "hf:owner/repo/../../x.gguf", "hf:owner/repo/file.bin", "hf:owner/repo/x.gguf:Q4_0",
                           "hf:owner/repo?x=1", "hf:owner/repo:Q4_0/x"}) {
    const Result<ModelName> name = ParseModelName(text, false);
    EXPECT_FALSE(name.ok()) << text;
  }
  EXPECT_FALSE(ParseModelName("https://host/x.gguf", true).ok());
}

TEST(ModelNames, QuantizationsInFileNames) {
  EXPECT_EQ(QuantizationOf("Llama-3.2-1B-Instruct-Q4_K_M.gguf"), "Q4_K_M");
  EXPECT_EQ(QuantizationOf("qwen2.5-0.5b-instruct-q8_0.gguf"), "Q8_0");
  EXPECT_EQ(QuantizationOf("SmolLM2.IQ4_XS.gguf"), "IQ4_XS");
  EXPECT_EQ(QuantizationOf("sub/model-bf16.gguf"), "BF16");
  EXPECT_EQ(QuantizationOf("Q4_K_M/model-f16.gguf"), "F16");
  EXPECT_EQ(QuantizationOf("Qwen3-UD-Q4_K_XL.gguf"), "UD-Q4_K_XL");
  EXPECT_EQ(QuantizationOf("CLOUD-Q4_K_M.gguf"), "Q4_K_M");
  EXPECT_EQ(QuantizationOf("model.gguf"), "");
}

TEST(Urls, AreParsedOrRefused) {
  const Url url = *ParseUrl("https://Host.example:8443/a/b?c=d");
  EXPECT_TRUE(url.tls);
  EXPECT_EQ(url.port, 8443);
  EXPECT_EQ(url.path, "/a/b?c=d");
  EXPECT_EQ(ParseUrl("http://host")->path, "/");
  EXPECT_EQ(ParseUrl("http://[::1]:80/x")->host, "::1");
  EXPECT_EQ(ParseUrl("http://[::1]:81/x")->Text(), "http://[::1]:81/x");
  for (const char* text :
       {"", "ftp://host/x", "http://", "http:///x", "http://user:pass@host/", "http://host:0/", "http://host:99999/",
        "http://host:x/", "http://[::1/", "http://ho st/", "http://host/\r\nX: y"}) {
    EXPECT_FALSE(ParseUrl(text).ok()) << text;
  }
}

TEST(Urls, AFileIsTheSameByItsHashAndElseByItsEtag) {
  const Digest one = Sha256(std::string("one")), two = Sha256(std::string("two"));
  EXPECT_TRUE(IsSameState({7, "a", one}, {7, "b", one})) << "two servers of the same bytes";
  EXPECT_FALSE(IsSameState({7, "a", one}, {7, "a", two}));
  EXPECT_FALSE(IsSameState({7, "a", one}, {8, "a", one}));
  EXPECT_TRUE(IsSameState({7, "a", {}}, {7, "a", one}));
  EXPECT_FALSE(IsSameState({7, "a", {}}, {7, "b", one}));
  const auto refused = ParseUrl("http://host name/file?token=secret");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message.find("secret"), std::string::npos) << refused.error().message;
}

TEST(Hub, ATokenGoesToTheHubAlone) {
  const Hub hub{"https://hub.example", "secret"};
  const auto sent = [&](const std::vector<std::string>& urls) {
    std::vector<SourceFile> files;
    for (const std::string& url : urls) files.push_back({url, 1, "", {}});
    return TokenFor(hub, files);
  };
  EXPECT_EQ(sent({"https://hub.example/a", "https://hub.example:443/b"}), "secret");
  // A member says where the parts of a model are: no part of it may lie elsewhere.
  EXPECT_EQ(sent({"https://hub.example/a", "https://other.example/b"}), "");
  EXPECT_EQ(sent({"https://other.example/a", "https://hub.example/b"}), "");
  EXPECT_EQ(sent({"http://hub.example/a"}), "");
  EXPECT_EQ(sent({"https://hub.example:8443/a"}), "");
  EXPECT_EQ(sent({"https://hub.example.other.example/a"}), "");
  EXPECT_EQ(sent({}), "");
}

TEST(HubLists, HaveWholeModelsOnly) {
  const auto files = ParseHubTree(R"([
    {"type": "directory", "path": "x", "size": 0},
    {"path": "a-Q4_0.gguf", "size": 10,
     "lfs": {"oid": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
    {"path": "mmproj-a-f16.gguf", "size": 10},
    {"path": "a-Q8_0-00001-of-00002.gguf", "size": 10},
    {"path": "../../a-Q8_0.gguf", "size": 10},
    {"path": "README.md", "size": 10},
    {"path": "b.gguf", "size": -1},
    {"path": 7, "size": 10},
    "text"])");
  ASSERT_TRUE(files.ok());
  ASSERT_EQ(files->size(), 1U);
  EXPECT_EQ(files->front().quantization, "Q4_0");
  ASSERT_EQ(files->front().parts.size(), 1U);
  EXPECT_TRUE(files->front().parts[0].sha256.has_value());
  EXPECT_FALSE(ParseHubTree("{}").ok());
  EXPECT_FALSE(ParseHubTree("[").ok());
  EXPECT_TRUE(ParseHubTree("[{\"path\": \"" + std::string(1 << 20, '-') + ".gguf\", \"size\": 1}]")->empty());
}

TEST(HubTree, PartsAreOneModelOnceAllAreThere) {
  const auto files = ParseHubTree(R"([
    {"path": "Q4_K_M/big-Q4_K_M-00002-of-00002.gguf", "size": 20},
    {"path": "Q4_K_M/big-Q4_K_M-00001-of-00002.gguf", "size": 10,
     "lfs": {"oid": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
    {"path": "big-Q8_0-00001-of-00003.gguf", "size": 10},
    {"path": "big-Q8_0-00003-of-00003.gguf", "size": 10},
    {"path": "BIG-Q4_0-00001-OF-00002.GGUF", "size": 10},
    {"path": "big-F16-00001-of-00999.gguf", "size": 10}])");
  ASSERT_TRUE(files.ok());
  ASSERT_EQ(files->size(), 1U);
  const HubFile& file = files->front();
  EXPECT_EQ(file.path, "Q4_K_M/big-Q4_K_M-00001-of-00002.gguf");
  EXPECT_EQ(file.bytes, 30U);
  EXPECT_EQ(file.quantization, "Q4_K_M");
  ASSERT_EQ(file.parts.size(), 2U);
  EXPECT_TRUE(file.parts[0].sha256.has_value());
  EXPECT_EQ(file.parts[1].path, "Q4_K_M/big-Q4_K_M-00002-of-00002.gguf");
}

std::vector<HubFile> Files(const std::vector<std::pair<const char*, std::uint64_t>>& sizes) {
  std::vector<HubFile> files;
  for (const auto& [quantization, bytes] : sizes) files.push_back({quantization, bytes, quantization, {}});
  return files;
}

class ChoiceTest : public testing::Test {
 protected:
  std::string Chosen(std::uint64_t memory, bool fast, const std::string& wanted = "") const {
    const Result<Choice> choice = ChooseFile(files_, wanted, {memory, fast, "free memory"});
    if (!choice.ok()) return "none: " + choice.error().message;
    EXPECT_THAT(choice->reason, testing::AnyOf(HasSubstr(files_[choice->index].quantization), HasSubstr("asked")));
    return files_[choice->index].quantization;
  }
  std::vector<HubFile> files_ = Files({{"Q2_K", 3 * kGiB},
                                       {"Q4_0", 4 * kGiB},
                                       {"Q4_K_M", 4 * kGiB + 200 * kMiB},
                                       {"Q5_K_M", 5 * kGiB},
                                       {"Q8_0", 8 * kGiB}});
};

TEST_F(ChoiceTest, GoesByMemory) {
  EXPECT_EQ(Chosen(8 * kGiB, false), "Q4_K_M");
  EXPECT_EQ(Chosen(16 * kGiB, false), "Q5_K_M");
  EXPECT_EQ(Chosen(4 * kGiB, false), "Q2_K") << "the largest that fits";
  EXPECT_EQ(Chosen(0, false), "Q4_K_M") << "of unknown memory nothing is concluded";
  EXPECT_THAT(Chosen(2 * kGiB, false), HasSubstr("fits the 2.0 GiB of free memory"));
}

TEST_F(ChoiceTest, GoesBySpeedWhereTheCpuRepacks) {
  EXPECT_EQ(Chosen(8 * kGiB, true), "Q4_0");
  EXPECT_EQ(Chosen(16 * kGiB, true), "Q5_K_M");
}

TEST_F(ChoiceTest, SmallModelsKeepTheirPrecision) {
  files_ = Files({{"Q4_0", 100 * kMiB}, {"Q4_K_M", 110 * kMiB}, {"Q8_0", 150 * kMiB}});
  EXPECT_EQ(Chosen(4 * kGiB, true), "Q8_0");
  EXPECT_EQ(Chosen(160 * kMiB, true), "Q4_0");
}

TEST_F(ChoiceTest, WhatIsNamedIsTakenAndWhatIsNotThereIsListed) {
  EXPECT_EQ(Chosen(1, false, "q8_0"), "Q8_0");
  EXPECT_THAT(Chosen(0, false, "Q3_K_L"), HasSubstr("there are Q2_K (3.0 GiB), Q4_0"));
}

// Whatever people see in the name of a file, they may type.
TEST_F(ChoiceTest, VariantsAreFoundByTheEndOfTheFilesName) {
  files_.clear();
  for (const char* path :
       {"UD-Q4_K_XL/big-UD-Q4_K_XL-00001-of-00002.gguf", "big-Q4_K_XL.gguf", "big-Q6_K-imat.gguf", "big-MYQ8_0.gguf"}) {
    files_.push_back({path, 10, QuantizationOf(path), {}});
  }
  const auto taken = [&](const std::string& wanted) {
    const Result<Choice> choice = ChooseFile(files_, wanted, {});
    return choice.ok() ? files_[choice->index].path : "none";
  };
  EXPECT_EQ(taken("UD-Q4_K_XL"), files_[0].path);
  EXPECT_EQ(taken("q4_k_xl"), files_[1].path) << "not the variant";
  EXPECT_EQ(taken("Q6_K-imat"), files_[2].path);
  EXPECT_EQ(taken("Q6_K"), files_[2].path);
  EXPECT_EQ(taken("Q8_0"), "none") << "half a word is none";
  EXPECT_EQ(taken("XL"), "none");
  files_.erase(files_.begin() + 1);
  EXPECT_EQ(taken("Q4_K_XL"), files_[0].path) << "the variant, where there is nothing else";
  files_.push_back({"big-UD-Q4_K_M.gguf", 10, "UD-Q4_K_M", {}});
  EXPECT_EQ(Chosen(0, false), "UD-Q4_K_M");
}

TEST(Catalogue, IsSoundData) {
  std::uint64_t before = 0;
  for (const CatalogueModel& model : Catalogue()) {
    EXPECT_TRUE(ParseModelName("hf:" + std::string(model.repository), false).ok()) << model.name;
    EXPECT_FALSE(model.licence.empty()) << model.name;
    EXPECT_GT(model.layers, 0) << model.name;
    EXPECT_EQ(model.kv_bytes % (4 * static_cast<std::uint32_t>(model.layers)), 0U) << model.name;
    ASSERT_FALSE(model.sizes.empty()) << model.name;
    std::uint64_t size_before = 0;
    for (const CatalogueSize& size : model.sizes) {
      EXPECT_GT(size.bytes, size_before) << model.name << ' ' << size.quantization;
      EXPECT_EQ(QuantizationOf("x-" + std::string(size.quantization) + ".gguf"), size.quantization);
      size_before = size.bytes;
    }
    const std::uint64_t usual = std::find_if(model.sizes.begin(), model.sizes.end(), [](const auto& s) {
                                  return s.quantization == "Q4_K_M";
                                })->bytes;
    EXPECT_GE(usual, before) << model.name << " is out of order";
    before = usual;
    EXPECT_EQ(FindInCatalogue(model.name), &model);
  }
}

}  // namespace
}  // namespace shoal
