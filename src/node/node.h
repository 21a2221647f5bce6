// One process of a shoal: opens a model, places it, and answers generations for the API and the command line.
//
// Wires the modules and holds no logic of its own; node/generate.h is the path of one request.
#pragma once

#include <memory>
#include <string>

#include "api/backend.h"
#include "base/result.h"
#include "node/placement.h"

namespace shoal {

struct NodeOptions {
  std::string model_path;
  std::shared_ptr<const ModelFile> model;  // opened already, in place of model_path
  std::string chat_template;               // Jinja source instead of the model's own; empty: the model's
  PlacementOptions placement;
};

class Node : public Backend, public Service {
 public:
  // Errors: as OpenModelFile, Vocabulary::Open and Placement::Open. Blocks while loading.
  static Result<std::shared_ptr<Node>> Open(const NodeOptions& options);

  // Ends what runs and joins all threads. Handles still held report kUnavailable.
  virtual void Stop() = 0;
  virtual const ModelInfo& model_info() const = 0;
  virtual std::vector<StageReport> Report() const = 0;
  virtual ScheduleStats Stats() = 0;
};

}  // namespace shoal
