// Bionic's header of that name, for libc++: the API level is the one that the compiler's target names.
#pragma once
#define __ANDROID_API__ __ANDROID_MIN_SDK_VERSION__
