#!/usr/bin/env bash
# Installs the Debian 12 packages that Tessera is built, run and tested with, as root or through sudo.
# Says nothing when all are there.
set -euo pipefail

packages=(
  # build
  g++ cmake ninja-build pkg-config ccache
  # libraries (the design's list of parts)
  libopenmpi-dev openmpi-bin libdnnl-dev libprotobuf-dev protobuf-compiler libhdf5-dev libxxhash-dev
  libpcre2-dev nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev libzstd-dev zlib1g-dev
  libeigen3-dev liblbfgs-dev
  # tests and benchmarks
  libgtest-dev libbenchmark-dev python3 python3-h5py python3-venv
  # the quickstart's plot, and certificates for package mirrors that use https
  gnuplot-nox ca-certificates
)

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "install.sh: these packages are missing; install them as root: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing ${missing[*]}"
# Quiet, but not about errors.
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
