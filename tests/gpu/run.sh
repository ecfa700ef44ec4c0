#!/usr/bin/env bash
# Runs on the GPU machine, from the folder that bundle.sh made, within a budget of seconds. What tells most comes first:
#
#   smoke       the demo's first steps on the GPU, and a few operations: says whether the rest means anything
#   MFU         GPT-2 1.5B, with its vocabulary of 50,257 and with 50,304, and with larger microbatches
#   kernels     time by kernel (Nsight Compute, where it is), then the speed of each operation beside its floor
#   MFU         Llama 3B and 7B
#   operations  every one against the references in double, on random operands with poisoned outputs, in four shards
#   layouts     the demo on the GPU against the CPU's, again, in BF16 and FP8, by graphs, over several ranks, checkpoints
#               from one device to the other
#   NCCL        one rank, then several on this GPU if NCCL has them; then compute-sanitizer, in what is left
#
#   run.sh [RESULTS] [--seconds N]      . and 540 by default
#
# RESULTS gets table.txt (a line for each thing tried, as it ends), machine.txt, speed_*.json, speeds.txt, kernels.txt and
# logs/. A cut at any moment leaves what was found until then. Each command runs under a limit. The last line says whether
# all is well; exit code 1 where something failed.
# TESSERA_RUN_STEPS: of each training, 50 by default. TESSERA_RUN_ARGUMENTS: more arguments of every `tessera train` (a
# smaller model). TESSERA_RUN_NCCL: the folder of libnccl.so.2 if it is not found by itself; empty: without NCCL.
set -uo pipefail
began=$SECONDS
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=. seconds=540
while (($#)); do
  case $1 in
    --seconds) seconds=${2:-} && shift ;;
    --seconds=*) seconds=${1#*=} ;;
    -*) seconds= ;;
    *) results=$1 ;;
  esac
  shift
done
if [[ ! $seconds =~ ^[1-9][0-9]{0,5}$ ]]; then
  echo "usage: run.sh [RESULTS] [--seconds N]   (N from 1 to 999999, 540 by default)" >&2
  exit 2
