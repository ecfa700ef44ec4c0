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
target_compile_options(tessera_compiler INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -march=${TESSERA_ARCH}
  # The kernels never read errno or floating-point exceptions, and may then be vectorised; results stay IEEE.
  -fno-math-errno -fno-trapping-math>)
# Device code may call constexpr functions of the host's headers (tensor/dtype.h).
target_compile_options(tessera_compiler INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:
  --expt-relaxed-constexpr -lineinfo --Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror>)
target_include_directories(tessera_compiler INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
if(TESSERA_SANITIZE)
  target_compile_options(tessera_compiler INTERFACE
    $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer -g1>)
  target_link_options(tessera_compiler INTERFACE -fsanitize=${TESSERA_SANITIZE})
endif()

# For code that computes little: the optimiser takes a third of the time of its build, and most of it under sanitizers.
if(TESSERA_SANITIZE)
  set(TESSERA_QUICK_OPTIONS -O0)
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  set(TESSERA_QUICK_OPTIONS -O1)
endif()
function(tessera_compile_quickly TARGET)
  target_compile_options(${TARGET} PRIVATE $<$<COMPILE_LANGUAGE:C,CXX>:${TESSERA_QUICK_OPTIONS}>)
endfunction()
