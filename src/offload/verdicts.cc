// One JSON object in a file that is replaced whole.
#include "offload/verdicts.h"

#include <iterator>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "identity/private_file.h"

namespace shoal {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr std::size_t kVerdictsMax = 64;
constexpr std::size_t kFileBytesMax = 256U << 10;

}  // namespace

Verdicts::Verdicts(std::string home)
    : path_(std::move(home) + "/devices.json"), verdicts_(Parse(ReadPrivateText(path_, kFileBytesMax))) {}

std::optional<Verdict> Verdicts::Find(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto known = verdicts_.find(key);
  return known == verdicts_.end() ? std::nullopt : std::optional(known->second);
}

void Verdicts::Keep(const std::string& key, const Verdict& verdict) {
  const std::lock_guard lock(mutex_);
  verdicts_[key] = verdict;
  while (verdicts_.size() > kVerdictsMax) {
    const auto first = verdicts_.begin();
    verdicts_.erase(first->first == key ? std::next(first) : first);
  }
  const Status kept = WritePrivateText(path_, Text(verdicts_));
  if (!kept.ok()) Log(LogLevel::kWarning, "device", kept.error().message);
}

std::string Verdicts::Text(const std::map<std::string, Verdict>& verdicts) {
  Json list = Json::array();
  for (const auto& [key, verdict] : verdicts) {
    list.push_back({{"key", key}, {"passed", verdict.passed}, {"text", verdict.text}});
  }
  return Json{{"version", kVersion}, {"devices", list}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::map<std::string, Verdict> Verdicts::Parse(const std::string& text) {
  std::map<std::string, Verdict> verdicts;
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("version", Json()) != kVersion || !json.contains("devices")) return verdicts;
  for (const Json& item : json["devices"]) {
    if (verdicts.size() >= kVerdictsMax || !item.is_object()) continue;
    const auto key = item.find("key"), passed = item.find("passed"), said = item.find("text");
    if (key == item.end() || passed == item.end() || said == item.end()) continue;
    if (!key->is_string() || !passed->is_boolean() || !said->is_string()) continue;
    verdicts[key->get<std::string>()] = {passed->get<bool>(), said->get<std::string>()};
  }
  return verdicts;
}

}  // namespace shoal