fi
mkdir -p "$results/logs" || exit 1
results=$(cd "$results" && pwd)
rm -rf "$results"/{table,machine,speeds,kernels}.txt "$results"/speed_*.json "$results"/.*.part "$results"/logs/*
work=$(mktemp -d)
steps=${TESSERA_RUN_STEPS:-50}
# shellcheck source=tests/gpu/budget.sh
source "$here/budget.sh"

ended() {  # CODE   whatever still runs ends with the script
  trap - EXIT
  trap '' INT TERM HUP
  # shellcheck disable=SC2046
  kill $(jobs -p) 2>/dev/null
  wait
  rm -rf "$work"
  exit "$1"
}
stopped() {
  trap '' INT TERM HUP
  note "stopped" "a signal came after $(now) s"
  ended 143
}
trap stopped INT TERM HUP
trap 'ended $?' EXIT

# shellcheck source=tests/gpu/libraries.sh
source "$here/libraries.sh"
# shellcheck source=tests/gpu/training.sh
source "$here/training.sh"
{
  echo "version $(cat "$here/version" 2>/dev/null || echo unknown)"
  timeout 10 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 || true
  echo "cuBLASLt in: ${cublas:-not found}; NCCL in: ${nccl:-not found}"
} | keep machine.txt
cat "$results/machine.txt"
# Read once, beside what comes first: the first product would otherwise wait for the disk.
if [[ -n $cublas ]]; then cat "$cublas"/libcublasLt.so.13* >/dev/null 2>&1 & fi

# The CPU's demo goes on beside the first parts, behind them for the processors.
training cpu "$steps" --set run.device=CPU
begin 300 nice -n 19 "${words[@]}" >"$results/logs/cpu.txt" 2>&1
cpu_demo=$started

# --- Smoke.
smoke() {
  train 45 smoke 2 --set run.device=CUDA --set logging.measure_peak=false
  local code=$?
  outcome "smoke: two steps of the demo on the GPU" $code 45 "$(last_line "$results/logs/smoke.txt")"
  if [[ $code -ne 0 && $code -ne 124 ]]; then
    tail -5 "$results/logs/smoke.txt"
    note "the rest" "left out: nothing runs on this GPU"
    exit 1
  fi
  if [[ -x $here/bin/gpu_bench ]]; then
    limited 30 "${own[@]}" "$here/bin/gpu_bench" --quick >"$results/logs/quick.txt" 2>&1
    outcome "smoke: a few operations" $? 30 "$(last_line "$results/logs/quick.txt")"
  fi
}
worth "smoke" 5 && smoke

# --- Model FLOPs utilisation of whole steps, one rank; what does not fit on this GPU says so.
utilisation() {  # NAME LIMIT CONFIG ARGUMENTS ...
  local name=$1 limit=$2 config=$3 log="$results/logs/speed_$1.txt" code
  shift 3
  worth "speed of $name" 10 || return
  # shellcheck disable=SC2086
  limited "$limit" "${own[@]}" "$tessera" bench train "$here/$config.textproto" --json --set run.device=CUDA --set parallel.tp=1 \
    "$@" ${TESSERA_RUN_ARGUMENTS:-} >"$log" 2>&1
  code=$?
  if [[ $code -eq 0 ]]; then
    grep '^{' "$log" | tail -1 | keep "speed_$name.json"
    check "speed of $name" 0 "$(grep -oE '"[a-z_]*(mfu|tokens_per_second|peak)[a-z_]*":[^,}]*' "$results/speed_$name.json" | tr -d '"' |
      sed -E 's/(\.[0-9]{4})[0-9]+/\1/' | tr '\n' ' ')"
  elif grep -q 'of GPU memory' "$log"; then
    leave_out "speed of $name" "$(last_line "$log")"
  else
    outcome "speed of $name" "$code" "$limit" "$(last_line "$log")"
  fi
}
utilisation gpt2_1558m 45 gpt2_1558m --steps 3 --microbatches 8
utilisation gpt2_1558m_50304 45 gpt2_1558m --steps 3 --microbatches 8 --set model.vocab_size=50304
utilisation gpt2_1558m_batch_16 45 gpt2_1558m --steps 3 --microbatches 4 --set data.micro_batch_size=16

# --- Time by kernel: one step of the 1.5B shape with two layers.
by_kernel() {  # from Nsight Compute's rows to microseconds, launches and share of each kernel, the longest first
  awk -F'","' '
    /gpu__time_duration/ {
      name = $5; value = $NF; unit = $(NF - 1); gsub(/[",]/, "", value)
      micro = value * (unit ~ /^(ns|nsecond)/ ? 1e-3 : unit ~ /^(ms|msecond)/ ? 1e3 : unit ~ /^(s|second)$/ ? 1e6 : 1)
      time[name] += micro; launches[name]++; all += micro
    }
    END { for (name in time) printf "%12.1f us %6d launches %5.1f %%  %s\n", time[name], launches[name], 100 * time[name] / all, name }' |
    sort -rn
}
kernels() {
  # shellcheck disable=SC2086
  limited 75 ncu --target-processes all --clock-control none --csv --metrics gpu__time_duration.sum \
    "${own[@]}" "$tessera" train "$here/gpt2_1558m.textproto" --set run.device=CUDA --set "run.dir=$work/kernels" \
    --set run.steps=1 --set "data.train=$here/data/train" --set data.tokenizer=bytes --set parallel.tp=1 \
    --set logging.tensorboard=false --set logging.measure_peak=false --set model.num_hidden_layers=2 \
    --set data.global_batch_size=8 --set data.micro_batch_size=8 --set lr_schedule.warmup_steps=0 ${TESSERA_RUN_ARGUMENTS:-} \
    >"$results/logs/kernels.csv" 2>&1
  local code=$?
  by_kernel <"$results/logs/kernels.csv" | keep kernels.txt
  outcome "time by kernel" $code 75 "$(head -1 "$results/kernels.txt")"
}
if ! command -v ncu >/dev/null; then
  leave_out "time by kernel" "Nsight Compute (ncu) is not on this machine"
elif worth "time by kernel" 20; then
  kernels
fi
if [[ ! -x $here/bin/gpu_bench ]]; then
  leave_out "speeds of operations" "no bin/gpu_bench"
elif worth "speeds of operations" 10; then
  limited 40 "${own[@]}" "$here/bin/gpu_bench" >"$results/speeds.txt" 2>&1
  outcome "speeds of operations" $? 40 "$(wc -l <"$results/speeds.txt") lines in speeds.txt"
fi

utilisation llama_3b 60 llama_3b --steps 3 --microbatches 4 --set data.sequence_length=4096 --set data.micro_batch_size=2
utilisation llama_7b 75 llama_7b --steps 3 --microbatches 4 --set parallel.recompute=full

# --- Operations, in shards side by side.
operations() {
  local shards=() shard code worst=0
  for shard in 0 1 2 3; do
    GTEST_TOTAL_SHARDS=4 GTEST_SHARD_INDEX=$shard begin 90 "${own[@]}" "$here/bin/tensor_gpu_test" >"$results/logs/operations_$shard.txt" 2>&1
    shards+=("$started")
  done
  for shard in "${shards[@]}"; do
    wait "$shard"
    code=$?
    if [[ $code -ne 0 && ($worst -eq 0 || $worst -eq 124) ]]; then worst=$code; fi
  done
  outcome "operations" $worst 90 "$(grep -hE '^\[  (PASSED|FAILED)|^no GPU' "$results"/logs/operations_?.txt | sort | uniq -c | tr -s ' \n' ' ')"
}
if [[ ! -x $here/bin/tensor_gpu_test ]]; then
  leave_out "operations" "no bin/tensor_gpu_test"
elif worth "operations" 15; then
  operations
fi

# --- Layouts. Twice F32: products are summed in other orders, and fifty steps multiply what that changes.
wait "$cpu_demo"
outcome "demo on the CPU" $? 300 "$(last_line "$results/logs/cpu.txt")"
try "demo on the GPU" 30 gpu cpu 0.02
try "the same bits again" 30 gpu_again gpu 0
try "demo on the GPU in BF16" 30 gpu_bf16 cpu 0.05 --set run.compute_dtype=BF16
try "the same bits by CUDA graphs" 30 gpu_graphs gpu 0 --set run.cuda_graphs=AUTO
eight_bits() {  # E4M3 has four bits fewer than BF16, in half of the blocks.
  train 30 gpu_fp8 "$steps" --set run.device=CUDA --set run.compute_dtype=FP8
  local code=$?
  if [[ $code -ne 0 ]] && grep -q 'needs a GPU with FP8 matrix units' "$results/logs/gpu_fp8.txt"; then
    leave_out "demo on the GPU in FP8" "$(last_line "$results/logs/gpu_fp8.txt")"
  else
    compare "demo on the GPU in FP8" $code 30 gpu_fp8 cpu 0.1
  fi
}
worth "demo on the GPU in FP8" 5 && eight_bits
# Several ranks on one GPU, as threads and as processes, through host memory.
layouts=(tp=2 dp=2 dp=2,zero_stage=2 dp=2,zero_stage=3 pp=2 cp=2)
for layout in "${layouts[@]}"; do
  # shellcheck disable=SC2046
  try "threads, $layout, staged" 30 "threads_$layout" gpu 0.02 $(settings "$layout") --set parallel.gpu_transport=staged --local-ranks 2
done
mpi=no
if limited 20 "${own[@]}" "$here/bin/mpirun" -np 1 true >"$results/logs/mpirun.txt" 2>&1; then
  mpi=yes
  LAUNCH="$here/bin/mpirun -np 4" try "mpirun, tp=2 pp=2, staged" 40 mpi_tp2_pp2 gpu 0.02 --set parallel.tp=2 --set parallel.pp=2 --set parallel.gpu_transport=staged
else
  outcome "mpirun" $? 20 "$(last_line "$results/logs/mpirun.txt")"
fi
# Checkpoints from one device to the other: half the steps on each.
handed_over() {  # WHAT NAME FROM TO OTHER
  worth "$1" 10 || return
  train 40 "$2" "$((steps / 2))" --set "run.device=$3" --set lr_schedule.decay_end_step=400 &&
    train 40 "$2" "$steps" --set "run.device=$4"
  compare "$1" $? 40 "$2" "$5" 0.02
}
handed_over "a CPU's checkpoint on the GPU" cpu_to_gpu CPU CUDA cpu
handed_over "a GPU's checkpoint on the CPU" gpu_to_cpu CUDA CPU gpu

# --- NCCL. One rank opens it and makes a communicator, and then has nobody to talk to. Then processes that share the GPU:
# NCCL takes ranks with an identity of their own for different hosts, and is free to refuse them or to wait for ever.
by_nccl() {  # WHAT NAME OTHER BOUND ARGUMENTS ...
  local what=$1 name=$2 other=$3 bound=$4 code=0 reason
  shift 4
  worth "$what" 10 || return 1
  LAUNCH="$here/bin/mpirun -np 2 $here/on_own_host.sh" train 40 "$name" "$steps" --set run.device=CUDA \
    --set parallel.gpu_transport=nccl --set watchdog.timeout_seconds=20 "$@" || code=$?
  if [[ $code -ne 0 ]] && reason=$(refusal_of_nccl "$name"); then
    leave_out "$what" "$reason"
  else
    compare "$what" "$code" 40 "$name" "$other" "$bound"
  fi
  return "$code"
}
several_by_nccl() {
  local layout
  if ! by_nccl "mpirun, tp=2, NCCL over loopback" nccl_tp=2 gpu 0.02 --set parallel.tp=2; then
    leave_out "other layouts by NCCL" "the first did not run"
    return
  fi
  for layout in "${layouts[@]:1}"; do
    # shellcheck disable=SC2046
    by_nccl "mpirun, $layout, NCCL over loopback" "nccl_$layout" gpu 0.02 $(settings "$layout")
  done
  # Sums made in rank order, as staged ones are.
  for layout in tp=2 dp=2; do
    by_nccl "the same bits by NCCL, $layout, in rank order" "nccl_order_$layout" "threads_$layout" 0 --set "parallel.$layout" --set parallel.sums=RANK_ORDER
  done
}
if [[ -z $nccl ]]; then
  leave_out "NCCL" "no libnccl.so.2"
else
  try "one rank, NCCL" 30 nccl_alone gpu 0 --set parallel.gpu_transport=nccl
  if [[ $mpi == yes ]]; then several_by_nccl; fi
fi

# --- Kernels that share memory between threads, or that write where an index says, with every access watched.
sanitized() {  # TOOL
  limited "$(left)" compute-sanitizer --tool "$1" --error-exitcode 1 "${own[@]}" "$here/bin/tensor_gpu_test" \
    --gtest_filter='*AttentionDTypes*HeadSize*:Embedding.*:Quantise.*:Reduce.*:Norm.*:CrossEntropy.*' >"$results/logs/$1.txt" 2>&1
  outcome "compute-sanitizer $1" $? "$(left)" "$(last_line "$results/logs/$1.txt")"
}
if ! command -v compute-sanitizer >/dev/null || [[ ! -x $here/bin/tensor_gpu_test ]]; then
  leave_out "compute-sanitizer" "it, or bin/tensor_gpu_test, is not on this machine"
else
  for tool in memcheck racecheck; do
    if worth "compute-sanitizer $tool" 20; then sanitized "$tool"; fi
  done
fi

if ((${#failed[@]})); then
  note "FAILED" "$(printf '%s; ' "${failed[@]}")"
  exit 1
fi
note "all passed" "$left_out left out"
