# Compiler settings shared by shoal and the llama.cpp it builds: build type, ccache, sanitizers, warnings.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(SHOAL_CCACHE ccache)
if(SHOAL_CCACHE)
  # Paths under this checkout are taken relative to it, so that two checkouts share what one has compiled.
  set(SHOAL_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${SHOAL_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${SHOAL_LAUNCHER})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SHOAL_LAUNCHER})
endif()

if(SHOAL_STATIC)
  if(SHOAL_CPU_VARIANTS OR NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    message(FATAL_ERROR "SHOAL_STATIC: on Linux alone, and without SHOAL_CPU_VARIANTS, which are loaded from files")
  endif()
  set(OPENSSL_USE_STATIC_LIBS ON)
  string(APPEND CMAKE_EXE_LINKER_FLAGS " -static")  # -static-pie of Debian 12's cross compiler crashes at its start
endif()

# Sanitizers cover llama.cpp too: a race or an overflow across its border has one half on each side.
# ggml's own GGML_SANITIZE_* options stay off, they would add the same flags again.
if(SHOAL_SANITIZE)
  add_compile_options(-fsanitize=${SHOAL_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${SHOAL_SANITIZE})
endif()
if(SHOAL_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SHOAL_FUZZ needs clang: cmake --preset fuzz, or ./dev test --fuzz SECONDS")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# What every target of ours compiles with; llama.cpp keeps its own warnings.
add_library(shoal_warnings INTERFACE)
target_compile_options(shoal_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                                                -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(shoal_warnings INTERFACE -Wno-restrict)  # false ones for "text" + std::string
endif()
if(SHOAL_SANITIZE MATCHES "undefined")
  # In our code the first undefined behaviour ends the test; in llama.cpp it prints and goes on.
  target_compile_options(shoal_warnings INTERFACE -fno-sanitize-recover=undefined)
endif()

# How long one unit test may take; sanitizers slow what computes by ten and more, and so does an emulator.
if(SHOAL_SANITIZE OR CMAKE_CROSSCOMPILING)
  set(SHOAL_UNIT_TIMEOUT_S 900)
else()
  set(SHOAL_UNIT_TIMEOUT_S 120)
endif()
