// What systems disagree about in sockets.
#pragma once

#include <sys/socket.h>

namespace shoal {

// For send(): no SIGPIPE where the other end is gone. Where the flag does not exist SO_NOSIGPIPE has to be set.
#ifdef MSG_NOSIGNAL
inline constexpr int kNoSignal = MSG_NOSIGNAL;
#else
inline constexpr int kNoSignal = 0;
#endif

}  // namespace shoal
