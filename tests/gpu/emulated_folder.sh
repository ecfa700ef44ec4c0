# A folder like the one that bundle.sh makes, with the program on the emulated device, for the tests that source this file.
# What only a real device has a program for gets a stand-in that says lines of the same form.
# shellcheck shell=bash

# A model small enough for the emulator, whichever config it is said to.
emulated_settings=(model.hidden_size=32 model.intermediate_size=64 model.num_hidden_layers=3 model.num_attention_heads=2
  model.num_key_value_heads=2 model.vocab_size=512 data.sequence_length=64 data.global_batch_size=4 data.micro_batch_size=2
  evaluation.samples=2 evaluation.every_steps=0 checkpoint.every_steps=2 logging.every_steps=1 logging.measure_peak=false
  lr_schedule.warmup_steps=1)
export TESSERA_RUN_STEPS=4 TESSERA_RUN_ARGUMENTS="${emulated_settings[*]/#/--set }"

stand_in() {  # FILE, and its text from standard input
  cat >"$1"
  chmod +x "$1"
}
make_emulated_folder() {  # FOLDER TESSERA_ON_THE_GRID OPERATIONS_ON_THE_GRID MPIRUN
  local folder=$1 source
  source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  mkdir -p "$folder/bin" "$folder/tools" "$folder/text"
  # `bench train` measures a peak of matrix products, which would take the emulator minutes: it runs on the CPU.
  stand_in "$folder/bin/tessera" <<<"#!/bin/sh
if [ \"\$1 \$2\" = 'bench train' ]; then set -- \"\$@\" --set run.device=CPU; fi
exec '$(realpath "$2")' \"\$@\""
  ln -s "$(realpath "$3")" "$folder/bin/tensor_gpu_test"
  stand_in "$folder/bin/mpirun" <<<"#!/bin/sh
exec '$4' --oversubscribe --bind-to none \"\$@\""
  # Says a line every tenth of a second, as the benchmark says one for each operation.
  stand_in "$folder/bin/gpu_bench" <<<'#!/bin/sh
for operation in copy add cast gelu; do echo "$operation 1.0 us"; sleep 0.1; done'
  # A profiler runs the program that it is given, and then says what each kernel took.
  stand_in "$folder/tools/ncu" <<<'#!/bin/sh
while [ "$1" != env ]; do shift; done
"$@" || exit
for kernel in "adamw_kernel<float, 4>(int)" "gelu_kernel(int, int)" "adamw_kernel<float, 4>(int)"; do
  echo "\"0\",\"1\",\"tessera\",\"host\",\"$kernel\",\"1\",\"7\",\"(1)\",\"(1)\",\"0\",\"9.0\",\"Command line profiler metrics\",\"gpu__time_duration.sum\",\"ns\",\"1,500\""
done'
  cp "$source"/{run,budget,libraries,training,on_own_host}.sh "$folder/"
  cp "$source"/../../configs/{demo,gpt2_1558m,llama_3b,llama_7b}.textproto "$folder/"
  cp "$source"/../../tensor/*.h "$folder/text/"
  "$folder/bin/tessera" data build --input "$folder/text" --tokenizer bytes --output "$folder/data" --validation-fraction 0.2 >/dev/null
}
