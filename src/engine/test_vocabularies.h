// The vocabularies of the test models, each opened once a process. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/test_models.h"
#include "engine/vocabulary.h"

namespace shoal {

// `name` as TestModelPath. A test that needs a model cannot go on without it: ends the process.
inline std::shared_ptr<const Vocabulary> OpenTestVocabulary(const std::string& name) {
  const auto model = OpenModelFile(TestModelPath(name));
  if (!model.ok()) {
    ADD_FAILURE() << model.error().message << " (`./dev model " << name << "` fetches it)";
    std::abort();
  }
  auto vocabulary = Vocabulary::Open(*model);
  if (!vocabulary.ok()) {
    ADD_FAILURE() << vocabulary.error().message;
    std::abort();
  }
  return *std::move(vocabulary);
}

inline std::shared_ptr<const Vocabulary> SmolLm2Vocabulary() {
  static const auto vocabulary = OpenTestVocabulary("smollm2");
  return vocabulary;
}

inline std::shared_ptr<const Vocabulary> Gemma3Vocabulary() {
  static const auto vocabulary = OpenTestVocabulary("gemma3");
  return vocabulary;
}

}  // namespace shoal
