// How clients may name a model.
#include "api/backend.h"

namespace shoal {
namespace {

std::string_view WithoutSuffix(std::string_view name) {
  constexpr std::string_view kSuffix = ".gguf";
  if (name.size() > kSuffix.size() && name.substr(name.size() - kSuffix.size()) == kSuffix) {
    name.remove_suffix(kSuffix.size());
  }
  return name;
}

}  // namespace

bool IsServedModel(const ModelCard& card, std::string_view name) {
  return name.empty() || name == "default" || WithoutSuffix(name) == WithoutSuffix(card.id);
}

}  // namespace shoal
