// Names the calling thread, as `top -H` and debuggers show it. Does nothing where threads have no names.
#pragma once

#include <pthread.h>

namespace shoal {

// `name` has at most 15 characters; more are not shown.
inline void NameThisThread([[maybe_unused]] const char* name) {
#ifdef __APPLE__
  pthread_setname_np(name);
#elif defined(__linux__)
  pthread_setname_np(pthread_self(), name);
#endif
}

}  // namespace shoal
