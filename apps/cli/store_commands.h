// `shoal pull`, `models`, `rm`, `verify`, `gc`: the models of this device. Each Run… returns the exit code.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/model_info.h"
#include "weights/hub.h"
#include "weights/store.h"

namespace CLI {
class App;
}

namespace shoal::cli {

struct PullCommand {
  std::string model;  // hf:owner/repo[:Q4_K_M], a URL, the path of a GGUF file
  std::string name;   // else of the file
  std::int32_t connections = 4;
  bool metadata_only = false, json = false, quiet = false;
  std::string prefer;  // "speed", "quality"; empty: as this device is
};

struct ModelsCommand {
  bool catalogue = false, json = false;
};

int RunPull(const PullCommand& command);
int RunModels(const ModelsCommand& command);
int RunRemoveModel(const std::string& name);
int RunVerify(const std::string& name, bool json);
int RunCollect(bool drafts, bool json);
void AddStoreCommands(CLI::App& app, int& code);
// `shoal quantize` and `shoal split` (file_commands.cc).
void AddFileCommands(CLI::App& app, int& code);

// `shoal models --catalogue` (catalogue_command.cc).
int RunCatalogue(bool json);
// What models have to run on: the nodes of the cluster when a node runs here, else this device.
AtHand LookAtHand();

// SHOAL_HOME/store, with the quota of SHOAL_STORE_MAX ("20G"; unset: as the disk allows).
Result<std::shared_ptr<WeightStore>> OpenStoreHere();
// By path, by name in SHOAL_HOME/models, or by name in the store (all of it must be here). Errors: as OpenModelFile.
Result<std::shared_ptr<const ModelFile>> OpenModelHere(const std::string& name);

}  // namespace shoal::cli
