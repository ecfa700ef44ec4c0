#!/usr/bin/env bash
# Installs what is missing, builds everything and runs the test suite. The last line is ctest's own summary.
#   --full   also runs the suite under AddressSanitizer and UndefinedBehaviorSanitizer, and the tests labelled "full"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=no
for argument in "$@"; do
  case $argument in
    --full) full=yes ;;
    *)
      echo "usage: tests/run.sh [--full]" >&2
      exit 2
      ;;
  esac
done

./launch/install.sh
# shellcheck source=launch/mpi_env.sh
source launch/mpi_env.sh

build() {  # PRESET
  cmake --preset "$1" -DTESSERA_TESTS=ON -DTESSERA_BENCH=ON
  cmake --build --preset "$1" --parallel "$(nproc)"
}

run() {  # PRESET, ctest's options ...
  ctest --test-dir "build/$1" --output-on-failure --parallel 2 "${@:2}"
}

# What nvcc makes of the kernels, compiled and linked for one kind of GPU; where there is none (or no toolkit) the kernels
# are tested by tensor_grid_test, on the host.
nvcc_build() {
  if ! PATH=$PATH:/usr/local/cuda/bin command -v nvcc >/dev/null; then
    echo "no nvcc on this machine: the CUDA build is left out"
    return
  fi
  cmake --preset cuda-release -B build/cuda-90 -DCMAKE_CUDA_ARCHITECTURES=90-real -DTESSERA_TESTS=ON -DTESSERA_BENCH=ON
  cmake --build build/cuda-90 --parallel "$(nproc)" --target tensor_gpu_test gpu_bench
  ctest --test-dir build/cuda-90 --output-on-failure --tests-regex '^tensor_gpu$'
}

nvcc_build
if [[ $full == yes ]]; then
  build cpu-asan
  # Open MPI and HDF5 keep memory until the process ends, so the leak detector would only find theirs.
  ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1" run cpu-asan
  build cpu-release
  run cpu-release
else
  build cpu-release
  run cpu-release --label-exclude '^full$'
fi
