# Compiler settings for all of Tessera's own code: warnings are errors, the host's instruction set, sanitizers on request.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(tessera_compiler INTERFACE)
target_compile_options(tessera_compiler INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -march=${TESSERA_ARCH}
  # The kernels never read errno or floating-point exceptions, and may then be vectorised; results stay IEEE.
  -fno-math-errno -fno-trapping-math)
# 1 in builds that compile the *_cuda.cu files (tensor/device.h); there are none yet.
target_compile_definitions(tessera_compiler INTERFACE TESSERA_HAS_CUDA=0)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(tessera_compiler INTERFACE -O3)
endif()
target_include_directories(tessera_compiler INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
if(TESSERA_SANITIZE)
  target_compile_options(tessera_compiler INTERFACE -fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(tessera_compiler INTERFACE -fsanitize=${TESSERA_SANITIZE})
endif()
