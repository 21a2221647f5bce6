// One function a struct and direction.
#include "api/control_json.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "api/json_values.h"
#include "api/request_fields.h"

namespace shoal {
namespace {

constexpr std::array kErrorCodes{ErrorCode::kInvalidArgument, ErrorCode::kNotFound,    ErrorCode::kCorrupt,
                                 ErrorCode::kUnsupported,     ErrorCode::kOutOfMemory, ErrorCode::kKvFull,
                                 ErrorCode::kContextFull,     ErrorCode::kOverloaded,  ErrorCode::kCancelled,
                                 ErrorCode::kStale,           ErrorCode::kUnavailable, ErrorCode::kIo,
                                 ErrorCode::kInternal};

Json HeldJson(const std::vector<LayerRange>& ranges) {
  Json list = Json::array();
  for (const LayerRange& range : ranges) list.push_back({{"first", range.first}, {"last", range.last - 1}});
  return list;
}

Json OffloadJson(const OffloadStatus& offload) {
  if (offload.device.empty()) return nullptr;
  return {{"device", offload.device}, {"layers", offload.layers}, {"use", offload.use}, {"text", offload.text}};
}

Json ToJson(const NodeStatus& node) {
  Json models = Json::array();
  for (const ModelStatus& m : node.models) {
    char fingerprint[20];
    std::snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, m.fingerprint);
    models.push_back({{"name", m.name},
                      {"bytes", m.file_bytes},
                      {"layers", m.layers},
                      {"fingerprint", fingerprint},
                      {"held", HeldJson(m.held)},
                      {"held_bytes", m.held_bytes}});
  }
  Json speeds = Json::array(), groups = Json::array();
  for (const SpeedStatus& s : node.speeds) {
    speeds.push_back({{"quantization", s.quantization},
                      {"one_row_bytes_s", s.one_row_bytes_s},
                      {"rows_bytes_s", s.rows_bytes_s},
                      {"operation_s", s.operation_s}});
  }
  Json stage_speeds = Json::array();
  for (const auto& [model, s] : node.stage_speeds) {
    Json item = {{"model", model}};
    for (const auto& [name, value] : StageFigures(s)) item[name] = *value;
    stage_speeds.push_back(std::move(item));
  }
  for (const CoreGroupStatus& g : node.groups) {
    groups.push_back({{"kind", g.kind}, {"cores", g.cores}, {"bytes_s", g.bytes_s}});
  }
  Json fetching = Json::array();
  for (const FetchStatus& f : node.fetching) {
    fetching.push_back({{"model", f.model}, {"bytes_done", f.bytes_done}, {"bytes_total", f.bytes_total}});
  }
  return {{"id", node.id},
          {"name", node.name},
          {"state", node.state},
          {"self", node.self},
          {"owner", node.owner},
          {"addresses", node.addresses},
          {"api", node.api},
          {"device",
           {{"os", node.os},
            {"arch", node.arch},
            {"cores", node.cores},
            {"memory_bytes", node.memory_bytes},
            {"memory_free_bytes", node.memory_free_bytes},
            {"memory_budget_bytes", node.memory_budget_bytes},
            {"memory_bytes_s", node.memory_bytes_s},
            {"speeds", std::move(speeds)},
            {"stage_speeds", std::move(stage_speeds)},
            {"ration", node.ration},
            {"pace", node.pace},
            {"battery_percent", node.battery_percent < 0 ? Json(nullptr) : Json(node.battery_percent)},
            {"rest", node.rest},
            {"draining", node.draining.empty() ? Json(nullptr) : Json(node.draining)},
            {"idle_w", node.idle_w},
            {"active_w", node.active_w},
            {"power_measured", node.power_measured},
            {"on_battery", node.on_battery},
            {"core_groups", std::move(groups)},
            {"offload", OffloadJson(node.offload)}}},
          {"models", std::move(models)},
          {"fetching", std::move(fetching)}};
}

Error Invalid(const std::string& message) { return {ErrorCode::kInvalidArgument, message}; }

// The body as an object whose fields are all among `known`. An empty body is an empty object.
Result<Json> ParseRequest(std::string_view body, std::initializer_list<const char*> known) {
  if (body.empty()) return Json::object();
  if (body.size() > kControlBodyBytesMax) {
    return Invalid("the request is longer than " + std::to_string(kControlBodyBytesMax) + " bytes");
  }
  Json object;
  if (const auto error = ParseJson(body, object)) return Invalid(error->message);
  if (!object.is_object()) return Invalid("the request must be a JSON object");
  for (const auto& [key, value] : object.items()) {
    const bool is_known =
        std::any_of(known.begin(), known.end(), [&, &name = key](const char* k) { return name == k; });
    if (!is_known) return Invalid("the request has an unknown field '" + key.substr(0, kControlNameBytesMax) + "'");
  }
  return object;
}

Status CheckText(const std::string& field, const std::string& text, std::size_t bytes_min,
                 std::size_t bytes_max = kControlNameBytesMax) {
  if (text.size() >= bytes_min && text.size() <= bytes_max) return {};
  return Invalid("'" + field + "' must have " + std::to_string(bytes_min) + " to " + std::to_string(bytes_max) +
                 " bytes");
}

Status ReadTexts(const char* field, const Json& list, std::vector<std::string>& texts) {
  const std::string name = "'" + std::string(field) + "'";
  if (list.size() > kControlNodesMax) {
    return Invalid(name + " has more than " + std::to_string(kControlNodesMax) + " entries");
  }
  for (const Json& text : list) {
    if (!text.is_string()) return Invalid(name + " must be an array of texts");
    texts.push_back(text.get<std::string>());
    SHOAL_RETURN_IF_ERROR(CheckText(field, texts.back(), 1));
  }
  return {};
}

// ---- The client's side: a value of the wanted type, else the type's zero.

template <typename Integer>
Integer Number(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<Integer>() : Integer{0};
}

bool Flag(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

// The objects of an array; what is no object is left out.
std::vector<Json> Objects(const Json& object, const char* key) {
  std::vector<Json> objects;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) return objects;
  for (const Json& item : *it)
    if (item.is_object()) objects.push_back(item);
  return objects;
}

std::vector<std::string> Texts(const Json& object, const char* key) {
  std::vector<std::string> texts;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) return texts;
  for (const Json& item : *it)
    if (item.is_string()) texts.push_back(item.get<std::string>());
  return texts;
}

