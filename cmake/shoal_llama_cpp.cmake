# Brings llama.cpp in as a CMake subdirectory, unmodified.
#
# Source: SHOAL_LLAMA_CPP_DIR if given; else the copy inside the source distribution of llama-cpp-python, pinned by
# version and hash in llama_cpp.txt, fetched by pip into the cache folder (SHOAL_CACHE_DIR, default ~/.cache/shoal).
include(shoal_ggml_choices)

set(SHOAL_LLAMA_CPP_SHA256 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e)
set(SHOAL_LLAMA_CPP_SDIST llama_cpp_python-0.3.36)

# Where what is fetched for builds is kept.
if(DEFINED ENV{SHOAL_CACHE_DIR})
  set(SHOAL_CACHE $ENV{SHOAL_CACHE_DIR})
else()
  set(SHOAL_CACHE $ENV{HOME}/.cache/shoal)
endif()

function(shoal_fetch_llama_cpp out)
  set(cache ${SHOAL_CACHE})
  string(SUBSTRING ${SHOAL_LLAMA_CPP_SHA256} 0 16 short)
  set(tree ${cache}/llama.cpp-${short})
  # Builds that start at the same time wait here for the one that fetches.
  file(MAKE_DIRECTORY ${cache})
  file(LOCK ${cache}/.llama.cpp.lock GUARD FUNCTION TIMEOUT 1800)
  if(NOT EXISTS ${tree}/.complete)
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    message(STATUS "Fetching ${SHOAL_LLAMA_CPP_SDIST} (llama.cpp, 75 MB) into ${cache}")
    file(MAKE_DIRECTORY ${cache}/download)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -m pip download --quiet --disable-pip-version-check --no-deps
              --no-binary llama-cpp-python --require-hashes --dest ${cache}/download
              -r ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/llama_cpp.txt
      RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
      message(FATAL_ERROR "pip could not fetch ${SHOAL_LLAMA_CPP_SDIST}. Check the network, or give a llama.cpp source "
                          "tree with -DSHOAL_LLAMA_CPP_DIR=<folder>.")
    endif()
    file(SHA256 ${cache}/download/${SHOAL_LLAMA_CPP_SDIST}.tar.gz actual)
    if(NOT actual STREQUAL SHOAL_LLAMA_CPP_SHA256)
      message(FATAL_ERROR "${SHOAL_LLAMA_CPP_SDIST}.tar.gz has SHA-256 ${actual}, expected ${SHOAL_LLAMA_CPP_SHA256}")
    endif()
    # Unpacked beside its final name and renamed, so that an interrupted configure leaves nothing half done.
    string(RANDOM LENGTH 8 nonce)
    set(staging ${cache}/staging-${nonce})
    file(ARCHIVE_EXTRACT INPUT ${cache}/download/${SHOAL_LLAMA_CPP_SDIST}.tar.gz DESTINATION ${staging}
         PATTERNS "${SHOAL_LLAMA_CPP_SDIST}/vendor/llama.cpp/*")
    # A leftover of the packager's git checkout, which points nowhere and makes llama.cpp's configure complain.
    file(REMOVE ${staging}/${SHOAL_LLAMA_CPP_SDIST}/vendor/llama.cpp/.git)
    if(NOT EXISTS ${tree})
      file(RENAME ${staging}/${SHOAL_LLAMA_CPP_SDIST}/vendor/llama.cpp ${tree})
    endif()
    file(WRITE ${tree}/.complete "${SHOAL_LLAMA_CPP_SHA256}\n")
    file(REMOVE_RECURSE ${staging})
    file(REMOVE ${cache}/download/${SHOAL_LLAMA_CPP_SDIST}.tar.gz)
  endif()
  set(${out} ${tree} PARENT_SCOPE)
endfunction()

if(SHOAL_LLAMA_CPP_DIR)
  set(SHOAL_LLAMA_CPP_SOURCE ${SHOAL_LLAMA_CPP_DIR})
  if(NOT EXISTS ${SHOAL_LLAMA_CPP_SOURCE}/include/llama.h)
    message(FATAL_ERROR "SHOAL_LLAMA_CPP_DIR=${SHOAL_LLAMA_CPP_DIR} is not a llama.cpp source tree")
  endif()
else()
  shoal_fetch_llama_cpp(SHOAL_LLAMA_CPP_SOURCE)
endif()

set(BUILD_SHARED_LIBS OFF)
set(LLAMA_BUILD_COMMON ON CACHE BOOL "" FORCE)
foreach(part TESTS TOOLS EXAMPLES SERVER APP UI MTMD)
  set(LLAMA_BUILD_${part} OFF CACHE BOOL "" FORCE)
endforeach()
# https:// for the sources of weights; without it they say so. cpp-httplib looks for OpenSSL again, and must not warn.
if(SHOAL_TLS)
  find_package(OpenSSL 3.0)
endif()
set(LLAMA_OPENSSL ${OPENSSL_FOUND} CACHE BOOL "" FORCE)
set(LLAMA_SUBPROCESS OFF CACHE BOOL "" FORCE)
set(LLAMA_TOOLS_INSTALL OFF CACHE BOOL "" FORCE)
set(LLAMA_TESTS_INSTALL OFF CACHE BOOL "" FORCE)
set(LLAMA_ALL_WARNINGS OFF CACHE BOOL "" FORCE)
set(GGML_RPC ${SHOAL_RPC} CACHE BOOL "" FORCE)
shoal_choose_backends("${SHOAL_BACKENDS}")
# Threads are ours to place: ggml's own pool takes an affinity mask, OpenMP's does not.
set(GGML_OPENMP OFF CACHE BOOL "" FORCE)
set(GGML_CCACHE OFF CACHE BOOL "" FORCE)
# A debug build is for debugging shoal: an unoptimized ggml is far slower and shows nothing of ours.
set(shoal_c_flags_debug "${CMAKE_C_FLAGS_DEBUG}")
set(shoal_cxx_flags_debug "${CMAKE_CXX_FLAGS_DEBUG}")
set(CMAKE_C_FLAGS_DEBUG "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O2 -g1")
if(SHOAL_CPU_VARIANTS)
  # What others get says nothing of the folders it was built in, and does not depend on them.
  add_compile_options(-ffile-prefix-map=${SHOAL_LLAMA_CPP_SOURCE}=llama.cpp
                      -ffile-prefix-map=${PROJECT_SOURCE_DIR}=shoal)
  # CPU backends are loaded at start and share one ggml with the program: that part alone is a shared library.
  set(GGML_LLAMAFILE_DEFAULT ON)  # as llama.cpp sets it
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  set(BUILD_SHARED_LIBS ON)
  add_subdirectory(${SHOAL_LLAMA_CPP_SOURCE}/ggml ${CMAKE_BINARY_DIR}/ggml EXCLUDE_FROM_ALL SYSTEM)
  set(BUILD_SHARED_LIBS OFF)
  unset(CMAKE_RUNTIME_OUTPUT_DIRECTORY)
  shoal_add_ggml_choices()
  shoal_add_cpu_variants()
endif()
add_subdirectory(${SHOAL_LLAMA_CPP_SOURCE} ${CMAKE_BINARY_DIR}/llama.cpp EXCLUDE_FROM_ALL SYSTEM)
set(CMAKE_C_FLAGS_DEBUG "${shoal_c_flags_debug}")
set(CMAKE_CXX_FLAGS_DEBUG "${shoal_cxx_flags_debug}")
