// A socket file outlives its server: only a refused connection tells that nobody listens.
#include "api/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace shoal {

bool SomebodyListens(const std::string& path) {
  if (!CheckSocketPath(path).ok()) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), address.sun_path);
  const int sock = ::socket(AF_UNIX, SOCK_STREAM, 0);
  if (sock < 0) return false;
  const bool connected = ::connect(sock, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(sock);
  return connected;
}

Status CheckSocketPath(const std::string& path) {
  constexpr std::size_t kBytesMax = sizeof(sockaddr_un::sun_path) - 1;
  if (!path.empty() && path.size() <= kBytesMax) return {};
  return Error{ErrorCode::kInvalidArgument, "the path '" + path + "' has " + std::to_string(path.size()) +
                                                " bytes; the path of a socket may have " + std::to_string(kBytesMax) +
                                                ": set SHOAL_HOME to a shorter one"};
}

Status FreeSocketPath(const std::string& path) {
  SHOAL_RETURN_IF_ERROR(CheckSocketPath(path));
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return {};  // whatever else is wrong, bind says
  if (!S_ISSOCK(info.st_mode)) return Error{ErrorCode::kUnavailable, "'" + path + "' is in the way: it is no socket"};
  if (SomebodyListens(path)) return Error{ErrorCode::kUnavailable, "another node serves '" + path + "'"};
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error{ErrorCode::kIo, "'" + path + "' cannot be removed: " + std::strerror(errno)};
  }
  return {};
}

}  // namespace shoal
