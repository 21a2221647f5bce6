# Builds for arm64 Linux on another machine, with Debian's cross compiler (g++-aarch64-linux-gnu) and, for net/, Rust's
# standard library of that target (rustup target add aarch64-unknown-linux-gnu). `./dev build arm64` uses it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(SHOAL_CARGO_TARGET aarch64-unknown-linux-gnu)

set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)  # CLI11 is headers alone, the same everywhere

# OpenSSL of that architecture, where `./dev build arm64` has put it; without, https:// is left out.
if(DEFINED ENV{SHOAL_CACHE_DIR})
  set(shoal_arm64_openssl $ENV{SHOAL_CACHE_DIR}/openssl-arm64)
else()
  set(shoal_arm64_openssl $ENV{HOME}/.cache/shoal/openssl-arm64)
endif()
if(EXISTS ${shoal_arm64_openssl})
  list(APPEND CMAKE_FIND_ROOT_PATH ${shoal_arm64_openssl})
endif()

# Test programs run under qemu, as the CPU that SHOAL_QEMU_CPU names (QEMU_CPU does the same by hand).
find_program(SHOAL_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(SHOAL_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${SHOAL_QEMU};-L;/usr/aarch64-linux-gnu")
endif()
