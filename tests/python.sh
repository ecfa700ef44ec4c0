#!/usr/bin/env bash
# Makes a virtual environment with the Python packages of other people's readers in the tests (TensorBoard's), once, in
# build/python, where the tests look for it. Where the package index does not answer it says so: those tests are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=build/python
packages=(tensorboard)
made=$folder/made-with-${packages[*]}
if [[ -e $made ]]; then exit 0; fi
rm -rf "$folder"
mkdir -p build
if python3 -m venv "$folder" >build/python.log 2>&1 &&
  timeout 600 "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --retries 1 --timeout 20 \
    "${packages[@]}" >>build/python.log 2>&1; then
  touch "$made"
else
  echo "tests/python.sh: ${packages[*]} cannot be installed, so the tests that read with it are skipped: $(tail -1 build/python.log)" >&2
  rm -rf "$folder"
fi
