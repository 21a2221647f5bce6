# The library shoal_net: net/ built by cargo, a static library with a C header. Needs cargo and rustc 1.88 or newer.
set(SHOAL_CARGO "" CACHE FILEPATH "cargo; empty: found in the path")
set(SHOAL_NET_FEATURES "mdns" CACHE STRING "Cargo features of net/, by commas")
set(SHOAL_RUST_VERSION_MIN 1.88)

if(SHOAL_CARGO)
  set(shoal_cargo ${SHOAL_CARGO})
else()
  find_program(shoal_cargo_found NAMES cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin)
  set(shoal_cargo ${shoal_cargo_found})
endif()
if(shoal_cargo)
  execute_process(COMMAND ${shoal_cargo} --version OUTPUT_VARIABLE shoal_cargo_version ERROR_QUIET)
endif()
string(REGEX MATCH "[0-9]+\\.[0-9]+" shoal_cargo_version "${shoal_cargo_version}")
if(NOT shoal_cargo OR shoal_cargo_version VERSION_LESS SHOAL_RUST_VERSION_MIN)
  message(FATAL_ERROR "shoal's network needs cargo ${SHOAL_RUST_VERSION_MIN} or newer (found: ${shoal_cargo} "
                      "${shoal_cargo_version}). Debian 12: apt-get install rustc-web cargo-web; Termux: pkg install "
                      "rust; elsewhere rustup; or give -DSHOAL_CARGO=/path/to/cargo")
endif()

set(shoal_net_target_dir ${PROJECT_BINARY_DIR}/cargo)
set(shoal_net_output ${shoal_net_target_dir}/release)
set(shoal_cargo_env "")
set(shoal_cargo_options --release --locked --quiet --manifest-path ${PROJECT_SOURCE_DIR}/net/Cargo.toml
                        --target-dir ${shoal_net_target_dir} --no-default-features --features "${SHOAL_NET_FEATURES}")
if(SHOAL_CARGO_TARGET)
  # Another machine's CPU: cargo puts that below a folder of its name, and links with our compiler.
  set(shoal_net_output ${shoal_net_target_dir}/${SHOAL_CARGO_TARGET}/release)
  list(APPEND shoal_cargo_options --target ${SHOAL_CARGO_TARGET})
  if(NOT SHOAL_CARGO_LINKER)
    set(SHOAL_CARGO_LINKER ${CMAKE_C_COMPILER})
  endif()
  string(TOUPPER "${SHOAL_CARGO_TARGET}" shoal_target_upper)
  string(REPLACE "-" "_" shoal_target_upper "${shoal_target_upper}")
  string(REPLACE "-" "_" shoal_target_lower "${SHOAL_CARGO_TARGET}")
  set(shoal_cargo_env ${CMAKE_COMMAND} -E env CARGO_TARGET_${shoal_target_upper}_LINKER=${SHOAL_CARGO_LINKER}
                      CC_${shoal_target_lower}=${SHOAL_CARGO_LINKER})
endif()
if(SHOAL_CPU_VARIANTS)
  # As in shoal_llama_cpp.cmake: no folders of this machine in what others get.
  set(shoal_cargo_home $ENV{HOME}/.cargo)
  if(DEFINED ENV{CARGO_HOME})
    set(shoal_cargo_home $ENV{CARGO_HOME})
  endif()
  if(NOT shoal_cargo_env)
    set(shoal_cargo_env ${CMAKE_COMMAND} -E env)
  endif()
  list(APPEND shoal_cargo_env "RUSTFLAGS=$ENV{RUSTFLAGS} --remap-path-prefix=${shoal_cargo_home}=cargo \
--remap-path-prefix=${PROJECT_SOURCE_DIR}=shoal")
endif()
set(SHOAL_RUST_TARGET "${SHOAL_CARGO_TARGET}" CACHE INTERNAL "The machine that net/ is built for; empty: this one")
set(shoal_net_archive ${shoal_net_output}/libshoal_net.a)
file(GLOB shoal_net_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/net/src/*.rs)
add_custom_command(
  OUTPUT ${shoal_net_archive}
  COMMAND ${shoal_cargo_env} ${shoal_cargo} build ${shoal_cargo_options}
  DEPENDS ${shoal_net_sources} ${PROJECT_SOURCE_DIR}/net/Cargo.toml ${PROJECT_SOURCE_DIR}/net/Cargo.lock
  COMMENT "Building net/ with cargo" VERBATIM)
add_custom_target(shoal_net_build DEPENDS ${shoal_net_archive})

add_library(shoal_net STATIC IMPORTED GLOBAL)
set_target_properties(shoal_net PROPERTIES IMPORTED_LOCATION ${shoal_net_archive}
                                           INTERFACE_INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR}/net/include)
target_link_libraries(shoal_net INTERFACE Threads::Threads ${CMAKE_DL_LIBS} m)
if(APPLE)
  target_link_libraries(shoal_net INTERFACE "-framework CoreFoundation" "-framework SystemConfiguration"
                                            "-framework Security")
endif()
add_dependencies(shoal_net shoal_net_build)

# The stranger of tests/cluster, with the same dependencies; nothing of it is in the library.
if(SHOAL_TESTS AND NOT SHOAL_CARGO_TARGET)
  set(shoal_stranger ${shoal_net_output}/examples/shoal_stranger)
  file(GLOB shoal_stranger_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/strangers/*.rs)
  add_custom_command(
    OUTPUT ${shoal_stranger}
    COMMAND ${shoal_cargo_env} ${shoal_cargo} build ${shoal_cargo_options} --example shoal_stranger
    DEPENDS ${shoal_stranger_sources} ${shoal_net_archive}
    COMMENT "Building tests/strangers with cargo" VERBATIM)
  add_custom_target(shoal_stranger ALL DEPENDS ${shoal_stranger})
  add_dependencies(shoal_stranger shoal_net_build)
endif()

# The crate's own tests, with the dependencies that are built already.
if(SHOAL_TESTS AND NOT SHOAL_CARGO_TARGET)
  add_test(NAME net.cargo
           COMMAND ${shoal_cargo_env} ${shoal_cargo} test ${shoal_cargo_options})
  set_tests_properties(net.cargo PROPERTIES LABELS unit TIMEOUT 600)
endif()
