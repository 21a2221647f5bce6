// The vocabulary for the pipeline's tests: SmolLM2's. Knows nothing of pipelines.
#include <cstdlib>
#include <string>

#include "model/model_info.h"
#include "pipeline/fake_engine.h"

namespace shoal {

std::shared_ptr<const Vocabulary> TestVocabulary() {
  static const std::shared_ptr<const Vocabulary> vocabulary = []() -> std::shared_ptr<const Vocabulary> {
    std::string path;
    if (const char* given = std::getenv("SHOAL_TEST_SMOLLM2")) {
      path = given;
    } else if (const char* home = std::getenv("HOME")) {
      path = std::string(home) + "/.cache/shoal/models/smollm2.gguf";
    }
    const auto model = OpenModelFile(path);
    if (!model.ok()) return nullptr;
    const auto opened = Vocabulary::Open(*model);
    return opened.ok() ? *opened : nullptr;
  }();
  return vocabulary;
}

}  // namespace shoal
