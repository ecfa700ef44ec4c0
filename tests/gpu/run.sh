#!/usr/bin/env bash
# Runs on the GPU machine, from the folder that bundle.sh made: every operation against the references in double on
# random operands with poisoned outputs, then the table of speeds. The last line says whether all is well.
#
#   run.sh [RESULTS]      folder for the logs, . by default
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=${1:-.}
mkdir -p "$results"

# cuBLAS: where the loader finds it, or a toolkit, or a Python wheel.
cublas=$(ldconfig -p 2>/dev/null | awk '/libcublasLt\.so\.13/ {print $NF; exit}')
if [[ -z $cublas ]]; then
  cublas=$(find /usr/local /opt /usr/lib /root "${HOME:-/root}" -name 'libcublasLt.so.13*' 2>/dev/null | head -1)
fi
export LD_LIBRARY_PATH="$here/lib${cublas:+:$(dirname "$cublas")}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

{
  echo "version $(cat "$here/version")"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1
  echo "cuBLASLt: ${cublas:-not found}"
} | tee "$results/machine.txt"

failed=()
"$here/bin/tensor_gpu_test" >"$results/operations.txt" 2>&1 || failed+=(operations)
grep -E '^\[  (PASSED|FAILED)|^no GPU|^GPU' "$results/operations.txt"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$here/bin/tensor_gpu_test" \
      --gtest_filter='*Attention*NumberOfTokens*:Norm.*:CrossEntropy.*' >"$results/$tool.txt" 2>&1 || failed+=("$tool")
    tail -2 "$results/$tool.txt"
  done
fi
"$here/bin/gpu_bench" >"$results/speeds.txt" 2>&1 || failed+=(speeds)
cat "$results/speeds.txt"

if ((${#failed[@]})); then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all passed"
