# What the bundle's programs load, for run.sh, which sources this file. Expects: here. Sets: cublas, nccl, own (the words
# before a program of the bundle). Other programs of the machine keep the machine's libraries.
# shellcheck shell=bash disable=SC2154

# Where the loader finds a library, or a Python wheel, or a toolkit has it; a search of the disk comes last, as it takes long.
folder_of() {  # LIBRARY
  local found folder
  found=$(ldconfig -p 2>/dev/null | awk -v name="$1" 'index($1, name) == 1 {print $NF; exit}')
  if [[ -z $found ]]; then
    for folder in {/opt/*/.venv,/opt/*,/usr,/usr/local,"${HOME:-/root}"/.local}/lib/python3*/{site,dist}-packages/nvidia/*/lib \
      /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib; do
      if [[ -e $folder/$1 ]]; then
        found=$folder/$1
        break
      fi
    done
  fi
  if [[ -z $found ]]; then
    found=$(timeout 20 find /usr/local /opt /usr/lib "${HOME:-/root}" -name "$1*" 2>/dev/null | head -1)
  fi
  if [[ -n $found ]]; then dirname "$found"; fi
}
cublas=$(folder_of libcublasLt.so.13)
nccl=${TESSERA_RUN_NCCL-$(folder_of libnccl.so.2)}
own=(env "LD_LIBRARY_PATH=$here/lib${nccl:+:$nccl}${cublas:+:$cublas}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")

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
