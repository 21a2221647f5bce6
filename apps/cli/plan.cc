// `shoal plan`: the best split of a model over the devices there are, or over those of a file; what would change it.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/named_models.h"
#include "apps/cli/store_commands.h"
#include "apps/cli/terminal.h"
#include "base/units.h"
#include "node/model_library.h"
#include "node/plan_inputs.h"
#include "planner/cost_model.h"
#include "planner/device_speed.h"
#include "planner/standby.h"
#include "planner/what_if.h"

namespace shoal::cli {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

std::string Decimal(double value, const char* unit) {
  char text[48];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f%s" : "%.1f%s", value, unit);
  return text;
}

std::vector<std::string> NamesOf(const PlanInput& input, const std::vector<std::int32_t>& devices) {
  std::vector<std::string> names;
  names.reserve(devices.size());
  for (const std::int32_t device : devices) names.push_back(input.devices[static_cast<std::size_t>(device)].name);
  return names;
}

std::string NamesOf(const PlanInput& input, const Plan& plan) {
  std::string text;
  for (const PlanStage& stage : plan.stages) {
    text += (text.empty() ? "" : " > ") + input.devices[static_cast<std::size_t>(stage.device)].name;
  }
  return text;
}

Json PlanJson(const PlanInput& input, const Plan& plan) {
  Json stages = Json::array();
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    stages.push_back({{"device", input.devices[static_cast<std::size_t>(plan.stages[i].device)].name},
                      {"first", plan.stages[i].layers.first},
                      {"last", plan.stages[i].layers.last - 1},
                      {"memory_bytes", plan.memory_bytes[i]},
                      {"kv_bytes", plan.kv_bytes[i]}});
  }
  return {{"stages", stages},
          {"first_token_s", plan.first_token_s},
          {"tokens_s", plan.tokens_s},
          {"tokens_s_many", plan.tokens_s_many},
          {"request_s", plan.request_s},
          {"groups", plan.groups},
          {"joules_token", plan.joules_token > 0 ? Json(plan.joules_token) : Json()},
          {"cost", plan.cost}};
}

// Everything that is known of a plan and its neighbours.
struct Planned {
  ModelHeader model;
  PlanInput input;
  PlanResult result;
  std::vector<std::string> estimated, unmeasured_links;
  bool powers_of_table = false;                   // else the file of devices says them, or batteries
  std::vector<std::vector<std::int32_t>> copies;  // of each stage of the plan: devices that keep one
  std::optional<Plan> spread;                     // what `place` does unless told else, judged as this one
  std::vector<WhatIf> without, with;
  std::optional<Reach> reach;
};

// What the loss of one device of the plan means: names.
struct Losses {
  std::vector<std::string> harmless;  // a copy takes over, nothing is loaded
  std::vector<std::string> loads;     // other devices have room, and load layers first
  std::vector<std::string> fatal;     // the model does not fit any more
};

Losses LossesOf(const Planned& planned) {
  Losses losses;
  std::vector<std::int32_t> devices;
  for (const PlanStage& stage : planned.result.plan.stages) devices.push_back(stage.device);
  losses.harmless = NamesOf(planned.input, HarmlessLosses(devices, planned.copies));
  for (const WhatIf& what : planned.without) {
    const bool harmless =
        std::find(losses.harmless.begin(), losses.harmless.end(), what.device) != losses.harmless.end();
    if (!harmless) (what.plan ? losses.loads : losses.fatal).push_back(what.device);
  }
  return losses;
}

Result<std::optional<PlanCluster>> ReadDevices(const std::string& path) {
  if (path.empty()) return std::optional<PlanCluster>();
  SHOAL_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  SHOAL_ASSIGN_OR_RETURN(PlanCluster cluster, ParseClusterFile(text));
  return std::optional(std::move(cluster));
}

// For the choice of a quantization.
AtHand MemoryOf(const PlanCluster& cluster) {
  AtHand at_hand;
  at_hand.whose = "memory of " + std::to_string(cluster.devices.size()) + " devices";
  for (const PlanDevice& device : cluster.devices) at_hand.memory_bytes += device.memory_bytes;
  return at_hand;
}

