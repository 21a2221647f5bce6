// Hosts as they were given: names are not looked up.
#include "apps/cli/api_url.h"

#include <arpa/inet.h>

namespace shoal::cli {

bool IsLoopback(const std::string& host) { return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0; }

std::string ApiUrl(const std::string& host, int port) {
  in6_addr parsed{};
  const bool is_v6 = ::inet_pton(AF_INET6, host.c_str(), &parsed) == 1;
  return "http://" + (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port) + "/v1";
}

}  // namespace shoal::cli
