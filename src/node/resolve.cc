// getaddrinfo.
#include "node/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <memory>

namespace shoal {

Result<std::vector<Endpoint>> Resolve(const std::string& text) {
  SHOAL_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint(text));
  return Resolve(endpoint);
}

Result<std::vector<Endpoint>> Resolve(const Endpoint& endpoint) {
  if (endpoint.kind != HostKind::kName) return std::vector<Endpoint>{endpoint};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int failed = getaddrinfo(endpoint.host.c_str(), nullptr, &hints, &list);
  if (failed != 0) {
    return Error{ErrorCode::kUnavailable, "the name '" + endpoint.host + "' has no address: " + gai_strerror(failed)};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(list, &freeaddrinfo);
  std::vector<Endpoint> found;
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    char host[NI_MAXHOST];
    if (getnameinfo(one->ai_addr, one->ai_addrlen, host, sizeof host, nullptr, 0, NI_NUMERICHOST) != 0) continue;
    const std::string text(host);
    Result<Endpoint> literal = ParseEndpoint(one->ai_family == AF_INET6 ? "[" + text + "]" : text, endpoint.port);
    if (literal.ok()) found.push_back(*std::move(literal));
  }
  if (found.empty()) return Error{ErrorCode::kUnavailable, "the name '" + endpoint.host + "' has no address"};
  return found;
}

}  // namespace shoal
