// Where an API is reached, as people and programs want to read it.
#pragma once

#include <string>

namespace shoal::cli {

// Whether only this machine reaches what listens there.
bool IsLoopback(const std::string& host);

// "http://HOST:PORT/v1"; an IPv6 address needs brackets before a port.
std::string ApiUrl(const std::string& host, int port);

}  // namespace shoal::cli
