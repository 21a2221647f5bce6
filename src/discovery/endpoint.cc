// Endpoints in and out of text. inet_pton decides what an address is; nothing is resolved.
#include "discovery/endpoint.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"

namespace shoal {
namespace {

constexpr std::size_t kNameBytesMax = 253;  // RFC 1035
constexpr std::size_t kZoneBytesMax = 15;   // IFNAMSIZ without its NUL

using V4 = std::array<std::uint8_t, 4>;
using V6 = std::array<std::uint8_t, 16>;

Error Bad(std::string_view text, const std::string& why) {
  std::string shown;
  for (const char c : text.substr(0, 80)) shown += c >= ' ' && c < 127 ? c : '?';
  return Error{ErrorCode::kInvalidArgument, "'" + shown + "' is no address: " + why};
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::optional<V4> ReadV4(const std::string& text) {
  V4 address{};
  if (inet_pton(AF_INET, text.c_str(), address.data()) != 1) return std::nullopt;
  return address;
}

std::optional<V6> ReadV6(const std::string& text) {
  V6 address{};
  if (inet_pton(AF_INET6, text.c_str(), address.data()) != 1) return std::nullopt;
  return address;
}

std::string TextOf(int family, const void* address) {
  char text[INET6_ADDRSTRLEN] = {};
  SHOAL_CHECK(inet_ntop(family, address, text, sizeof text) != nullptr);
  return text;
}

// The literal's bytes, zone aside; nothing for the other kinds.
std::optional<V4> V4Of(const Endpoint& endpoint) {
  return endpoint.kind == HostKind::kIpv4 ? ReadV4(endpoint.host) : std::nullopt;
}
std::optional<V6> V6Of(const Endpoint& endpoint) {
  return endpoint.kind == HostKind::kIpv6 ? ReadV6(endpoint.host.substr(0, endpoint.host.find('%'))) : std::nullopt;
}

bool IsV6LinkLocal(const V6& address) { return address[0] == 0xFE && (address[1] & 0xC0) == 0x80; }

bool IsZone(std::string_view zone) {
  return !zone.empty() && zone.size() <= kZoneBytesMax && std::all_of(zone.begin(), zone.end(), [](char c) {
    return IsDigit(c) || IsLetter(c) || c == '-' || c == '.' || c == '_';
  });
}

// Letters, digits, '-', '_', '.', no empty label but a last one, and not a number at the end: "300.1.1.1" is a typo.
bool IsName(std::string_view name) {
  if (name.empty() || name.size() > kNameBytesMax || name.front() == '-') return false;
  const std::string_view rooted = name.back() == '.' ? name.substr(0, name.size() - 1) : name;
  bool label_empty = true, label_number = true;
  for (const char c : rooted) {
    if (c == '.') {
      if (label_empty) return false;
      label_empty = label_number = true;
      continue;
    }
    if (!IsDigit(c) && !IsLetter(c) && c != '-' && c != '_') return false;
    label_empty = false;
    label_number = label_number && IsDigit(c);
  }
  return !label_empty && !label_number;
}

// An IPv6 literal, perhaps with a zone.
Result<Endpoint> V6Endpoint(std::string_view whole, std::string_view host, std::uint16_t port) {
  const std::size_t percent = host.find('%');
  const std::optional<V6> address = ReadV6(std::string(host.substr(0, percent)));
  if (!address) return Bad(whole, "not an IPv6 address");
  constexpr std::uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  if (std::memcmp(address->data(), kMapped, sizeof kMapped) == 0 && percent == std::string_view::npos) {
    return Endpoint{HostKind::kIpv4, TextOf(AF_INET, address->data() + sizeof kMapped), port};
  }
  Endpoint endpoint{HostKind::kIpv6, TextOf(AF_INET6, address->data()), port};
  if (percent == std::string_view::npos) return endpoint;
  if (!IsV6LinkLocal(*address)) return Bad(whole, "only link-local addresses (fe80::) have a zone");
  if (!IsZone(host.substr(percent + 1))) return Bad(whole, "the zone after % is not the name of an interface");
  endpoint.host += host.substr(percent);
  return endpoint;
}

// A host of any kind, without brackets.
Result<Endpoint> HostEndpoint(std::string_view whole, std::string_view host, std::uint16_t port) {
  if (host.find(':') != std::string_view::npos) return V6Endpoint(whole, host, port);
  if (ReadV4(std::string(host))) return Endpoint{HostKind::kIpv4, std::string(host), port};
  if (!IsName(host)) return Bad(whole, "neither an IP address nor a host name");
  std::string name(host);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return Endpoint{HostKind::kName, std::move(name), port};
}

// 0 stands for the default, as no port does.
Result<std::uint16_t> ReadPort(std::string_view whole, std::string_view text, std::uint16_t port_default) {
  std::uint16_t port = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || rest != text.data() + text.size()) return Bad(whole, "a port is 1 to 65535");
  return port == 0 ? port_default : port;
}

Result<Endpoint> ParseMultiaddr(std::string_view whole, std::uint16_t port_default) {
  std::vector<std::string_view> parts;
  for (std::string_view rest = whole.substr(1); parts.size() < 10;) {
    const std::size_t slash = rest.find('/');
    parts.push_back(rest.substr(0, slash));
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  std::size_t at = 0;
  const auto next = [&] { return at < parts.size() ? parts[at++] : std::string_view(); };
  std::string_view kind = next();
  std::string zone;
  if (kind == "ip6zone") {
    zone = "%" + std::string(next());
    kind = next();
    if (kind != "ip6") return Bad(whole, "after /ip6zone/ZONE comes /ip6");
  }
  const std::string host = std::string(next()) + zone;
  if (next() != "tcp") return Bad(whole, "after the host comes /tcp/PORT");
  SHOAL_ASSIGN_OR_RETURN(const std::uint16_t port, ReadPort(whole, next(), port_default));
  if (at < parts.size() && (next() != "p2p" || next().empty())) return Bad(whole, "only TCP is spoken here");
  if (at < parts.size()) return Bad(whole, "something after the peer id");
  if (kind == "ip4") {
    if (!ReadV4(host)) return Bad(whole, "not an IPv4 address");
    return Endpoint{HostKind::kIpv4, host, port};
  }
  if (kind == "ip6") return V6Endpoint(whole, host, port);
  if (kind != "dns" && kind != "dns4" && kind != "dns6") return Bad(whole, "begins with neither /ip4, /ip6 nor /dns");
  if (!IsName(host)) return Bad(whole, "not a host name");
  return HostEndpoint(whole, host, port);
}

}  // namespace

Result<Endpoint> ParseEndpoint(std::string_view text, std::uint16_t port_default) {
  if (text.empty()) return Bad(text, "nothing there");
  if (text.size() > kEndpointTextBytesMax) return Bad(text, "too long");
  if (text.find('\0') != std::string_view::npos) return Bad(text, "a NUL in it");
  if (text.front() == '/') return ParseMultiaddr(text, port_default);
  std::string_view host = text, port_text;
  if (text.front() == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return Bad(text, "the bracket is not closed");
    host = text.substr(1, end - 1);
    const std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && rest.front() != ':') return Bad(text, "after ']' comes :PORT");
    if (!rest.empty()) port_text = rest.substr(1);
    std::uint16_t port = port_default;
    if (!rest.empty()) { SHOAL_ASSIGN_OR_RETURN(port, ReadPort(text, port_text, port_default)); }
    return V6Endpoint(text, host, port);
  }
  const std::size_t colon = text.find(':');
  const bool one_colon = colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos;
  if (!one_colon) return HostEndpoint(text, text, port_default);
  SHOAL_ASSIGN_OR_RETURN(const std::uint16_t port, ReadPort(text, text.substr(colon + 1), port_default));
  return HostEndpoint(text, text.substr(0, colon), port);
}

std::string EndpointText(const Endpoint& endpoint) {
  const bool v6 = endpoint.kind == HostKind::kIpv6;
  return (v6 ? "[" + endpoint.host + "]" : endpoint.host) + ":" + std::to_string(endpoint.port);
}

std::string EndpointMultiaddr(const Endpoint& endpoint) {
  SHOAL_CHECK(!endpoint.host.empty());
  const std::string tail = "/tcp/" + std::to_string(endpoint.port);
  if (endpoint.kind == HostKind::kIpv4) return "/ip4/" + endpoint.host + tail;
  if (endpoint.kind == HostKind::kName) return "/dns/" + endpoint.host + tail;
  const std::size_t percent = endpoint.host.find('%');
  if (percent == std::string::npos) return "/ip6/" + endpoint.host + tail;
  return "/ip6zone/" + endpoint.host.substr(percent + 1) + "/ip6/" + endpoint.host.substr(0, percent) + tail;
}

bool IsLoopback(const Endpoint& endpoint) {
  if (const auto v4 = V4Of(endpoint)) return (*v4)[0] == 127;
  const auto v6 = V6Of(endpoint);
  return v6 && std::all_of(v6->begin(), v6->end() - 1, [](std::uint8_t b) { return b == 0; }) && v6->back() == 1;
}

bool IsLinkLocal(const Endpoint& endpoint) {
  if (const auto v4 = V4Of(endpoint)) return (*v4)[0] == 169 && (*v4)[1] == 254;
  const auto v6 = V6Of(endpoint);
  return v6 && IsV6LinkLocal(*v6);
}

bool IsUnspecified(const Endpoint& endpoint) {
  const auto is_zero = [](std::uint8_t b) { return b == 0; };
  if (const auto v4 = V4Of(endpoint)) return std::all_of(v4->begin(), v4->end(), is_zero);
  const auto v6 = V6Of(endpoint);
  return v6 && std::all_of(v6->begin(), v6->end(), is_zero);
}

bool IsDialable(const Endpoint& endpoint) {
  if (endpoint.port == 0 || endpoint.host.empty()) return false;
  if (endpoint.kind == HostKind::kName) return true;
  if (const auto v4 = V4Of(endpoint)) return (*v4)[0] != 0 && (*v4)[0] < 224;
  const auto v6 = V6Of(endpoint);
  return v6 && (*v6)[0] != 0xFF && !IsUnspecified(endpoint);
}

}  // namespace shoal