Result<PlanInput> MakeInput(const PlanOptions& options, const std::optional<PlanCluster>& devices,
                            const ModelFile& model, Planned& planned) {
  KnownCluster known;
  if (devices) {
    known.cluster = *devices;
  } else if (NodeHere().NodeRuns()) {
    SHOAL_ASSIGN_OR_RETURN(const ClusterStatus status, NodeHere().GetStatus());
    SHOAL_ASSIGN_OR_RETURN(known, ClusterForPlans(status, ShoalHome(), model.info));
  } else {
    known = ThisDeviceForPlans(ShoalHome(), model.info);
  }
  planned.estimated = std::move(known.estimated);
  planned.unmeasured_links = std::move(known.unmeasured_links);
  planned.powers_of_table = !devices && known.powers_of_table;
  PlanInput input{known.cluster.devices, known.cluster.links, PlanModelOf(model, options.context), {}, {}};
  input.workload = {options.prompt, options.answer, options.streams, options.context};
  input.policy.spread = options.objective == "spread";
  input.policy.objective = options.objective == "energy"    ? PlanObjective::kEnergy
                           : options.objective == "latency" ? PlanObjective::kLatency
                                                            : PlanObjective::kThroughput;
  // What a device has for stages leaves room for the rest of its system and for compute buffers, as `place` counts it.
  input.policy.memory_headroom = 0;
  input.policy.stage_bytes = 0;
  input.policy.alone_within = kForecastError;
  input.policy.speed_share_min = options.speed_share;
  input.policy.battery_weight = options.battery_weight;
  return input;
}

// A stage on every device, cut for many streams; its cost is by what this plan is made for.
std::optional<Plan> SpreadOf(const PlanInput& input) {
  PlanInput many = input;
  many.policy.objective = PlanObjective::kThroughput;
  many.policy.spread = true;
  const Result<PlanResult> spread = MakePlan(many);
  if (!spread.ok()) return std::nullopt;
  const Result<Plan> judged = JudgePlan(input, spread->plan.stages);
  return judged.ok() ? std::optional(*judged) : std::nullopt;
}

Result<Planned> MakePlanned(const PlanOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(const std::optional<PlanCluster> devices, ReadDevices(options.devices_file));
  Planned planned;
  SHOAL_ASSIGN_OR_RETURN(planned.model,
                         ReadModelHeader(options.model, [&] { return devices ? MemoryOf(*devices) : LookAtHand(); }));
  SHOAL_ASSIGN_OR_RETURN(planned.input, MakeInput(options, devices, *planned.model.file, planned));
  SHOAL_ASSIGN_OR_RETURN(planned.result, MakePlan(planned.input));
  planned.copies = PlanCopies(planned.input, planned.result.plan, CopiesOf(options.standby));
  planned.spread = planned.input.policy.spread ? planned.result.plan : SpreadOf(planned.input);
  planned.without = WithoutEach(planned.input, planned.result.plan);
  planned.with = WithTwinOfEach(planned.input, kUnmeasuredLink);
  if (options.target_tps > 0)
    planned.reach = WhatReaches(planned.input, planned.result.plan, options.target_tps, kUnmeasuredLink);
  return planned;
}

Json ReachJson(const PlanInput& input, const Reach& reach) {
  const auto or_null = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  return {{"already", reach.already},
          {"other_plan", reach.other_plan ? PlanJson(input, *reach.other_plan) : Json(nullptr)},
          {"faster_devices", or_null(reach.faster_devices)},
          {"smaller_weights", or_null(reach.smaller_weights)},
          {"links_without_latency", or_null(reach.links_only)},
          {"one_more_of", reach.twins}};
}

