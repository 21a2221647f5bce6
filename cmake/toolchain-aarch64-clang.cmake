# As toolchain-aarch64-linux-gnu.cmake, with clang 19 or newer: it can build the SME backends, which gcc 12 cannot.
#   cmake --preset arm64 -B build/arm64-clang -DCMAKE_TOOLCHAIN_FILE=cmake/toolchain-aarch64-clang.cmake
include(${CMAKE_CURRENT_LIST_DIR}/toolchain-aarch64-linux-gnu.cmake)
find_program(SHOAL_CLANG NAMES clang-22 clang-21 clang-20 clang-19 REQUIRED)
string(REPLACE "clang-" "clang++-" SHOAL_CLANGXX "${SHOAL_CLANG}")
set(CMAKE_C_COMPILER ${SHOAL_CLANG})
set(CMAKE_CXX_COMPILER ${SHOAL_CLANGXX})
set(CMAKE_C_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)
set(SHOAL_CARGO_LINKER aarch64-linux-gnu-gcc)  # cargo calls its linker without a target
foreach(kind EXE SHARED MODULE)
  set(CMAKE_${kind}_LINKER_FLAGS_INIT "-fuse-ld=lld")
endforeach()
