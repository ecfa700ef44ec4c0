#!/usr/bin/env bash
# Runs on the GPU machine, from the folder that bundle.sh made: every operation against the references in double on
# random operands with poisoned outputs; the demo trained on the GPU and on the CPU; several ranks on one GPU, through
# host memory and by NCCL; checkpoints from one to the other; then the tables of speeds. The last line says whether all
# is well.
#
#   run.sh [RESULTS]      folder for the logs, . by default
# TESSERA_RUN_STEPS: of each training, 50 by default. TESSERA_RUN_ARGUMENTS: more arguments of every `tessera train` (a
# smaller model). TESSERA_RUN_NCCL: the folder of libnccl.so.2 if it is not found by itself; empty: without NCCL.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:-.}"
results=$(cd "${1:-.}" && pwd)

# NCCL and cuBLAS: where the loader finds them, or a toolkit (which may have both), or Python wheels.
folder_of() {  # LIBRARY
  local found
  found=$(ldconfig -p 2>/dev/null | awk -v name="$1" 'index($1, name) == 1 {print $NF; exit}')
  if [[ -z $found ]]; then
    found=$(find /usr/local /opt /usr/lib /root "${HOME:-/root}" -name "$1*" 2>/dev/null | head -1)
  fi
  if [[ -n $found ]]; then dirname "$found"; fi
}
cublas=$(folder_of libcublasLt.so.13)
nccl=${TESSERA_RUN_NCCL-$(folder_of libnccl.so.2)}
export LD_LIBRARY_PATH="$here/lib${nccl:+:$nccl}${cublas:+:$cublas}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# The bundle's own mpirun, wherever the bundle lies.
if [[ -d $here/openmpi ]]; then
  export OPAL_PREFIX="$here/openmpi" OPAL_LIBDIR="$here/lib" OPAL_PKGLIBDIR="$here/openmpi/plugins"
  export OPAL_DATADIR="$here/openmpi/share" OPAL_PKGDATADIR="$here/openmpi/share/openmpi"
  export OPAL_BINDIR="$here/bin" OPAL_SYSCONFDIR="$here/openmpi/etc"
  export PMIX_INSTALL_PREFIX="$here/openmpi" PMIX_MCA_mca_base_component_path="$here/openmpi/pmix"
  export OMPI_MCA_mca_base_component_path="$here/openmpi/plugins" OMPI_MCA_btl=self,vader,tcp OMPI_MCA_plm=isolated
fi
export PATH="$here/bin:$PATH" OMPI_MCA_mpi_yield_when_idle=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

tessera="$here/bin/tessera"
failed=()
table=()
note() { table+=("$(printf '%-44s %s' "$1" "$2")"); }  # WHAT RESULT
check() {  # WHAT, and whether the last command succeeded
  if [[ $2 -eq 0 ]]; then note "$1" "good${3:+  $3}"; else note "$1" "FAILED${3:+  $3}"; failed+=("$1"); fi
}

{
  echo "version $(cat "$here/version" 2>/dev/null || echo unknown)"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 || true
  echo "cuBLASLt in: ${cublas:-not found}; NCCL in: ${nccl:-not found}"
} | tee "$results/machine.txt"

# --- Operations.
if [[ -x $here/bin/tensor_gpu_test ]]; then
  "$here/bin/tensor_gpu_test" >"$results/operations.txt" 2>&1
  check "operations" $? "$(grep -E '^\[  (PASSED|FAILED)|^no GPU' "$results/operations.txt" | head -1)"
  if command -v compute-sanitizer >/dev/null; then
    # Kernels that share memory between threads, or that write where an index says.
    kernels='*AttentionDTypes*HeadSize*:*AttentionDTypes*NumberOfTokens*:Embedding.*:Quantise.*:Reduce.*:AdamW.*:Norm.*'
    for tool in memcheck racecheck; do
      compute-sanitizer --tool "$tool" --error-exitcode 1 "$here/bin/tensor_gpu_test" \
        --gtest_filter="$kernels:CrossEntropy.*" >"$results/$tool.txt" 2>&1
      check "compute-sanitizer $tool" $? "$(tail -1 "$results/$tool.txt")"
    done
  else
    note "compute-sanitizer" "left out: it is not on this machine"
  fi
else
  note "operations" "left out: no bin/tensor_gpu_test"
fi

