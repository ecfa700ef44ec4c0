#!/usr/bin/env bash
# Cuts run.sh at random moments, as a machine that is taken away does, and reads what it left: whole lines of the table,
# JSON that parses, and after a signal that can be answered no process of its own.
#
#   killed.sh TESSERA_ON_THE_GRID OPERATIONS_ON_THE_GRID MPIRUN [ROUNDS] [SEED]
set -euo pipefail
# shellcheck source=tests/gpu/emulated_folder.sh
source "$(dirname "${BASH_SOURCE[0]}")/emulated_folder.sh"
rounds=${4:-4} RANDOM=${5:-$(date +%N | sed 's/^0*//')}
seed=$RANDOM RANDOM=$seed
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
make_emulated_folder "$folder" "$1" "$2" "$3"
export TESSERA_RUN_NCCL='' GTEST_FILTER='Embedding.*:Columns.*' PATH="$folder/tools:$PATH" TMPDIR="$folder"

fail() {
  echo "killed.sh: $1 (seed $seed)"
  cat "$folder/results/table.txt" 2>/dev/null
  exit 1
}
whole='^ *[0-9]+ s  [^ ].* +(good|FAILED|left out: .+|a signal came after [0-9]+ s|[0-9]+ left out)( .*)?$'
read_results() {
  local file
  if [[ -e $folder/results/table.txt ]]; then
    [[ -z $(tail -c 1 "$folder/results/table.txt") ]] || fail "the table's last line is cut"
    ! grep -vE "$whole" "$folder/results/table.txt" || fail "these lines of the table are not whole"
    ! grep FAILED "$folder/results/table.txt" || fail "a part that was cut counts as failed"
  fi
  for file in "$folder"/results/*.json; do
    [[ ! -e $file ]] || python3 -m json.tool "$file" >/dev/null || fail "$file is not JSON"
  done
}
for ((round = 0; round < rounds; ++round)); do
  rm -rf "$folder/results"
  if ((round % 2)); then signal=KILL; else signal=TERM; fi
  delay=$((RANDOM % 20)).$((RANDOM % 10))
  setsid "$folder/run.sh" "$folder/results" --seconds 60 >"$folder/said" 2>&1 &
  script=$!
  sleep "$delay"
  kill -"$signal" "$script" 2>/dev/null || true
  wait "$script" 2>/dev/null || true
  read_results
  session=$(ps -o pid= -s "$script" || true)  # all that it started and that still runs
  if [[ $signal == TERM ]]; then
    [[ -z $session ]] || fail "processes outlive the script: $(ps -o pid=,args= -s "$script")"
    grep -q 'a signal came' "$folder/results/table.txt" || grep -q 'all passed' "$folder/results/table.txt" ||
      fail "the table does not say that a signal came"
  elif [[ -n $session ]]; then
    # shellcheck disable=SC2086
    kill -KILL $session 2>/dev/null || true
  fi
  echo "SIG$signal after $delay s: $(wc -l <"$folder/results/table.txt" 2>/dev/null || echo 0) lines, all whole"
done
