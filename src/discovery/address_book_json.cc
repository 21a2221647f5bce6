// peers.json: the part of the book that outlives a restart.
#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "discovery/address_book.h"
#include "identity/keys.h"

namespace shoal {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr std::size_t kFrameBytes = 64;  // of what is around the nodes

struct ReadAddress {
  NodeId node;
  Endpoint endpoint;
  std::int64_t reached_s = 0;
};

const json* Member(const json& object, const char* key, json::value_t type) {
  if (!object.is_object()) return nullptr;
  const auto at = object.find(key);
  // Positive numbers are unsigned to the parser.
  return at != object.end() && at->type() == type ? &*at : nullptr;
}

std::optional<ReadAddress> ReadOne(const NodeId& node, const json& item) {
  const json* const at = Member(item, "at", json::value_t::string);
  const json* const reached_s = Member(item, "reached_s", json::value_t::number_unsigned);
  if (at == nullptr || reached_s == nullptr) return std::nullopt;
  const auto endpoint = ParseEndpoint(at->get_ref<const std::string&>());
  const auto reached = reached_s->get<std::uint64_t>();
  if (!endpoint.ok() || reached > INT64_MAX || reached == 0) return std::nullopt;
  return ReadAddress{node, *endpoint, static_cast<std::int64_t>(reached)};
}

// All addresses of the text, or nothing when any part of it is not as ToJson writes it.
std::optional<std::vector<ReadAddress>> ReadAll(const json& root) {
  const json* const version = Member(root, "version", json::value_t::number_unsigned);
  const json* const nodes = Member(root, "nodes", json::value_t::array);
  if (version == nullptr || version->get<std::uint64_t>() != kVersion || nodes == nullptr) return std::nullopt;
  std::vector<ReadAddress> read;
  for (const json& item : *nodes) {
    const json* const id = Member(item, "id", json::value_t::string);
    const json* const addresses = Member(item, "addresses", json::value_t::array);
    if (id == nullptr || addresses == nullptr) return std::nullopt;
    const auto node = ParsePeerId(id->get_ref<const std::string&>());
    if (!node.ok() || node->IsZero()) return std::nullopt;
    for (const json& address : *addresses) {
      std::optional<ReadAddress> one = ReadOne(*node, address);
      if (!one) return std::nullopt;
      read.push_back(std::move(*one));
    }
  }
  return read;
}

}  // namespace

std::string AddressBook::ToJson() const {
  std::vector<std::pair<std::int64_t, json>> nodes;  // by latest success
  for (const NodeId& node : Nodes()) {
    if (!ParsePeerId(PeerIdText(node)).ok()) continue;  // bytes that are no key have no id
    json addresses = json::array();
    const std::vector<KnownAddress> known = AddressesOf(node);
    for (const KnownAddress& address : known) {
      if (address.success_unix_s <= 0) continue;
      addresses.push_back({{"at", EndpointText(address.endpoint)}, {"reached_s", address.success_unix_s}});
    }
    if (addresses.empty()) continue;
    nodes.emplace_back(known[0].success_unix_s, json{{"id", PeerIdText(node)}, {"addresses", std::move(addresses)}});
  }
  std::stable_sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  json root = {{"version", kVersion}, {"nodes", json::array()}};
  std::size_t bytes = kFrameBytes;
  for (auto& [latest, node] : nodes) {
    bytes += node.dump().size() + 1;
    if (bytes > kBookJsonBytesMax) break;
    root["nodes"].push_back(std::move(node));
  }
  return root.dump();
}

Status AddressBook::AddJson(std::string_view text, TimeUs now) {
  const Error corrupt{ErrorCode::kCorrupt, "peers.json is not a list of addresses"};
  if (text.size() > kBookJsonBytesMax) return corrupt;
  const json root = json::parse(text, nullptr, false);
  if (root.is_discarded()) return corrupt;
  const auto read = ReadAll(root);
  if (!read) return corrupt;
  for (const ReadAddress& address : *read) {
    Learn(address.node, address.endpoint, AddressSource::kRemembered, now);
    const auto node = nodes_.find(address.node);
    if (node == nodes_.end()) continue;
    Entry* const entry = Find(node->second, address.endpoint);
    if (entry != nullptr) entry->known.success_unix_s = std::max(entry->known.success_unix_s, address.reached_s);
  }
  return {};
}

}  // namespace shoal
