#!/usr/bin/env bash
# Installs what is missing, builds everything and runs the test suite, and the kernels' on the emulated device once more
# under AddressSanitizer. The last line is ctest's own summary.
#   --full   also runs the whole suite under AddressSanitizer and UndefinedBehaviorSanitizer, the ranks that are threads under
#            ThreadSanitizer, and the tests labelled "full", and makes the bundle for a machine with a GPU (build/gpu-bundle.tar.gz)
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

# What does not ask whether there is CUDA (tensor/has_cuda.h) is compiled once for the builds with and without.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$PWD} CCACHE_NOHASHDIR=1

# Beside the build, as it waits for the package index.
tests/python.sh &
python=$!

build() {  # PRESET [TARGET ...]
  cmake --preset "$1" -DTESSERA_TESTS=ON
  cmake --build --preset "$1" --parallel "$(nproc)" ${2:+--target "${@:2}"}
}

run() {  # PRESET, ctest's options ...
  wait "$python"
  ctest --test-dir "build/$1" --output-on-failure --parallel 2 "${@:2}"
}

# The program and what nvcc makes of the kernels, compiled and linked for one kind of GPU; where there is none (or no toolkit) the kernels
# are tested by tensor_grid_test, on the host.
nvcc_build() {
  if ! PATH=$PATH:/usr/local/cuda/bin command -v nvcc >/dev/null; then
    echo "no nvcc on this machine: the CUDA build is left out"
    return
  fi
  cmake --preset cuda-release -B build/cuda-90 -DCMAKE_CUDA_ARCHITECTURES=90-real -DTESSERA_TESTS=ON -DTESSERA_BENCH=ON
  cmake --build build/cuda-90 --parallel "$(nproc)" --target tensor_gpu_test gpu_bench tessera
  ctest --test-dir build/cuda-90 --output-on-failure --no-tests=error --tests-regex '^(tensor_gpu|program_with_cuda)$'
}

# Open MPI and HDF5 keep memory until the process ends, so the leak detector would only find theirs.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1"

# What goes to a machine with a GPU is made as often as the rest is tested, so that it cannot rot.
bundle() {
  if PATH=$PATH:/usr/local/cuda/bin command -v nvcc >/dev/null; then tests/gpu/bundle.sh; fi
}

nvcc_build
if [[ $full == yes ]]; then
  build cpu-asan
  run cpu-asan --label-exclude '^full$'
  # Of what takes long, the fuzzing: 100,000 manifests, shard indexes and configs; it is an error when no test has that
  # name. The rest runs without sanitizers below.
  for suite in checkpoint_test launch_test; do
    build/cpu-asan/tests/$suite --gtest_filter='*DISABLED_SurvivesMuchNonsense' --gtest_list_tests | grep Nonsense
    build/cpu-asan/tests/$suite --gtest_also_run_disabled_tests --gtest_filter='*DISABLED_SurvivesMuchNonsense'
  done
  # Ranks that are threads, each with one thread of its own: libgomp's barriers look like races to ThreadSanitizer.
  build cpu-tsan parallel_test optim_test launch_test
  for suite in parallel_test optim_test "launch_test --gtest_filter=*Pipelines*:*Layouts*:Planted*:Traffic*:StepAllocations*"; do
    # shellcheck disable=SC2086
    OMP_THREAD_LIMIT=1 TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1 ${TSAN_OPTIONS:-}" \
      build/cpu-tsan/tests/$suite
  done
  bundle
  build cpu-release
  run cpu-release
else
  if [[ $(uname -m) == x86_64 ]]; then  # where the emulator runs
    build cpu-asan tensor_grid_test
    run cpu-asan --no-tests=error --tests-regex '^tensor_grid_[01]$'
  fi
  build cpu-release
  run cpu-release --label-exclude '^full$'
fi
