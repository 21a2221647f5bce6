// Models by the names that people type: a path, a name that is known here, one of the hub or of the catalogue, a URL.
// Where such a model is, what its header says, and how it comes here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/control_service.h"
#include "apps/cli/transfer_bar.h"
#include "base/result.h"
#include "model/model_info.h"
#include "weights/hub.h"
#include "weights/pull.h"

namespace shoal::cli {

// What to fetch of the hub or a URL.
struct RemoteTarget {
  std::vector<RemoteFile> files;
  std::string name;    // what to call it
  std::string origin;  // "hf:owner/repo:Q4_K_M", the URL
  std::string chosen;  // why this file of several; empty: there was no choice
  HttpOptions http;    // with the hub's token, where it is the hub's
};
// `at_hand`: asked where a quantization has to be chosen. Precondition (CHECK): `model` is no path.
// Errors: as ParseUrl, ListHub and ChooseFile; kNotFound (no such file in the repository).
Result<RemoteTarget> FindRemote(const ModelName& model, const HttpOptions& http,
                                const std::function<AtHand()>& at_hand);

// A model whose header is known. Its weights are read by nobody.
struct ModelHeader {
  std::shared_ptr<const ModelFile> file;
  std::string origin, chosen;    // as of RemoteTarget; empty: it was here
  std::uint64_t read_bytes = 0;  // by the network
};
// What is here is taken first: a file, or a model of the store, of which the manifest alone is enough, as nodes of a
// cluster have it of every model that one of them has. Else the first bytes of its files are read by the network.
// Errors: as OpenModelFile, FindRemote and DescribeRemote.
Result<ModelHeader> ReadModelHeader(const std::string& name, const std::function<AtHand()>& at_hand);

// A transfer that a person watches. Any thread.
class Puller {
 public:
  explicit Puller(bool shown) : bar_(shown) {}
  // Says why it waits; ends with Ctrl-C. Its callbacks refer to this.
  HttpOptions http();
  void Say(const std::string& text);
  // All of the model into the store. `target`: found by the options of this. Errors: as PullModel.
  Result<ModelId> Pull(WeightStore& store, const RemoteTarget& target, int connections);

 private:
  std::mutex mutex_;
  TransferBar bar_;  // guarded by mutex_
};

// What a command that needs the weights asks for, by a name that OpenModelHere takes, or the node here where `cluster`
// is given (else null). One of the hub, the catalogue or a URL is pulled where this store does not have it; of one that
// the store has in part, what is missing. For a cluster only its header is read, where no node has it: its nodes fetch
// their layers. All other names stay as they are.
// Errors: as FindRemote, DescribeRemote and PullModel.
Result<std::string> ObtainModel(const std::string& name, const ClusterStatus* cluster, bool quiet);

}  // namespace shoal::cli
