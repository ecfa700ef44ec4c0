# Trainings of the demo and what their losses say, for run.sh, which sources this file. Expects: here, results, work, own.
# shellcheck shell=bash disable=SC2154
tessera="$here/bin/tessera"

# The words of a training with a run directory of its own, in `words`.
training() {  # NAME STEPS ARGUMENTS ...
  local name=$1 steps=$2
  shift 2
  # shellcheck disable=SC2086,SC2206
  words=("${own[@]}" ${LAUNCH:-} "$tessera" train "$here/demo.textproto" --set "run.dir=$work/$name" --set "run.steps=$steps"
    --set "data.train=$here/data/train" --set "data.validation=$here/data/validation" --set data.tokenizer=bytes
    --set parallel.tp=1 --set logging.tensorboard=false --set checkpoint.every_steps=25 ${TESSERA_RUN_ARGUMENTS:-} "$@")
}
train() {  # LIMIT NAME STEPS ARGUMENTS ...   its log is logs/NAME.txt
  local limit=$1 name=$2
  shift
  training "$@"
  limited "$limit" "${words[@]}" >"$results/logs/$name.txt" 2>&1
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
    END { if (n == 0) print "1e9"; else printf "%.2e", most }' "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl"
}
# The line of a training that ended: whether it went well and has the losses of another, within a bound.
compare() {  # WHAT CODE LIMIT NAME OTHER BOUND
  local apart
  if [[ $2 -ne 0 ]]; then
    outcome "$1" "$2" "$3" "$(last_line "$results/logs/$4.txt")"
    return
  fi
  if [[ ! -s $work/$5/metrics.jsonl ]]; then
    leave_out "$1" "it ran, and $5, which it is compared with, did not"
    return
  fi
  apart=$(difference "$4" "$5")
  awk -v d="$apart" -v bound="$6" 'BEGIN { exit !(d <= bound) }'
  check "$1" $? "losses differ by $apart of $5's (at most $6)"
}
# Trains on the GPU and compares.
try() {  # WHAT LIMIT NAME OTHER BOUND ARGUMENTS ...
  local what=$1 limit=$2 name=$3 other=$4 bound=$5
  shift 5
  worth "$what" 5 || return
  train "$limit" "$name" "$steps" --set run.device=CUDA "$@"
  compare "$what" $? "$limit" "$name" "$other" "$bound"
}
settings() {  # LAYOUT such as dp=2,zero_stage=3
  local setting
  for setting in ${1//,/ }; do printf -- '--set parallel.%s ' "$setting"; done
}
# Why NCCL itself would not have these ranks: not with such GPUs, or over such a network. Nothing where it is something
# else that failed.
refusal_of_nccl() {  # NAME
  grep -Eom 1 'NCCL, (making|splitting) a communicator in .*: (invalid usage|unhandled system error).*' "$results/logs/$1.txt"
}