void PrintJson(const Planned& planned) {
  const auto changes = [&](const std::vector<WhatIf>& answers) {
    Json list = Json::array();
    for (const WhatIf& what : answers) {
      Json item = {{"device", what.device}, {"holds", what.plan.has_value()}};
      if (what.plan) {
        item["tokens_s"] = what.plan->tokens_s;
        item["tokens_s_many"] = what.plan->tokens_s_many;
        item["cost_ratio"] = what.plan->cost / planned.result.plan.cost;
      }
      list.push_back(std::move(item));
    }
    return list;
  };
  Json json = PlanJson(planned.input, planned.result.plan);
  for (std::size_t i = 0; i < planned.copies.size(); ++i) {
    json["stages"][i]["standby"] = NamesOf(planned.input, planned.copies[i]);
  }
  const Losses losses = LossesOf(planned);
  json["survives"] = losses.harmless;
  json["loads_after_loss_of"] = losses.loads;
  json["does_not_fit_without"] = losses.fatal;
  const ModelHeader& model = planned.model;
  json["model"] = {{"name", ModelNameOf(model.file->path)},
                   {"quantization", model.file->info.quantization},
                   {"bytes", model.file->info.file_bytes},
                   {"origin", model.origin},
                   {"chosen", model.chosen},
                   {"metadata_bytes", model.read_bytes}};
  json["exact"] = planned.result.exact;
  json["reason"] = planned.result.reason;
  json["warnings"] = planned.result.warnings;
  json["estimated"] = planned.estimated;
  json["unmeasured_links"] = planned.unmeasured_links;
  json["micro_batch_tokens"] = kPassRows;
  json["runners_up"] = Json::array();
  for (const Plan& plan : planned.result.runners_up) json["runners_up"].push_back(PlanJson(planned.input, plan));
  json["spread"] = planned.spread ? PlanJson(planned.input, *planned.spread) : Json();
  json["without"] = changes(planned.without);
  json["with_another"] = changes(planned.with);
  if (planned.reach) json["target"] = ReachJson(planned.input, *planned.reach);
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

std::vector<std::string> Figures(const Plan& plan, double best_cost) {
  return {Decimal(plan.first_token_s, " s"), Decimal(plan.tokens_s, ""), Decimal(plan.tokens_s_many, ""),
          Decimal(plan.cost / best_cost, "x")};
}

// Nothing of one that is here: people know it.
void PrintModel(const ModelHeader& model) {
  if (model.origin.empty()) return;
  std::printf("%s, %s", WithoutQuery(model.origin).c_str(), FormatBytes(model.file->info.file_bytes).c_str());
  if (!model.chosen.empty()) std::printf(": %s", model.chosen.c_str());
  std::printf(". Its header was read, %s; no weights.\n\n", FormatBytes(model.read_bytes).c_str());
}

void PrintLosses(const Losses& losses) {
  const std::string harmless = losses.harmless.empty() ? "none" : Joined(losses.harmless);
  std::printf("May be lost one at a time with nothing loaded: %s.\n", harmless.c_str());
  if (!losses.loads.empty())
    std::printf("Others load layers first after a loss of: %s.\n", Joined(losses.loads).c_str());
  if (!losses.fatal.empty()) std::printf("The model does not fit without: %s.\n", Joined(losses.fatal).c_str());
}

void PrintPlan(const Planned& planned, std::int32_t streams) {
  const Plan& plan = planned.result.plan;
  Rows rows{{"stage", "device", "layers", "memory", "of it K and V", "standby"}};
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const LayerRange layers = plan.stages[i].layers;
    rows.push_back({std::to_string(i), planned.input.devices[static_cast<std::size_t>(plan.stages[i].device)].name,
                    std::to_string(layers.first) + "-" + std::to_string(layers.last - 1),
                    FormatBytes(plan.memory_bytes[i]), FormatBytes(plan.kv_bytes[i]),
                    planned.copies[i].empty() ? "-" : Joined(NamesOf(planned.input, planned.copies[i]))});
  }
  std::printf("%s\n%s\n", FormatTable(rows).c_str(), planned.result.reason.c_str());
  for (const std::string& warning : planned.result.warnings) std::printf("But: %s\n", warning.c_str());
  std::printf("Expected: first token after %s, then %s tokens/s; %s tokens/s over %d streams.\n",
              Decimal(plan.first_token_s, " s").c_str(), Decimal(plan.tokens_s, "").c_str(),
              Decimal(plan.tokens_s_many, "").c_str(), streams);
  std::printf("A micro-batch has %d tokens of a prompt, or one of each of %d streams.\n", kPassRows,
              (streams + plan.groups - 1) / plan.groups);
  if (plan.joules_token > 0) {
    std::printf("Energy: %s for each token of one request%s.\n", Decimal(plan.joules_token, " J").c_str(),
                planned.powers_of_table ? ", by a table of what devices take, not measured" : "");
  }
  PrintLosses(LossesOf(planned));
  if (!planned.result.exact) std::printf("A bounded search found it; a better one may exist.\n");
  if (!planned.estimated.empty()) {
    std::printf("Estimated from cores, not measured: %s (shoal device --bench measures).\n",
                Joined(planned.estimated).c_str());
  }
  if (!planned.unmeasured_links.empty()) {
    std::printf("Taken for a home's Wi-Fi, not measured yet: the links %s.\n",
                Joined(planned.unmeasured_links).c_str());
  }
}

