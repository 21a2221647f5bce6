// Models by the names that people type: a path, a name that is known here, one of the hub or of the catalogue, a URL.
// Where such a model is, and what its header says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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

}  // namespace shoal::cli