# --- Training.
train() {  # NAME STEPS ARGUMENTS ...   its own run directory, log and result
  local name=$1 steps=$2
  shift 2
  # shellcheck disable=SC2086
  ${LAUNCH:-} "$tessera" train "$here/demo.textproto" --set "run.dir=$results/$name" --set "run.steps=$steps" \
    --set "data.train=$here/data/train" --set "data.validation=$here/data/validation" --set data.tokenizer=bytes \
    --set parallel.tp=1 --set logging.tensorboard=false --set checkpoint.every_steps=25 ${TESSERA_RUN_ARGUMENTS:-} "$@" \
    >"$results/$name.txt" 2>&1
}
# The largest relative difference of the losses of two runs, over the steps that both have.
difference() {  # NAME OTHER
  awk -F'"loss":' '
    function loss(text) { sub(/[,}].*/, "", text); return text + 0 }
    function step(line) { sub(/.*"step":/, "", line); sub(/[,}].*/, "", line); return line + 0 }
    NF < 2 { next }
    FNR == NR { first[step($0)] = loss($2); next }
    step($0) in first {
      a = first[step($0)]; b = loss($2); d = (a > b ? a - b : b - a) / (a == 0 ? 1 : a)
      if (d > most) most = d
      n++
    }
    END { if (n == 0) print "1e9"; else printf "%.2e", most }' "$results/$1/metrics.jsonl" "$results/$2/metrics.jsonl"
}
# Checks that a run ended well and has the losses of another, within a bound.
compare() {  # WHAT CODE NAME OTHER BOUND
  local apart
  if [[ $2 -ne 0 ]]; then
    check "$1" 1 "$(grep -v '^$' "$results/$3.txt" | tail -1)"
    return
  fi
  apart=$(difference "$3" "$4")
  awk -v d="$apart" -v bound="$5" 'BEGIN { exit !(d <= bound) }'
  check "$1" $? "losses differ by $apart of $4's (at most $5)"
}

steps=${TESSERA_RUN_STEPS:-50}
# Twice F32: products are summed in other orders, and fifty steps multiply what that changes.
train cpu "$steps" --set run.device=CPU
check "demo on the CPU" $? "$(tail -1 "$results/cpu.txt")"
train gpu "$steps" --set run.device=CUDA
compare "demo on the GPU" $? gpu cpu 0.02
train gpu_again "$steps" --set run.device=CUDA
compare "the same bits again" $? gpu_again gpu 0
train gpu_bf16 "$steps" --set run.device=CUDA --set run.compute_dtype=BF16
compare "demo on the GPU in BF16" $? gpu_bf16 cpu 0.05
train gpu_graphs "$steps" --set run.device=CUDA --set run.cuda_graphs=AUTO
compare "the same bits by CUDA graphs" $? gpu_graphs gpu 0
# E4M3 has four bits fewer than BF16, in half of the blocks.
if train gpu_fp8 "$steps" --set run.device=CUDA --set run.compute_dtype=FP8; then
  compare "demo on the GPU in FP8" 0 gpu_fp8 cpu 0.1
elif grep -q 'needs a GPU with FP8 matrix units' "$results/gpu_fp8.txt"; then
  note "demo on the GPU in FP8" "left out: $(tail -1 "$results/gpu_fp8.txt")"
else
  compare "demo on the GPU in FP8" 1 gpu_fp8 cpu 0.1
fi

# --- NCCL. One rank opens it and makes a communicator, and then has nobody to talk to.
if [[ -n $nccl ]]; then
  train nccl_alone "$steps" --set run.device=CUDA --set parallel.gpu_transport=nccl
  compare "one rank, NCCL" $? nccl_alone gpu 0
else
  note "NCCL" "left out: no libnccl.so.2"
fi
# Why NCCL itself would not have these ranks: not with such GPUs, or over such a network. Nothing where it is something
# else that failed.
refusal_of_nccl() {  # NAME
  grep -Eom 1 'NCCL, (making|splitting) a communicator in .*: (invalid usage|unhandled system error).*' "$results/$1.txt"
}
# Of processes that share the GPU: NCCL takes ranks with an identity of their own for different hosts.
train_by_nccl() {  # WHAT NAME OTHER BOUND ARGUMENTS ...
  local what=$1 name=$2 other=$3 bound=$4 code=0 reason
  shift 4
  LAUNCH="$here/bin/mpirun -np 2 $here/on_own_host.sh" train "$name" "$steps" --set run.device=CUDA --set parallel.gpu_transport=nccl "$@" || code=$?
  if [[ $code -ne 0 ]] && reason=$(refusal_of_nccl "$name"); then
    note "$what" "left out: $reason"
  else
    compare "$what" "$code" "$name" "$other" "$bound"
  fi
}