Result<Json> ParseAnswer(std::string_view body, std::initializer_list<const char*> needed) {
  Json object;
  const auto error = ParseJson(body, object);
  bool complete = !error && object.is_object();
  for (const char* key : needed) complete = complete && object.contains(key);
  if (!complete) return Error{ErrorCode::kCorrupt, "the node answered something that this program does not understand"};
  return object;
}

LayerRange LayersFrom(const Json& json) {
  const auto last = std::min(Number<std::int32_t>(json, "last"), kControlContextTokensMax);
  return {Number<std::int32_t>(json, "first"), last + 1};
}

PlacementStatus PlacementFrom(const Json& json) {
  PlacementStatus placement{TextIn(json, "model"),
                            Number<Epoch>(json, "epoch"),
                            TextIn(json, "state"),
                            TextIn(json, "error"),
                            {},
                            Texts(json, "survives"),
                            TextIn(json, "goal"),
                            {},
                            {}};
  if (const auto f = json.find("forecast"); f != json.end() && f->is_object()) {
    placement.forecast = {NumberIn(*f, "first_token_s"), NumberIn(*f, "tokens_s"), NumberIn(*f, "tokens_s_many"),
                          Flag(*f, "measured"), TextIn(*f, "reason")};
  }
  if (const auto o = json.find("observed"); o != json.end() && o->is_object()) {
    placement.observed = {NumberIn(*o, "tokens_s"), NumberIn(*o, "tokens_s_many"), NumberIn(*o, "streams"),
                          NumberIn(*o, "prompt_tokens_s")};
  }
  for (const Json& s : Objects(json, "stages")) {
    placement.stages.push_back({TextIn(s, "node"), TextIn(s, "name"), LayersFrom(s), Texts(s, "standby"),
                                Number<std::uint64_t>(s, "memory_bytes")});
  }
  return placement;
}

