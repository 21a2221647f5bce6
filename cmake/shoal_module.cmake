# shoal_module(NAME DEPS <modules...> [PUBLIC <libraries...>] [PRIVATE <libraries...>]): from the files of this folder
#   *.cc       the library shoal_NAME
#   *_test.cc  the test program shoal_NAME_test (GoogleTest, label "unit")
#   X_fuzz.cc  the fuzz program shoal_X_fuzz each
function(shoal_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;PUBLIC;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  set(fuzzers ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|_fuzz)\\.cc$")
  list(TRANSFORM ARG_DEPS PREPEND shoal_)

  if(sources)
    add_library(shoal_${name} STATIC ${sources})
    target_include_directories(shoal_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(shoal_${name} PUBLIC ${ARG_DEPS} ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE} shoal_warnings)
  else()
    add_library(shoal_${name} INTERFACE)
    target_include_directories(shoal_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(shoal_${name} INTERFACE ${ARG_DEPS} ${ARG_PUBLIC})
  endif()

  if(SHOAL_TESTS AND tests)
    add_executable(shoal_${name}_test ${tests})
    target_link_libraries(shoal_${name}_test PRIVATE shoal_${name} ${ARG_PRIVATE} shoal_warnings GTest::gtest_main
                                                     GTest::gmock)
    gtest_discover_tests(shoal_${name}_test TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60
                         PROPERTIES LABELS unit TIMEOUT ${SHOAL_UNIT_TIMEOUT_S})
  endif()

  if(SHOAL_TESTS OR SHOAL_FUZZ)
    foreach(fuzzer IN LISTS fuzzers)
      shoal_fuzzer(${name} ${fuzzer} ${ARG_PRIVATE})
    endforeach()
  endif()
endfunction()

# shoal_fuzzer(MODULE FILE [libraries...]): shoal_X_fuzz from X_fuzz.cc. With SHOAL_FUZZ libFuzzer drives it
# (./dev test --fuzz); in every other build tests/fuzz/replay_main.cc feeds it the corpus of tests/fuzz/X and seeded
# mutations of it, as a test with the label "fuzz".
function(shoal_fuzzer module file)
  get_filename_component(stem ${file} NAME_WE)
  string(REGEX REPLACE "_fuzz$" "" stem ${stem})
  set(target shoal_${stem}_fuzz)
  add_executable(${target} ${file})
  target_link_libraries(${target} PRIVATE shoal_${module} ${ARGN} shoal_warnings)
  if(SHOAL_FUZZ)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_test(NAME fuzz.${stem} COMMAND ${target} ${PROJECT_SOURCE_DIR}/tests/fuzz/${stem})
    set_tests_properties(fuzz.${stem} PROPERTIES LABELS fuzz TIMEOUT 120)
  endif()
endfunction()
