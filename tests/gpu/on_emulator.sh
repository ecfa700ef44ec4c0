#!/usr/bin/env bash
# Tries run.sh where there is no GPU: in a folder like the one that bundle.sh makes, with the program on the emulated
# device and a model small enough for it. NCCL is left out, as the emulated one knows threads alone.
#
#   on_emulator.sh TESSERA_ON_THE_GRID MPIRUN
set -euo pipefail
program=$(realpath "$1")
mpirun=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
mkdir -p "$folder/bin" "$folder/text"
ln -s "$program" "$folder/bin/tessera"
printf '#!/bin/sh\nexec "%s" --oversubscribe --bind-to none "$@"\n' "$mpirun" >"$folder/bin/mpirun"
chmod +x "$folder/bin/mpirun"
cp "$here/run.sh" "$folder/"
cp "$here/../../configs/demo.textproto" "$folder/"
cp "$here"/../../tensor/*.h "$folder/text/"
"$program" data build --input "$folder/text" --tokenizer bytes --output "$folder/data" --validation-fraction 0.2 >/dev/null

settings=(model.hidden_size=32 model.num_hidden_layers=3 model.num_attention_heads=2 model.num_key_value_heads=2
  data.sequence_length=64 data.global_batch_size=4 data.micro_batch_size=2 evaluation.samples=2 evaluation.every_steps=0
  checkpoint.every_steps=2 logging.every_steps=1 logging.measure_peak=false lr_schedule.warmup_steps=1)
export TESSERA_RUN_STEPS=4 TESSERA_RUN_NCCL="" TESSERA_RUN_ARGUMENTS="${settings[*]/#/--set }"
said=$("$folder/run.sh" "$folder/results" 2>&1) || {
  echo "$said"
  exit 1
}
echo "$said"
# Each line of its table but those that need a GPU.
(($(grep -c ' good ' <<<"$said") == 15)) || {
  echo "on_emulator.sh: the table has not 15 lines that are good"
  exit 1
}