NodeStatus NodeFrom(const Json& json) {
  NodeStatus node;
  node.id = TextIn(json, "id");
  node.name = TextIn(json, "name");
  node.state = TextIn(json, "state");
  node.self = Flag(json, "self");
  node.owner = Flag(json, "owner");
  node.addresses = Texts(json, "addresses");
  node.api = TextIn(json, "api");
  if (const auto device = json.find("device"); device != json.end() && device->is_object()) {
    node.os = TextIn(*device, "os");
    node.arch = TextIn(*device, "arch");
    node.cores = Number<std::int32_t>(*device, "cores");
    node.memory_bytes = Number<std::uint64_t>(*device, "memory_bytes");
    node.memory_free_bytes = Number<std::uint64_t>(*device, "memory_free_bytes");
    node.memory_budget_bytes = Number<std::uint64_t>(*device, "memory_budget_bytes");
    node.memory_bytes_s = NumberIn(*device, "memory_bytes_s");
    if (const double pace = NumberIn(*device, "pace"); pace > 0) node.pace = pace;
    if (device->contains("battery_percent") && (*device)["battery_percent"].is_number()) {
      node.battery_percent = Number<std::int32_t>(*device, "battery_percent");
    }
    node.rest = NumberIn(*device, "rest");
    node.draining = TextIn(*device, "draining");
    node.idle_w = NumberIn(*device, "idle_w");
    node.active_w = NumberIn(*device, "active_w");
    node.power_measured = Flag(*device, "power_measured");
    node.on_battery = Flag(*device, "on_battery");
    for (const Json& s : Objects(*device, "speeds")) {
      node.speeds.push_back({TextIn(s, "quantization"), NumberIn(s, "one_row_bytes_s"), NumberIn(s, "rows_bytes_s"),
                             NumberIn(s, "operation_s")});
    }
    for (const Json& s : Objects(*device, "stage_speeds")) {
      StageSpeedStatus& one = node.stage_speeds.emplace_back();
      one.model = TextIn(s, "model");
      for (const auto& [name, value] : StageFigures(one.speed)) *value = NumberIn(s, name);
    }
    if (const double ration = NumberIn(*device, "ration"); ration > 0 && ration <= 1) node.ration = ration;
    for (const Json& g : Objects(*device, "core_groups")) {
      node.groups.push_back({TextIn(g, "kind"), Number<std::int32_t>(g, "cores"), NumberIn(g, "bytes_s")});
    }
    if (const auto offload = device->find("offload"); offload != device->end() && offload->is_object()) {
      node.offload = {TextIn(*offload, "device"), Number<std::int32_t>(*offload, "layers"), TextIn(*offload, "use"),
                      TextIn(*offload, "text")};
    }
  }
  for (const Json& m : Objects(json, "models")) {
    ModelStatus& model = node.models.emplace_back();
    model.name = TextIn(m, "name");
    model.file_bytes = Number<std::uint64_t>(m, "bytes");
    model.layers = Number<std::int32_t>(m, "layers");
    model.fingerprint = std::strtoull(TextIn(m, "fingerprint").c_str(), nullptr, 16);
    for (const Json& held : Objects(m, "held")) model.held.push_back(LayersFrom(held));
    model.held_bytes = Number<std::uint64_t>(m, "held_bytes");
  }
  for (const Json& f : Objects(json, "fetching")) {
    node.fetching.push_back(
        {TextIn(f, "model"), Number<std::uint64_t>(f, "bytes_done"), Number<std::uint64_t>(f, "bytes_total")});
  }
  return node;
}

// By the status alone, for answers that have no body of ours.
ErrorCode CodeOfStatus(int status) {
  if (status == 404) return ErrorCode::kNotFound;
  if (status == 429) return ErrorCode::kOverloaded;
  if (status == 503) return ErrorCode::kUnavailable;
  return status < 500 ? ErrorCode::kInvalidArgument : ErrorCode::kInternal;
}

}  // namespace

