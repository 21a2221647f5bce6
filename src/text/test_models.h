// For the tests of this folder: the vocabularies of the two test models, opened once.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "engine/vocabulary.h"

namespace shoal {

inline std::shared_ptr<const Vocabulary> OpenTestVocabulary(const char* env, const char* file) {
  const char* path = std::getenv(env);
  const char* cache = std::getenv("SHOAL_CACHE_DIR");
  const char* home = std::getenv("HOME");
  const std::string folder = cache != nullptr ? cache : std::string(home != nullptr ? home : ".") + "/.cache/shoal";
  auto model = OpenModelFile(path != nullptr ? path : folder + "/models/" + file);
  EXPECT_TRUE(model.ok()) << model.error().message;
  return Vocabulary::Open(std::move(model).value()).value();
}

inline std::shared_ptr<const Vocabulary> SmolLm2Vocabulary() {
  static const auto vocabulary = OpenTestVocabulary("SHOAL_TEST_SMOLLM2", "smollm2.gguf");
  return vocabulary;
}

inline std::shared_ptr<const Vocabulary> Gemma3Vocabulary() {
  static const auto vocabulary = OpenTestVocabulary("SHOAL_TEST_GEMMA3", "gemma3.gguf");
  return vocabulary;
}

}  // namespace shoal
