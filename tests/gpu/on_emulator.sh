#!/usr/bin/env bash
# Tries run.sh where there is no GPU: in a folder like the one that bundle.sh makes, with the program on the emulated
# device and a model small enough for it. The emulated NCCL has one rank, or threads: it refuses ranks that are processes
# as a real one may refuse several on one GPU, and the script leaves them out.
#
#   on_emulator.sh TESSERA_ON_THE_GRID MPIRUN [FOLDER]      of the emulated libnccl.so.2; none: without NCCL
set -euo pipefail
program=$(realpath "$1")
mpirun=$2
nccl=${3:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
mkdir -p "$folder/bin" "$folder/text"
ln -s "$program" "$folder/bin/tessera"
printf '#!/bin/sh\nexec "%s" --oversubscribe --bind-to none "$@"\n' "$mpirun" >"$folder/bin/mpirun"
chmod +x "$folder/bin/mpirun"
cp "$here/run.sh" "$here/on_own_host.sh" "$folder/"
cp "$here/../../configs/demo.textproto" "$folder/"
cp "$here"/../../tensor/*.h "$folder/text/"
"$program" data build --input "$folder/text" --tokenizer bytes --output "$folder/data" --validation-fraction 0.2 >/dev/null

settings=(model.hidden_size=32 model.num_hidden_layers=3 model.num_attention_heads=2 model.num_key_value_heads=2
  data.sequence_length=64 data.global_batch_size=4 data.micro_batch_size=2 evaluation.samples=2 evaluation.every_steps=0
  checkpoint.every_steps=2 logging.every_steps=1 logging.measure_peak=false lr_schedule.warmup_steps=1)
export TESSERA_RUN_STEPS=4 TESSERA_RUN_NCCL="$nccl" TESSERA_RUN_ARGUMENTS="${settings[*]/#/--set }"
said=$("$folder/run.sh" "$folder/results" 2>&1) || {
  echo "$said"
  exit 1
}
echo "$said"
expect() {  # NUMBER PATTERN
  (($(grep -c "$2" <<<"$said") == $1)) || {
    echo "on_emulator.sh: the table has not $1 lines with '$2'"
    exit 1
  }
}
# Each line of its table but those that need a GPU.
expect 1 '^operations  *left out: '
if [[ -n $nccl ]]; then
  expect 16 ' good '
  expect 8 'left out: NCCL, making a communicator in group world on rank 1 of 2: invalid usage'
else
  expect 15 ' good '
  expect 1 '^NCCL  *left out: no libnccl.so.2'
fi
