# tessera_folder(NAME LINKS ...): the library of one folder, from all its .cc files and .proto files.
#
# Sources are globbed: a file in the folder is part of the folder; *_cuda.cu and *_cuda.cc when CUDA is on.
function(tessera_folder NAME)
  cmake_parse_arguments(ARG "" "" "LINKS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(TESSERA_HAS_CUDA)
    file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_cuda.cu)
    list(APPEND sources ${kernels})
  else()
    list(FILTER sources EXCLUDE REGEX "_cuda\\.cc$")
  endif()
  file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.proto)
  set(generated)
  foreach(proto ${protos})
    get_filename_component(stem ${proto} NAME_WE)
    set(base ${CMAKE_BINARY_DIR}/generated/${NAME}/${stem}.pb)
    add_custom_command(
      OUTPUT ${base}.cc ${base}.h
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/generated
      COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR} --cpp_out=${CMAKE_BINARY_DIR}/generated ${proto}
      DEPENDS ${proto} VERBATIM)
    set_source_files_properties(${base}.cc PROPERTIES COMPILE_OPTIONS "-w")
    list(APPEND generated ${base}.cc)
  endforeach()
  add_library(tessera_${NAME} STATIC ${sources} ${generated})
  target_link_libraries(tessera_${NAME} PUBLIC tessera_compiler ${ARG_LINKS})
endfunction()
