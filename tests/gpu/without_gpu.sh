#!/usr/bin/env bash
# A program built with CUDA on a machine without a GPU: trains on the CPU and says why, and refuses run.device = CUDA with
# the reason and exit code 2.   without_gpu.sh TESSERA
set -euo pipefail
tessera=$1
if "$tessera" doctor 2>/dev/null | grep -q '^cuda .*built in; driver'; then exit 77; fi

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
mkdir "$folder/text"
seq 20000 >"$folder/text/numbers.txt"
"$tessera" data build --input "$folder/text" --tokenizer bytes --output "$folder/data" --validation-fraction 0 >/dev/null
cat >"$folder/run.textproto" <<CONFIG
run { steps: 2 dir: "$folder/run" }
model { hidden_size: 32 num_hidden_layers: 1 num_attention_heads: 2 }
data { sequence_length: 32 global_batch_size: 2 micro_batch_size: 2 tokenizer: "bytes" train { path: "$folder/data/train" } }
lr_schedule { learning_rate: 1e-3 }
logging { measure_peak: false tensorboard: false }
CONFIG
said=$("$tessera" train "$folder/run.textproto" 2>&1)
grep -q 'on the CPU (no NVIDIA driver is installed)' <<<"$said" || {
  echo "it does not say why it uses the CPU:"
  echo "$said"
  exit 1
}
code=0
said=$("$tessera" train "$folder/run.textproto" --set run.device=CUDA 2>&1) || code=$?
if [[ $code -ne 2 ]] || ! grep -q 'run.device = CUDA: no NVIDIA driver is installed' <<<"$said"; then
  echo "exit code $code instead of 2, or no reason:"
  echo "$said"
  exit 1
fi
