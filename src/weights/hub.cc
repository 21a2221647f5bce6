// Parsing of names and of the hub's list of files; the choice among them.
#include "weights/hub.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "base/environment.h"
#include "base/units.h"
#include "model/split_gguf.h"
#include "weights/catalogue.h"
#include "weights/manifest.h"

namespace shoal {
namespace {

constexpr std::size_t kTreeBytesMax = 16U << 20, kFilesMax = 10'000, kPathBytesMax = 1024;
constexpr std::uint64_t kSmallModelBytes = 1ULL << 30;   // as Q8_0: cheap enough to keep all its precision
constexpr std::uint64_t kMuchMemoryBytes = 12ULL << 30;  // from here on Q5_K_M
constexpr std::uint64_t kOverheadPercent = 25;           // KV cache and buffers on top of the weights

bool IsPart(std::string_view part) {
  return !part.empty() && part.size() <= 96 && part != "." && part != ".." &&
         std::all_of(part.begin(), part.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; });
}

// A path in a repository as it stands in a URL.
std::string Escaped(const std::string& path) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char c : path) {
    if (std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/' || c == '+') {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    }
  }
  return out;
}

std::string Upper(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

Result<std::size_t> Missing(const std::vector<HubFile>& files, const std::string& wanted) {
  std::string there;
  for (const HubFile& file : files) {
    const std::string name = file.quantization.empty() ? file.path : file.quantization;
    there += (there.empty() ? "" : ", ") + name + " (" + FormatBytes(file.bytes) + ")";
  }
  return Error{ErrorCode::kNotFound, "there is no " + wanted + " in this repository; there are " + there};
}

// The file whose name ends in `-wanted`, whatever of it is a quantization's name; of several that with the least else.
std::optional<std::size_t> FindByEnding(const std::vector<HubFile>& files, const std::string& wanted) {
  std::optional<std::size_t> found;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const auto split = ParseSplitName(files[i].path);
    std::string stem = Upper(split ? split->stem : files[i].path);
    if (!split && stem.ends_with(".GGUF")) stem.resize(stem.size() - 5);
    if (!stem.ends_with(wanted)) continue;
    const std::size_t at = stem.size() - wanted.size();
    if (at > 0 && std::string_view("-./").find(stem[at - 1]) == std::string_view::npos) continue;
    if (!found || files[i].path.size() < files[*found].path.size()) found = i;
  }
  return found;
}

// A GGUF file of the hub's list that may be a model, or part of one.
std::optional<HubFile> FileOf(const nlohmann::json& entry) {
  if (!entry.is_object()) return std::nullopt;
  const auto path = entry.find("path"), size = entry.find("size"), lfs = entry.find("lfs");
  if (path == entry.end() || !path->is_string() || size == entry.end() || !size->is_number_unsigned()) {
    return std::nullopt;
  }
  HubFile file;
  file.path = path->get<std::string>();
  file.bytes = size->get<std::uint64_t>();
  if (file.path.size() > kPathBytesMax || file.path.find("..") != std::string::npos) return std::nullopt;
  const std::string name = Upper(file.path.substr(file.path.find_last_of('/') + 1));
  if (!name.ends_with(".GGUF") || name.find("MMPROJ") != std::string::npos) return std::nullopt;
  file.parts.push_back({file.path, {}});
  Digest digest;
  if (lfs != entry.end() && lfs->is_object() && lfs->contains("oid") && (*lfs)["oid"].is_string() &&
      ParseHex((*lfs)["oid"].get<std::string>(), digest)) {
    file.parts[0].sha256 = digest;
  }
  file.quantization = QuantizationOf(file.path);
  return file;
}

}  // namespace

