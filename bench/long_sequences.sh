#!/usr/bin/env bash
# Step time at 2k to 64k tokens on one rank and on two that share the context, each rank one core, with the exponents
# between neighbouring lengths; then two ranks of one core at 4,096 tokens against one rank of two threads.
#
#   bench/long_sequences.sh [TESSERA] [LONGEST]     a machine with two free cores; an hour for 65536
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/mpi_env.sh
tessera=${1:-build/cpu-release/tessera}
longest=${2:-65536}

# seconds RANKS THREADS TOKENS: of a step of a small Llama, one document.
seconds() {
  local command=("$tessera" bench train configs/long_context.textproto --steps 2 --json
    --set parallel.cp="$1" --set run.threads="$2" --set data.sequence_length="$3" --set model.layer_types=
    --set model.sliding_window=0 --set model.vocab_size=4096)
  if [ "$1" -gt 1 ]; then command=(mpirun -np "$1" --bind-to none "${command[@]}"); fi
  "${command[@]}" | tail -1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["step_seconds"])'
}

printf '%8s %12s %9s %12s %9s %9s\n' tokens 'one rank, s' exponent 'two ranks, s' exponent speed-up
before=""
for ((tokens = 2048; tokens <= longest; tokens *= 2)); do
  one=$(seconds 1 1 "$tokens")
  two=$(seconds 2 1 "$tokens")
  before=$(awk -v t="$tokens" -v a="$one" -v b="$two" -v before="$before" 'BEGIN {
    split(before, p, " "); printf "%8d %12.3f %9s %12.3f %9s %9.2f\n", t, a, p[1] ? sprintf("%.2f", log(a / p[1]) / log(2)) : "-",
      b, p[2] ? sprintf("%.2f", log(b / p[2]) / log(2)) : "-", a / b > "/dev/stderr"; print a, b }')
done
one=$(seconds 1 2 4096)
two=$(seconds 2 1 4096)
awk -v a="$one" -v b="$two" 'BEGIN { printf "4,096 tokens: one rank of two threads %.3f s, cp 2 of one %.3f s: %.3f of its speed\n", a, b, a / b }'
