#!/usr/bin/env bash
# Makes a folder that runs on a machine with a GPU and its driver and nothing else installed: the tests of the operations
# on a GPU, their benchmark, the program with a text to train on, mpirun, and the shared libraries that these need apart
# from the driver, cuBLAS, NCCL and the C library. On the other machine: tar -xzf gpu-bundle.tar.gz; gpu-bundle/run.sh RESULTS
#
#   tests/gpu/bundle.sh [FOLDER]      build/gpu-bundle by default, and beside it the archive, of 45 MiB at most
# TESSERA_GPU_ARCHITECTURES: for which GPUs, as CMake writes them; 90a-real (H100, H200) by default.
# TESSERA_BUNDLE_BUILD: the build directory, build/cuda-bundle by default. TESSERA_BUNDLE_JOBS: all processors by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=${1:-build/gpu-bundle}
programs=(tests/tensor_gpu_test bench/gpu_bench tessera)

# Not this machine's instruction set.
build=${TESSERA_BUNDLE_BUILD:-build/cuda-bundle}
cmake --preset cuda-release -B "$build" -DTESSERA_ARCH=x86-64-v3 -DTESSERA_TESTS=ON -DTESSERA_BENCH=ON \
  "-DCMAKE_CUDA_ARCHITECTURES=${TESSERA_GPU_ARCHITECTURES:-90a-real}"
cmake --build "$build" --parallel "${TESSERA_BUNDLE_JOBS:-$(nproc)}" --target tensor_gpu_test gpu_bench tessera

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib"
for program in "${programs[@]}"; do
  cp "$build/$program" "$folder/bin/"
done
cp tests/gpu/{run,budget,libraries,training,on_own_host}.sh "$folder/"
cp configs/{demo,gpt2_1558m,llama_3b,llama_7b}.textproto "$folder/"

# Something to learn: the project's own texts, a document each.
mkdir "$folder/text"
while read -r file; do cp "$file" "$folder/text/${file//\//_}.txt"; done < <(git ls-files '*.md' '*.h' '*.cc' '*.cu')
"$build/tessera" data build --input "$folder/text" --tokenizer bytes --output "$folder/data" --validation-fraction 0.05
rm -r "$folder/text"

# mpirun, its daemon and plugins, as Debian has them.
mpi=$(ompi_info --parsable --path pkglibdir | cut -d: -f3)
cp -L "$(command -v orterun)" "$folder/bin/mpirun"
cp -L "$(command -v orted)" "$folder/bin/"
mkdir -p "$folder/openmpi/etc" "$folder/openmpi/share"
cp -rL "$mpi" "$folder/openmpi/plugins"
cp -rL /usr/share/openmpi "$folder/openmpi/share/"
for pmix in /usr/lib/*/pmix2/lib/pmix /usr/lib/*/pmix2/lib/pmix2; do
  if [[ -d $pmix ]]; then cp -rL "$pmix" "$folder/openmpi/pmix"; fi
done
strip --strip-debug "$folder"/bin/* "$folder"/openmpi/plugins/*.so
git rev-parse HEAD >"$folder/version" 2>/dev/null || echo unknown >"$folder/version"

# The C library stays the other machine's, since its driver's libraries are made for it.
ldd "$folder"/bin/* "$folder"/openmpi/plugins/*.so | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -Ev '/(libc|libm|libdl|librt|libpthread|libcuda|libcublas|libcublasLt|libnccl)\.so' |
  while read -r library; do cp -L "$library" "$folder/lib/"; done

needed=$(objdump -T "$folder"/bin/* "$folder"/lib/* 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
archive=$folder.tar.gz
tar -C "$(dirname "$folder")" -cf - "$(basename "$folder")" | gzip -9 >"$archive"
bytes=$(stat -c %s "$archive")
echo "$archive: $((bytes >> 20)) MiB, needs ${needed/_/ }"
if ((bytes > 45 << 20)); then
  echo "bundle.sh: more than 45 MiB" >&2
  exit 1
fi