Result<ModelName> ParseModelName(const std::string& text, bool is_hub) {
  ModelName name;
  name.text = text;
  const bool marked = text.starts_with("hf:");
  if (!marked && !is_hub) {
    const std::size_t colon = text.find(':');
    if (const CatalogueModel* known = FindInCatalogue(text.substr(0, colon)); known != nullptr) {
      const std::string quantization = colon == std::string::npos ? "" : text.substr(colon);
      return ParseModelName(std::string("hf:") + std::string(known->repository) + quantization, false);
    }
    const bool is_url = text.starts_with("https://") || text.starts_with("http://");
    name.kind = is_url ? ModelNameKind::kUrl : ModelNameKind::kPath;
    return name;
  }
  name.kind = ModelNameKind::kHub;
  std::string rest = marked ? text.substr(3) : text;
  const auto refused = [&] {
    return Error{ErrorCode::kInvalidArgument,
                 "'" + text +
                     "' names no model of the hub; write hf:OWNER/REPO, hf:OWNER/REPO:Q4_K_M or "
                     "hf:OWNER/REPO/FILE.gguf"};
  };
  if (const std::size_t colon = rest.find(':'); colon != std::string::npos) {
    name.quantization = Upper(rest.substr(colon + 1));
    rest.resize(colon);
    if (!IsPart(name.quantization)) return refused();
    if (name.quantization == "LATEST") name.quantization.clear();  // as others write that any will do
  }
  const std::size_t owner_end = rest.find('/');
  if (owner_end == std::string::npos) return refused();
  const std::size_t repo_end = rest.find('/', owner_end + 1);
  name.repository = rest.substr(0, repo_end);
  const std::string repo = name.repository.substr(owner_end + 1);
  if (!IsPart(rest.substr(0, owner_end)) || !IsPart(repo)) return refused();
  if (repo_end != std::string::npos) {
    name.file = rest.substr(repo_end + 1);
    if (name.file.empty() || name.file.size() > kPathBytesMax || name.file.find("..") != std::string::npos)
      return refused();
    if (!name.file.ends_with(".gguf") || !name.quantization.empty()) return refused();
  }
  return name;
}

Hub HubFromEnvironment() {
  Hub hub{Environment("HF_ENDPOINT"), Environment("HF_TOKEN")};
  if (hub.endpoint.empty()) hub.endpoint = "https://huggingface.co";
  while (hub.endpoint.ends_with("/")) hub.endpoint.pop_back();
  return hub;
}

std::string TokenFor(const Hub& hub, const Url& url) {
  const Result<Url> own = ParseUrl(hub.endpoint);
  return own.ok() && own->tls == url.tls && own->host == url.host && own->port == url.port ? hub.token : "";
}

std::string TokenFor(const Hub& hub, const std::vector<SourceFile>& files) {
  for (const SourceFile& file : files) {
    const Result<Url> url = ParseUrl(file.url);
    if (!url.ok() || TokenFor(hub, *url).empty()) return "";
  }
  return files.empty() ? "" : hub.token;
}

Result<Url> HubUrl(const Hub& hub, const std::string& repository, const std::string& file) {
  return ParseUrl(hub.endpoint + "/" + repository + "/resolve/main/" + Escaped(file));
}

std::string QuantizationOf(std::string_view file) {
  // The last part of the name that looks like a type of llama.cpp's quantizer.
  static const std::regex kType(
      "(^|[-._/])((?:UD-)?I?Q[1-9]_[A-Z0-9_]+|BF16|F16|F32|MXFP4[A-Z_]*|TQ[12]_0)(?=[-._]|$)");
  const std::string upper = Upper(file.substr(0, file.ends_with(".gguf") ? file.size() - 5 : file.size()));
  std::string found;
  for (std::sregex_iterator it(upper.begin(), upper.end(), kType), end; it != end; ++it) found = (*it)[2];
  return found;
}

Result<std::vector<HubFile>> ParseHubTree(std::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_array()) return Error{ErrorCode::kCorrupt, "the hub's list of files is none"};
  std::vector<HubFile> files;
  std::map<std::string, std::map<std::int32_t, HubFile>> in_parts;  // by the first part's path and the part
  static const std::regex kPart("-[0-9]{5}-OF-[0-9]{5}[.]GGUF$");
  std::size_t taken = 0;
  for (const nlohmann::json& entry : json) {
    std::optional<HubFile> file = FileOf(entry);
    if (!file || ++taken > kFilesMax) continue;
    const auto split = ParseSplitName(file->path);
    if (split && split->parts > 1) {
      in_parts[PartName(*split, 1)][split->part] = *std::move(file);
    } else if (split || !std::regex_search(Upper(file->path), kPart)) {  // else a part, but not one to be joined
      files.push_back(*std::move(file));
    }
  }
  for (auto& [path, parts] : in_parts) {
    if (static_cast<std::int32_t>(parts.size()) != ParseSplitName(path)->parts) continue;
    HubFile whole;
    whole.path = path;
    whole.quantization = QuantizationOf(path);
    for (auto& [number, part] : parts) {
      whole.bytes += std::min(part.bytes, kModelBytesMax);  // of at most kGgufPartsMax parts: no overflow
      whole.parts.push_back(std::move(part.parts[0]));
    }
    files.push_back(std::move(whole));
  }
  return files;
}

