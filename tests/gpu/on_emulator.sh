#!/usr/bin/env bash
# Tries run.sh where there is no GPU: in a folder like the one that bundle.sh makes, with the program on the emulated
# device and a model small enough for it. The emulated NCCL has one rank, or threads: it refuses ranks that are processes
# as a real one may refuse several on one GPU, and the script leaves them out.
#
#   on_emulator.sh TESSERA_ON_THE_GRID OPERATIONS_ON_THE_GRID MPIRUN [FOLDER]   of the emulated libnccl.so.2; none: without
set -euo pipefail
# shellcheck source=tests/gpu/emulated_folder.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulated_folder.sh"
nccl=${4:-}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
make_emulated_folder "$folder" "$1" "$2" "$3"
export TESSERA_RUN_NCCL="$nccl" GTEST_FILTER='Embedding.*:Columns.*' PATH="$folder/tools:$PATH"

fail() {
  echo "on_emulator.sh: $1"
  exit 1
}
run_for() {  # SECONDS   its table in `table`; it has to end within its budget
  local began=$SECONDS code=0
  "$folder/run.sh" "$folder/results" --seconds "$1" >"$folder/said" 2>&1 || code=$?
  cat "$folder/said"
  ((SECONDS - began <= $1 + 3)) || fail "$((SECONDS - began)) seconds instead of $1"
  ((code == 0)) || fail "exit code $code"
  table=$(cat "$folder/results/table.txt")
}
expect() {  # NUMBER PATTERN
  (($(grep -c "$2" <<<"$table") == $1)) || fail "the table has not $1 lines with '$2'"
}

run_for 900
# Each line of its table but those that need a GPU.
expect 1 'all passed'
expect 2 'smoke: .* good '
expect 5 'speed of .* good .*mfu:'
expect 1 'time by kernel .* good .*adamw_kernel'
expect 1 'speeds of operations .* good '
expect 1 'operations .* good .* PASSED '
expect 6 'threads, .* good '
expect 4 's  demo on .* good '
if [[ -n $nccl ]]; then
  expect 1 'one rank, NCCL .* good '
  expect 1 'left out: NCCL, making a communicator in group world on rank 1 of 2: invalid usage'
  expect 1 'other layouts by NCCL .*left out: the first did not run'
else
  expect 1 'NCCL .*left out: no libnccl.so.2'
fi
for file in speed_gpt2_1558m speed_gpt2_1558m_50304 speed_gpt2_1558m_batch_16 speed_llama_3b speed_llama_7b; do
  python3 -m json.tool "$folder/results/$file.json" >/dev/null || fail "$file.json is not JSON"
done

# With a budget for the first parts alone it ends in time and says what it left out.
run_for 12
(($(grep -c 'left out: .* s of 12 are left\|left out: the 12 seconds ended' <<<"$table") > 10)) || fail "nothing was left out of 12 seconds"
