# The list of what is inside, and packages of what `cmake --install --component shoal` installs: .deb and .tar.gz by
# cpack. `./dev package` makes them.
set(CPACK_PACKAGE_NAME shoal)
set(CPACK_PACKAGE_VENDOR "the shoal authors")
set(CPACK_PACKAGE_CONTACT "the shoal authors <shoal@localhost>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
if(SHOAL_STAMP)
  string(APPEND CPACK_PACKAGE_VERSION "+${SHOAL_STAMP}")
endif()

# What is inside, for whoever packs it; installed where it was made.
find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  add_custom_target(sbom COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/sbom.py ${CPACK_PACKAGE_VERSION}
                                 ${PROJECT_BINARY_DIR} ${PROJECT_BINARY_DIR}/sbom.spdx.json
                    VERBATIM)
endif()

set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "phones, boards and laptops run one language model together")
set(CPACK_PACKAGE_DESCRIPTION
    "Devices of one network form a cluster without a master, hold the layers of a model among them and answer over an "
    "OpenAI-compatible API. For every CPU of the architecture: the best kernels are chosen at start.")
list(JOIN CPACK_PACKAGE_DESCRIPTION "" CPACK_PACKAGE_DESCRIPTION)
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_COMPONENTS_ALL shoal)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/package_times.cmake)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
string(REPLACE "x86" "amd64" CPACK_DEBIAN_PACKAGE_ARCHITECTURE "${SHOAL_CPU_ARCHITECTURE}")
set(CPACK_PACKAGE_FILE_NAME shoal-${CPACK_PACKAGE_VERSION}-linux-${CPACK_DEBIAN_PACKAGE_ARCHITECTURE})
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_NAME shoal)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
# Of Debian 12, where packages are built, or of the newer system whose headers this compiler reads; ca-certificates for
# models from the hub.
set(glibc 2.36)
set(libstdcxx 12)
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -E -dM -x c++ -include cstddef /dev/null
                OUTPUT_VARIABLE defined ERROR_QUIET)
if(defined MATCHES "#define __GLIBC_MINOR__ ([0-9]+)")
  if(2.${CMAKE_MATCH_1} VERSION_GREATER glibc)
    set(glibc 2.${CMAKE_MATCH_1})
  endif()
endif()
if(defined MATCHES "#define _GLIBCXX_RELEASE ([0-9]+)")
  if(CMAKE_MATCH_1 GREATER libstdcxx)
    set(libstdcxx ${CMAKE_MATCH_1})
  endif()
endif()
set(CPACK_DEBIAN_PACKAGE_DEPENDS
    "libc6 (>= ${glibc}), libgcc-s1 (>= ${libstdcxx}), libstdc++6 (>= ${libstdcxx})")
if(OPENSSL_FOUND)
  string(APPEND CPACK_DEBIAN_PACKAGE_DEPENDS ", libssl3 (>= 3.0)")
endif()
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "ca-certificates")
include(CPack)
