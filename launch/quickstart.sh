#!/usr/bin/env bash
# From a bare Debian 12 to a trained transformer: installs, builds, fetches real English text, trains a tokenizer, trains
# a small Llama with four MPI ranks (tensor-parallel by 2, data-parallel by 2), prints a sample and plots the loss.
#
# Usage: launch/quickstart.sh [--data-only] [ARGUMENTS OF tessera train ...]
#   --data-only   stops after the token shards are built
#   any other     goes to `tessera train`, for example --set run.steps=800
#
# Run it again as often as you like: what is done is not done again, and training resumes from its newest checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data_only=no
if [[ ${1:-} == --data-only ]]; then
  data_only=yes
  shift
fi

data=data/quickstart
run=runs/demo
tessera=build/cpu-release/tessera

say() { printf '\n== %s\n' "$*"; }

# A directory that exists is complete: it is made beside and renamed.
begin() { rm -rf "$1.tmp" && mkdir -p "$1.tmp"; }
finish() { mv "$1.tmp" "$1"; }

download() {  # PACKAGE, into the current directory
  # As root apt would step down to a user that cannot write here, and say so; the package is verified all the same.
  apt-get download -q -o APT::Sandbox::User=root "$1"
}

fetch_corpus() {
  local package=r-cran-janeaustenr where
  where=$(realpath "$data/corpus.tmp")
  mkdir "$where/package"
  (
    cd "$where/package"
    if ! download "$package" >apt.log 2>&1; then
      # A new machine has no list of packages yet.
      if [[ $(id -u) -eq 0 ]]; then apt-get update -qq; else sudo apt-get update -qq; fi
      download "$package"
    fi
    # Unpacked, not installed: it would bring R along.
    dpkg-deb --extract "$package"_*.deb .
  )
  python3 -B launch/quickstart_corpus.py "$where/package/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb" "$where"
  rm -rf "$where/package"
}

say "packages"
./launch/install.sh
# shellcheck source=launch/mpi_env.sh
source launch/mpi_env.sh

say "build"
cmake --preset cpu-release >/dev/null
cmake --build --preset cpu-release --target tessera --parallel "$(nproc)"

say "text: Jane Austen's novels (Debian package r-cran-janeaustenr)"
if [[ ! -d $data/corpus ]]; then
  begin "$data/corpus"
  fetch_corpus
  finish "$data/corpus"
fi
echo "$data/corpus: $(find "$data/corpus" -name '*.txt' | wc -l) chapters, $(cat "$data"/corpus/*.txt | wc -w) words"

say "tokenizer"
if [[ ! -f $data/tokenizer.json ]]; then
  "$tessera" tokenizer train --input "$data/corpus" --vocab-size 4096 --output "$data/tokenizer.json.tmp"
  mv "$data/tokenizer.json.tmp" "$data/tokenizer.json"
fi
echo "$data/tokenizer.json"

say "token shards"
if [[ ! -d $data/shards ]]; then
  begin "$data/shards"
  "$tessera" data build --input "$data/corpus" --tokenizer "$data/tokenizer.json" --output "$data/shards.tmp" \
    --validation-fraction 0.05
  finish "$data/shards"
fi
echo "$data/shards"
if [[ $data_only == yes ]]; then
  exit 0
fi

say "training: 4 ranks, tensor-parallel by 2, data-parallel by 2"
mpirun -np 4 --oversubscribe --bind-to none "$tessera" train configs/demo.textproto "$@"

say "a sample"
"$tessera" generate "$run" --prompt "It was" --max-tokens 120 --temperature 0.8 --top-p 0.95

say "loss"
"$tessera" plot "$run"
