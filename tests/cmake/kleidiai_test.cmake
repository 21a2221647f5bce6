# SHOAL_KLEIDIAI_DIR=fetch: what ggml pins is found in its own file, fetched, checked and kept; and what it says when it
# cannot be had. No network: addresses are those of files.
include(${SOURCE}/cmake/shoal_kleidiai.cmake)

function(expect_equal what got want)
  if(NOT got STREQUAL want)
    message(SEND_ERROR "${what}: '${got}', expected '${want}'")
  endif()
endfunction()

# A file as ggml's, with the archive at `url`.
function(write_pin url md5)
  file(WRITE ${FOLDER}/ggml.txt "        set(KLEIDIAI_COMMIT_TAG \"v1\")
        set(KLEIDIAI_DOWNLOAD_URL \"${url}\")
        set(KLEIDIAI_RELEASE_ARCHIVE_MD5  \"${md5}\")\n")
endfunction()

shoal_read_kleidiai_pin(${LLAMA_CPP}/ggml/src/ggml-cpu/CMakeLists.txt url md5)
if(NOT url MATCHES "^https://[^ $]+v[0-9.]+-src\\.tar\\.gz$" OR NOT md5 MATCHES "^[0-9a-f]+$")
  message(SEND_ERROR "of the pinned llama.cpp: '${url}', '${md5}'")
endif()

file(REMOVE_RECURSE ${FOLDER})
file(WRITE ${FOLDER}/kleidiai-v1/kai/ukernels/x.c "x")
execute_process(COMMAND ${CMAKE_COMMAND} -E tar czf kleidiai-v1.tar.gz kleidiai-v1 WORKING_DIRECTORY ${FOLDER})
file(MD5 ${FOLDER}/kleidiai-v1.tar.gz md5)

write_pin("file://${FOLDER}/kleidiai-\${KLEIDIAI_COMMIT_TAG}.tar.gz" ${md5})
shoal_fetch_kleidiai(tree ${FOLDER}/ggml.txt ${FOLDER}/cache)
if(NOT EXISTS "${tree}/kai/ukernels/x.c")
  message(SEND_ERROR "fetched to '${tree}'")
endif()
file(REMOVE ${FOLDER}/kleidiai-v1.tar.gz)
shoal_fetch_kleidiai(again ${FOLDER}/ggml.txt ${FOLDER}/cache)
expect_equal("kept for later builds" "${again}" "${tree}")

# Each of these warns and goes on without.
write_pin("file://${FOLDER}/none.tar.gz" 0123)
shoal_fetch_kleidiai(tree ${FOLDER}/ggml.txt ${FOLDER}/cache)
expect_equal("not there" "${tree}" "")
file(WRITE ${FOLDER}/other.tar.gz "other bytes")
write_pin("file://${FOLDER}/other.tar.gz" 0123)
shoal_fetch_kleidiai(tree ${FOLDER}/ggml.txt ${FOLDER}/cache)
expect_equal("another hash" "${tree}" "")
file(WRITE ${FOLDER}/ggml.txt "nothing of it")
shoal_fetch_kleidiai(tree ${FOLDER}/ggml.txt ${FOLDER}/cache)
expect_equal("no pin" "${tree}" "")
file(GLOB left ${FOLDER}/cache/staging-*)
expect_equal("left behind" "${left}" "")