std::string DumpJson(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json ToJson(const PlacementStatus& placement) {
  Json stages = Json::array();
  for (const PlacedStage& s : placement.stages) {
    stages.push_back({{"node", s.node},
                      {"name", s.name},
                      {"first", s.layers.first},
                      {"last", s.layers.last - 1},
                      {"standby", s.standby},
                      {"memory_bytes", s.memory_bytes}});
  }
  Json json{{"model", placement.model},    {"epoch", placement.epoch},       {"state", placement.state},
            {"stages", std::move(stages)}, {"survives", placement.survives}, {"goal", placement.goal}};
  if (const ForecastStatus& f = placement.forecast; f.tokens_s > 0) {
    json["forecast"] = {{"first_token_s", f.first_token_s},
                        {"tokens_s", f.tokens_s},
                        {"tokens_s_many", f.tokens_s_many},
                        {"measured", f.measured},
                        {"reason", f.reason}};
  }
  const auto figure = [](double value) { return value > 0 ? Json(value) : Json(); };
  const ObservedSpeeds& o = placement.observed;
  json["observed"] = {{"tokens_s", figure(o.tokens_s)},
                      {"tokens_s_many", figure(o.tokens_s_many)},
                      {"streams", figure(o.streams)},
                      {"prompt_tokens_s", figure(o.prompt_tokens_s)}};
  if (!placement.error.empty()) json["error"] = placement.error;
  return json;
}

Json ToJson(const KernelStatus& kernels) {
  Json choices = Json::array();
  for (const KernelChoiceStatus& c : kernels.choices) {
    choices.push_back(
        {{"quantization", c.quantization}, {"variant", c.variant}, {"threads", c.threads}, {"why", c.why}});
  }
  return {{"loaded", kernels.loaded}, {"state", kernels.state}, {"choices", std::move(choices)}};
}

Json ToJson(const ClusterStatus& status) {
  Json nodes = Json::array(), links = Json::array(), placements = Json::array();
  for (const NodeStatus& node : status.nodes) nodes.push_back(ToJson(node));
  for (const LinkStatus& l : status.links) {
    links.push_back({{"from", l.from}, {"to", l.to}, {"rtt_us", l.rtt_us}, {"bytes_per_s", l.bytes_per_s}});
  }
  for (const PlacementStatus& placement : status.placements) placements.push_back(ToJson(placement));
  return {{"self", status.self},       {"cluster", status.cluster}, {"kernels", ToJson(status.kernels)},
          {"nodes", std::move(nodes)}, {"links", std::move(links)}, {"placements", std::move(placements)}};
}

Json ToJson(const InviteStatus& invite) {
  return {{"code", invite.code},
          {"expires_s", invite.expires_s},
          {"addresses", invite.addresses},
          {"url", invite.url},
          {"qr", invite.qr}};
}

Json ToJson(const PlaceCommand& options) {
  return {{"model", options.model},     {"stages", options.stages},
          {"nodes", options.nodes},     {"context_tokens", options.context_tokens},
          {"slots", options.slots},     {"wire", options.wire},
          {"standby", options.standby}, {"goal", options.goal}};
}

Json ToJson(const JoinCommand& command) {
  return {{"code", command.code}, {"name", command.name}, {"peers", command.peers}};
}

std::string ControlErrorBody(const Error& error) {
  return DumpJson({{"error", {{"code", ErrorCodeName(error.code)}, {"message", error.message}}}});
}

Result<PlaceCommand> ParsePlaceRequest(std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const Json object, ParseRequest(body, {"model", "stages", "nodes", "context_tokens", "slots",
                                                                "wire", "standby", "goal"}));
  PlaceCommand options;
  FieldReader fields(object);
  fields.String("model", options.model);
  fields.String("stages", options.stages);
  fields.Integer("context_tokens", 0, kControlContextTokensMax, options.context_tokens);
  fields.Integer("slots", 1, kControlSlotsMax, options.slots);
  fields.Integer("standby", 0, kControlStandbyMax, options.standby);
  fields.String("wire", options.wire);
  fields.String("goal", options.goal);
  const Json* nodes = fields.Array("nodes");
  if (fields.error()) return Invalid(fields.error()->message);
  if (nodes != nullptr) SHOAL_RETURN_IF_ERROR(ReadTexts("nodes", *nodes, options.nodes));
  SHOAL_RETURN_IF_ERROR(CheckText("model", options.model, 1));
  SHOAL_RETURN_IF_ERROR(CheckText("stages", options.stages, 0));
  if (options.wire != "f32" && options.wire != "f16" && options.wire != "bf16") {
    return Invalid("'wire' must be f32, f16 or bf16");
  }
  const auto goals = {"spread", "latency", "throughput", "energy"};
  if (std::find(goals.begin(), goals.end(), options.goal) == goals.end()) {
    return Invalid("'goal' must be spread, latency, throughput or energy");
  }
  return options;
}

