# What of ggml is built: the backends that were named, and for the products of its CPU backend the fastest way.
include_guard()

# ggml's options for `backends` (SHOAL_BACKENDS). On Apple ggml takes Metal and BLAS by itself: linked into the node,
# where libllama would give them to every stage, tried by nobody.
function(shoal_choose_backends backends)
  if(APPLE)
    set(GGML_METAL OFF CACHE BOOL "" FORCE)
    set(GGML_BLAS OFF CACHE BOOL "" FORCE)
    set(GGML_METAL_EMBED_LIBRARY ON CACHE BOOL "" FORCE)  # where it is built its shaders are in its one file
  endif()
  foreach(backend IN LISTS backends)
    if(NOT SHOAL_CPU_VARIANTS)
      message(FATAL_ERROR "SHOAL_BACKENDS=${backends}: a backend with a driver is a library that only the process made "
                          "for it loads; add -DSHOAL_CPU_VARIANTS=ON (the preset portable)")
    endif()
    string(TOUPPER ${backend} option)
    set(GGML_${option} ON CACHE BOOL "" FORCE)
  endforeach()
endfunction()

# ThreadSanitizer does not look into the loops over numbers, whose threads are ordered by barriers that it does see:
# watched, a token of a small model takes seconds, and the tests of clusters hours.
function(shoal_leave_kernels_unwatched)
  get_target_property(folder ggml-cpu SOURCE_DIR)
  get_target_property(sources ggml-cpu SOURCES)
  list(FILTER sources INCLUDE REGEX "/(ops|vec|sgemm|binary-ops|unary-ops)\\.cpp$|/quants\\.c$|/dot_products\\.cc$")
  list(TRANSFORM sources PREPEND ${folder}/ REGEX "^ggml-cpu/")
  set_source_files_properties(${sources} DIRECTORY ${folder} PROPERTIES COMPILE_OPTIONS "-fno-sanitize=thread;-O2")
endfunction()

# Links our choice between ways to multiply into ggml's CPU backend, whose sources stay as they are: its
# `llamafile_sgemm` is compiled under another name, which src/engine/ggml/sgemm_choice.cc calls where it is the fastest.
# To be called before other backends are made from ggml-cpu (shoal_cpu.cmake).
function(shoal_add_ggml_choices)
  get_target_property(folder ggml-cpu SOURCE_DIR)
  get_target_property(sources ggml-cpu SOURCES)
  if(NOT "ggml-cpu/llamafile/sgemm.cpp" IN_LIST sources)
    return()  # GGML_LLAMAFILE is off
  endif()
  set_source_files_properties(${folder}/ggml-cpu/llamafile/sgemm.cpp DIRECTORY ${folder} ${PROJECT_SOURCE_DIR}
                              PROPERTIES COMPILE_DEFINITIONS llamafile_sgemm=shoal_ggml_tiles)
  target_sources(ggml-cpu PRIVATE ${PROJECT_SOURCE_DIR}/src/engine/ggml/sgemm_choice.cc
                                  ${PROJECT_SOURCE_DIR}/src/engine/ggml/dot_products.cc)
endfunction()