Result<std::vector<HubFile>> ListHub(const Hub& hub, const std::string& repository, const HttpOptions& options) {
  SHOAL_ASSIGN_OR_RETURN(const Url url,
                         ParseUrl(hub.endpoint + "/api/models/" + repository + "/tree/main?recursive=true"));
  HttpFile document(url, options);
  Result<std::string> text = document.Get(kTreeBytesMax);
  if (!text.ok() && text.error().code == ErrorCode::kNotFound) {
    return Error{ErrorCode::kNotFound, "the hub has no repository '" + repository + "'"};
  }
  if (!text.ok()) return text.error();
  SHOAL_ASSIGN_OR_RETURN(std::vector<HubFile> files, ParseHubTree(*text));
  if (files.empty()) {
    return Error{ErrorCode::kNotFound, "'" + repository +
                                           "' has no whole GGUF file; look for a repository whose name ends "
                                           "in -GGUF"};
  }
  std::sort(files.begin(), files.end(), [](const HubFile& a, const HubFile& b) { return a.bytes < b.bytes; });
  return files;
}

std::uint64_t BytesToRun(std::uint64_t file_bytes) { return file_bytes + file_bytes * kOverheadPercent / 100; }

Result<Choice> ChooseFile(const std::vector<HubFile>& files, const std::string& wanted, const AtHand& at_hand) {
  const auto find = [&](const std::string& type) -> std::optional<std::size_t> {
    for (std::size_t i = 0; i < files.size(); ++i) {
      if (files[i].quantization == type) return i;
    }
    return FindByEnding(files, type);
  };
  if (!wanted.empty()) {
    if (const auto index = find(Upper(wanted))) return Choice{*index, "as asked for"};
    return Missing(files, wanted).error();
  }
  if (files.empty()) return Missing(files, "GGUF file").error();
  const std::uint64_t have = at_hand.memory_bytes;
  const std::string memory = have == 0 ? at_hand.whose : FormatBytes(have) + " of " + at_hand.whose;
  const auto fits = [&](std::size_t index) { return have == 0 || BytesToRun(files[index].bytes) <= have; };
  const auto size = [&](std::size_t index) { return FormatBytes(files[index].bytes); };
  const auto kind = [&](std::size_t index) { return files[index].quantization + " (" + size(index) + ")"; };
  if (const auto index = find("Q8_0"); index && files[*index].bytes <= kSmallModelBytes && fits(*index)) {
    return Choice{*index, kind(*index) + ", since the model is small: nearly all of its precision at little cost"};
  }
  if (const auto index = find("Q4_0"); index && at_hand.q4_0_is_fast && have < kMuchMemoryBytes && fits(*index)) {
    return Choice{*index, kind(*index) + ", since this CPU repacks it: the fastest, at some quality"};
  }
  if (const auto index = find("Q5_K_M"); index && have >= kMuchMemoryBytes && fits(*index)) {
    return Choice{*index, kind(*index) + ", since it fits the " + memory + " well"};
  }
  if (const auto index = find("Q4_K_M"); index && fits(*index)) {
    return Choice{*index, kind(*index) + ", the usual balance of size and quality"};
  }
  for (std::size_t i = files.size(); i-- > 0;) {
    if (files[i].quantization.empty() || !fits(i)) continue;
    return Choice{i, kind(i) + ", the largest that fits the " + memory};
  }
  if (!fits(0)) {
    return Error{ErrorCode::kNotFound, "no file of this repository fits the " + memory + ": the smallest has " +
                                           size(0) + " and needs about " + FormatBytes(BytesToRun(files[0].bytes)) +
                                           ". More nodes would help; name a quantization to take it all the same"};
  }
  return Choice{0, "the only kind there is"};
}

}  // namespace shoal
