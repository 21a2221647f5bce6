// The words by which a command takes a model: MODEL, and what llama.cpp's users type.
#include <CLI/CLI.hpp>

#include "apps/cli/commands.h"

namespace shoal::cli {

void AddModelWords(CLI::App& command, std::string& model, const std::string& help) {
  command.add_option("model,-m,--model", model, help + "; hf:OWNER/REPO[:Q4_K_M], a name of the catalogue, a URL");
  command.add_option_function<std::string>(
      "--hf,--hf-repo",
      [&model](const std::string& repository) {
        if (!model.empty()) throw CLI::ValidationError("--hf", "name one model, and a prompt with -p");
        model = (repository.starts_with("hf:") ? "" : "hf:") + repository;
      },
      "A model of the hub, OWNER/REPO[:Q4_K_M]; -hf as in llama.cpp");
  command.add_option_function<std::string>(
      "--hf-file",
      [&model](const std::string& file) {
        if (!model.starts_with("hf:")) throw CLI::ValidationError("--hf-file", "say --hf OWNER/REPO too");
        model = model.substr(0, model.find(':', 3)) + "/" + file;
      },
      "That file of it; -hff as in llama.cpp");
}

void RequireModel(const CLI::App& command, const std::string& model) {
  if (model.empty()) throw CLI::ValidationError(command.get_name(), "name a model");
}

std::string SpelledOut(const std::string& word) {
  if (word == "-hf" || word == "-hfr") return "--hf";
  return word == "-hff" ? "--hf-file" : word;
}

}  // namespace shoal::cli