# --- Several ranks on one GPU, as threads and as processes, through host memory.
settings() {  # LAYOUT such as dp=2,zero_stage=3
  local setting
  for setting in ${1//,/ }; do printf -- '--set parallel.%s ' "$setting"; done
}
layouts=(tp=2 dp=2 dp=2,zero_stage=2 dp=2,zero_stage=3 pp=2 cp=2)
for layout in "${layouts[@]}"; do
  # shellcheck disable=SC2046
  train "threads_$layout" "$steps" --set run.device=CUDA $(settings "$layout") --set parallel.gpu_transport=staged --local-ranks 2
  compare "threads, $layout, staged" $? "threads_$layout" gpu 0.02
done
if "$here/bin/mpirun" -np 1 true >"$results/mpirun.txt" 2>&1; then
  LAUNCH="$here/bin/mpirun -np 4" train "mpi_tp2_pp2" "$steps" --set run.device=CUDA --set parallel.tp=2 --set parallel.pp=2 --set parallel.gpu_transport=staged
  compare "mpirun, tp=2 pp=2, staged" $? mpi_tp2_pp2 gpu 0.02
  if [[ -n $nccl ]]; then
    for layout in "${layouts[@]}"; do
      # shellcheck disable=SC2046
      train_by_nccl "mpirun, $layout, NCCL over loopback" "nccl_$layout" gpu 0.02 $(settings "$layout")
    done
    # Without overlap sums are made in rank order, as staged ones are.
    for layout in tp=2 dp=2; do
      train_by_nccl "the same bits by NCCL, $layout, no overlap" "nccl_order_$layout" "threads_$layout" 0 --set "parallel.$layout" --set parallel.overlap=false
    done
  fi
else
  check "mpirun" 1 "$(tail -1 "$results/mpirun.txt")"
fi

# --- Checkpoints from one device to the other: half the steps on each.
half=$((steps / 2))
train cpu_to_gpu "$half" --set run.device=CPU --set lr_schedule.decay_end_step=400 &&
  train cpu_to_gpu "$steps" --set run.device=CUDA
compare "a CPU's checkpoint on the GPU" $? cpu_to_gpu cpu 0.02
train gpu_to_cpu "$half" --set run.device=CUDA --set lr_schedule.decay_end_step=400 &&
  train gpu_to_cpu "$steps" --set run.device=CPU
compare "a GPU's checkpoint on the CPU" $? gpu_to_cpu gpu 0.02

# --- Speeds.
if [[ -x $here/bin/gpu_bench ]]; then
  "$here/bin/gpu_bench" >"$results/speeds.txt" 2>&1
  check "speeds of operations" $?
  cat "$results/speeds.txt"
fi
# Model FLOPs utilisation of whole steps, one rank; what does not fit on this GPU says so.
speed_of_training() {  # CONFIG ARGUMENTS ...
  local name=$1
  shift
  "$tessera" bench train "$here/$name.textproto" --steps 5 --set run.device=CUDA --set parallel.tp=1 "$@" \
    >"$results/speed_$name.txt" 2>&1
  local code=$?
  if [[ $code -eq 0 ]]; then
    cat "$results/speed_$name.txt"
  elif grep -q 'of GPU memory' "$results/speed_$name.txt"; then
    note "speed of $name" "not measured: $(grep -v '^$' "$results/speed_$name.txt" | tail -1)"
    return
  fi
  check "speed of $name" $code "$(grep -v '^$' "$results/speed_$name.txt" | tail -1)"
}
if [[ -z ${TESSERA_RUN_ARGUMENTS:-} ]]; then
  speed_of_training gpt2_1558m --microbatches 4
  speed_of_training llama_3b --set data.sequence_length=4096 --set data.micro_batch_size=2 --microbatches 4
  speed_of_training llama_7b --set parallel.recompute=full --microbatches 4
fi
printf '%s\n' '' "${table[@]}" | tee "$results/table.txt"
if ((${#failed[@]})); then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all passed"
