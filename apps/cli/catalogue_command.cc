// `shoal models --catalogue`: models worth trying, and which of their files fits what is at hand.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/control_client.h"
#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "device/advice.h"
#include "device/available_memory.h"
#include "device/system_files.h"
#include "weights/catalogue.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::json;
constexpr std::uint64_t kContextTokens = 4096;  // what a need counts on

std::vector<HubFile> FilesOf(const CatalogueModel& model) {
  std::vector<HubFile> files;
  for (const CatalogueSize& size : model.sizes) {
    HubFile& file = files.emplace_back();
    file.bytes = size.bytes;
    file.quantization = size.quantization;
  }
  return files;
}

std::string SizesText(const CatalogueModel& model) {
  std::string text;
  for (const CatalogueSize& size : model.sizes) {
    text += (text.empty() ? "" : ", ") + std::string(size.quantization) + " " + FormatBytes(size.bytes);
  }
  return text;
}

Json ToJson(const CatalogueModel& model, const Result<Choice>& choice) {
  Json sizes = Json::object();
  for (const CatalogueSize& size : model.sizes) sizes[std::string(size.quantization)] = size.bytes;
  Json json{{"name", model.name},
            {"pull", "hf:" + std::string(model.repository)},
            {"architecture", model.architecture},
            {"parameters", model.parameters},
            {"licence", model.licence},
            {"good_for", model.good_for},
            {"layers", model.layers},
            {"context_bytes_per_token", model.kv_bytes},
            {"sizes", std::move(sizes)}};
  if (choice.ok()) {
    const CatalogueSize& size = model.sizes[choice->index];
    json["fits"] = size.quantization;
    json["reason"] = choice->reason;
    json["needs_bytes"] = BytesToRun(size.bytes) + kContextTokens * model.kv_bytes;
  } else {
    json["reason"] = choice.error().message;
  }
  return json;
}

}  // namespace

AtHand LookAtHand() {
  AtHand at_hand;
  const DeviceProfile profile = ReadDeviceProfile(SystemFiles(), nullptr);
  at_hand.q4_0_is_fast = AdviseDevice(profile).quantization == "Q4_0";
  at_hand.memory_bytes = AvailableMemory().value_or(0);
  at_hand.whose = "free memory";
  const Result<ClusterStatus> status = NodeHere().GetStatus();
  if (!status.ok()) return at_hand;
  std::uint64_t free = 0;
  std::size_t nodes = 0;
  for (const NodeStatus& node : status->nodes) {
    if (node.state != "alive") continue;
    free += node.memory_free_bytes;
    ++nodes;
  }
  if (nodes < 2 || free == 0) return at_hand;
  at_hand.memory_bytes = free;
  at_hand.whose = "free memory of " + std::to_string(nodes) + " nodes";
  return at_hand;
}

int RunCatalogue(bool json) {
  WatchSignals();
  const AtHand at_hand = LookAtHand();
  Json models = Json::array();
  std::string text;
  for (const CatalogueModel& model : Catalogue()) {
    const std::vector<HubFile> files = FilesOf(model);
    const Result<Choice> choice = ChooseFile(files, "", at_hand);
    models.push_back(ToJson(model, choice));
    text += std::string(model.name) + "  (" + std::string(model.parameters) + ", " + std::string(model.licence) +
            "): " + std::string(model.good_for) + "\n  " + SizesText(model) + "; context " +
            FormatBytes(kContextTokens * model.kv_bytes) + " for " + std::to_string(kContextTokens) + " tokens\n  " +
            (choice.ok() ? "here: " + choice->reason : "does not fit here") + "\n";
  }
  if (json) {
    const Json all{{"memory_bytes", at_hand.memory_bytes}, {"memory_of", at_hand.whose}, {"models", std::move(models)}};
    std::printf("%s\n", all.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    std::fputs(text.c_str(), stdout);
    std::printf("\n`shoal pull NAME` or `shoal pull NAME:QUANTIZATION` fetches one; %s is at hand\n",
                at_hand.memory_bytes == 0 ? "an unknown amount of memory"
                                          : (FormatBytes(at_hand.memory_bytes) + " of " + at_hand.whose).c_str());
  }
  return kExitOk;
}

}  // namespace shoal::cli
