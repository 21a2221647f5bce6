# Links our choice between two ways of ggml into its CPU backend, whose sources stay as they are: its
# `llamafile_sgemm` is compiled under another name, which src/engine/ggml/sgemm_choice.cc calls where it is the faster.
# To be called before other backends are made from ggml-cpu (shoal_cpu.cmake).
function(shoal_add_ggml_choices)
  get_target_property(folder ggml-cpu SOURCE_DIR)
  get_target_property(sources ggml-cpu SOURCES)
  if(NOT "ggml-cpu/llamafile/sgemm.cpp" IN_LIST sources)
    return()  # GGML_LLAMAFILE is off
  endif()
  set_source_files_properties(${folder}/ggml-cpu/llamafile/sgemm.cpp DIRECTORY ${folder} ${PROJECT_SOURCE_DIR}
                              PROPERTIES COMPILE_DEFINITIONS llamafile_sgemm=shoal_ggml_tiles)
  target_sources(ggml-cpu PRIVATE ${PROJECT_SOURCE_DIR}/src/engine/ggml/sgemm_choice.cc)
endfunction()
