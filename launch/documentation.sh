#!/usr/bin/env bash
# The data of configs/sweeps: text of Debian's documentation packages, a tokenizer for it, and token shards.
# Usage: launch/documentation.sh    (downloads about 110 MB; a directory that is there is not made again)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  linux-doc-6.1 python3.11-doc perl-doc postgresql-doc-15 llvm-14-doc git-doc vim-doc sqlite3-doc python-django-doc
  openjdk-17-doc gap-doc libboost1.74-doc
)
data=data/documentation
tessera=build/cpu-release/tessera
vocabulary=1024

say() { printf '\n== %s\n' "$*"; }
# A directory that exists is complete: it is made beside and renamed.
begin() { rm -rf "$1.tmp" && mkdir -p "$1.tmp"; }
finish() { mv "$1.tmp" "$1"; }

fetch() {  # PACKAGE, unpacked, not installed, into $data/packages
  local package=$1 where
  [[ -d $data/packages/$package ]] && return
  begin "$data/packages/$package"
  where=$(realpath "$data/packages/$package.tmp")
  (
    cd "$where"
    # As root apt would step down to a user that cannot write here, and say so; the package is verified all the same.
    apt-get download -q -o APT::Sandbox::User=root "$package" >apt.log 2>&1 || { cat apt.log >&2; exit 1; }
    dpkg-deb --extract "$package"_*.deb .
    rm -- *.deb apt.log
  )
  finish "$data/packages/$package"
}

./launch/install.sh
if ! apt-cache show "${packages[0]}" >/dev/null 2>&1; then  # a new machine has no list of packages yet
  if [[ $(id -u) -eq 0 ]]; then apt-get update -qq; else sudo apt-get update -qq; fi
fi
if [[ ! -x $tessera ]]; then
  cmake --preset cpu-release >/dev/null
  cmake --build --preset cpu-release --target tessera --parallel "$(nproc)"
fi

say "text"
if [[ ! -d $data/corpus ]]; then
  for package in "${packages[@]}"; do fetch "$package"; done
  begin "$data/corpus"
  python3 -B launch/documentation_corpus.py "${packages[@]/#/$data/packages/}" "$data/corpus.tmp"
  finish "$data/corpus"
  rm -rf "$data/packages"
fi
echo "$data/corpus: $(du -sh "$data/corpus" | cut -f1)"

say "tokenizer"
if [[ ! -f $data/tokenizer.json ]]; then
  "$tessera" tokenizer train --input "$data/corpus" --vocab-size $vocabulary --output "$data/tokenizer.json.tmp"
  mv "$data/tokenizer.json.tmp" "$data/tokenizer.json"
fi
echo "$data/tokenizer.json"

say "token shards"
if [[ ! -d $data/shards ]]; then
  begin "$data/shards"
  "$tessera" data build --input "$data/corpus" --tokenizer "$data/tokenizer.json" --output "$data/shards.tmp" \
    --validation-fraction 0.01
  finish "$data/shards"
fi
echo "$data/shards"