Result<JoinCommand> ParseJoinRequest(std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const Json object, ParseRequest(body, {"code", "name", "peers"}));
  JoinCommand command;
  FieldReader fields(object);
  fields.String("code", command.code);
  fields.String("name", command.name);
  const Json* peers = fields.Array("peers");
  if (fields.error()) return Invalid(fields.error()->message);
  if (peers != nullptr) SHOAL_RETURN_IF_ERROR(ReadTexts("peers", *peers, command.peers));
  SHOAL_RETURN_IF_ERROR(CheckText("code", command.code, 1, kControlCodeBytesMax));
  SHOAL_RETURN_IF_ERROR(CheckText("name", command.name, 0));
  return command;
}

Result<std::string> ParseOneField(std::string_view body, const char* field) {
  SHOAL_ASSIGN_OR_RETURN(const Json object, ParseRequest(body, {field}));
  FieldReader fields(object);
  std::string text;
  fields.String(field, text);
  if (fields.error()) return Invalid(fields.error()->message);
  SHOAL_RETURN_IF_ERROR(CheckText(field, text, 1));
  return text;
}

Status ParseEmptyRequest(std::string_view body) {
  const Result<Json> object = ParseRequest(body, {});
  return object.ok() ? Status() : Status(object.error());
}

Result<ClusterStatus> ParseClusterStatus(std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const Json json, ParseAnswer(body, {"self", "cluster", "nodes", "links", "placements"}));
  ClusterStatus status;
  status.self = TextIn(json, "self");
  status.cluster = TextIn(json, "cluster");
  if (const auto kernels = json.find("kernels"); kernels != json.end() && kernels->is_object()) {
    status.kernels = {TextIn(*kernels, "loaded"), TextIn(*kernels, "state"), {}};
    for (const Json& c : Objects(*kernels, "choices")) {
      status.kernels.choices.push_back(
          {TextIn(c, "quantization"), TextIn(c, "variant"), Number<std::int32_t>(c, "threads"), TextIn(c, "why")});
    }
  }
  status.nodes = NodesIn(json);
  for (const Json& link : Objects(json, "links")) {
    status.links.push_back({TextIn(link, "from"), TextIn(link, "to"), Number<std::uint32_t>(link, "rtt_us"),
                            Number<std::uint64_t>(link, "bytes_per_s")});
  }
  for (const Json& placement : Objects(json, "placements")) status.placements.push_back(PlacementFrom(placement));
  return status;
}

std::vector<NodeStatus> NodesIn(const Json& json) {
  std::vector<NodeStatus> nodes;
  for (const Json& node : Objects(json, "nodes")) nodes.push_back(NodeFrom(node));
  return nodes;
}

Result<InviteStatus> ParseInviteStatus(std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const Json json, ParseAnswer(body, {"code", "url"}));
  return InviteStatus{TextIn(json, "code"), Number<std::int64_t>(json, "expires_s"), Texts(json, "addresses"),
                      TextIn(json, "url"), TextIn(json, "qr")};
}

Result<PlacementStatus> ParsePlacementStatus(std::string_view body) {
  SHOAL_ASSIGN_OR_RETURN(const Json json, ParseAnswer(body, {"model", "epoch", "state", "stages"}));
  return PlacementFrom(json);
}

Error ParseControlError(int status, std::string_view body) {
  Error error{CodeOfStatus(status), "the node refused the request (HTTP status " + std::to_string(status) + ")"};
  Json object;
  if (ParseJson(body, object) || !object.is_object()) return error;
  const auto inner = object.find("error");
  if (inner == object.end() || !inner->is_object()) return error;
  const std::string name = TextIn(*inner, "code");
  const auto code =
      std::find_if(kErrorCodes.begin(), kErrorCodes.end(), [&](ErrorCode c) { return ErrorCodeName(c) == name; });
  if (code != kErrorCodes.end()) error.code = *code;
  if (name == kContextFullCode) error.code = ErrorCode::kContextFull;
  if (const std::string message = TextIn(*inner, "message"); !message.empty()) error.message = message;
  return error;
}

}  // namespace shoal