void PrintOthers(const Planned& planned) {
  const double best = planned.result.plan.cost;
  Rows rows{{"\nother plans", "first token", "tokens/s", "many", "takes"}};
  const auto add = [&](const std::string& name, const std::optional<Plan>& plan) {
    std::vector<std::string> row{name};
    const std::vector<std::string> figures =
        plan ? Figures(*plan, best) : std::vector<std::string>{"does not fit", "", "", ""};
    row.insert(row.end(), figures.begin(), figures.end());
    rows.push_back(std::move(row));
  };
  for (const Plan& plan : planned.result.runners_up) add(NamesOf(planned.input, plan), plan);
  if (planned.spread && planned.spread->stages != planned.result.plan.stages) {
    add("spread: " + NamesOf(planned.input, *planned.spread), planned.spread);
  }
  for (const WhatIf& what : planned.without) {
    if (planned.input.devices.size() > 1) add("without " + what.device, what.plan);
  }
  for (const WhatIf& what : planned.with) add("with another " + what.device, what.plan);
  if (rows.size() > 1) std::fputs(FormatTable(rows).c_str(), stdout);
}

void PrintReach(const PlanInput& input, const Reach& reach, double target) {
  std::printf("\n%s tokens/s for one stream: ", Decimal(target, "").c_str());
  if (reach.already) {
    std::printf("reached.\n");
    return;
  }
  if (reach.other_plan) {
    std::printf("not by this plan, but by %s (%s tokens/s; --objective latency).\n",
                NamesOf(input, *reach.other_plan).c_str(), Decimal(reach.other_plan->tokens_s, "").c_str());
    return;
  }
  std::printf("not reached. It would take one of\n");
  bool any = false;
  const auto say = [&](bool is, const std::string& what) {
    if (is) std::printf("  %s\n", what.c_str());
    any |= is;
  };
  for (const std::string& name : reach.twins) say(true, "another device like " + name);
  say(reach.smaller_weights.has_value(),
      "a model or quantization of " + Decimal(reach.smaller_weights.value_or(0) * 100, " % of the size"));
  say(reach.faster_devices.has_value(), "devices " + Decimal(reach.faster_devices.value_or(0), " times as fast"));
  say(reach.links_only.has_value(), "links without latency, a cable say");
  if (!any) std::printf("  nothing that was tried\n");
}

}  // namespace

int RunPlan(const PlanOptions& options) {
  WatchSignals();
  const Result<Planned> planned = MakePlanned(options);
  if (!planned.ok()) return Fail(planned.error());
  if (options.json) {
    PrintJson(*planned);
    return kExitOk;
  }
  PrintModel(planned->model);
  PrintPlan(*planned, options.streams);
  PrintOthers(*planned);
  if (planned->reach) PrintReach(planned->input, *planned->reach, options.target_tps);
  return kExitOk;
}

}  // namespace shoal::cli
