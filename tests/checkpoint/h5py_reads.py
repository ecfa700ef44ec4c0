"""Reads a checkpoint with h5py: whole tensors from index.h5, and each dataset of the shard files.

h5py_reads.py CHECKPOINT EXPECTED: EXPECTED holds NAME.bin with the bytes of tensor NAME ('/' written as '+'). With a third
argument FILE, that shard file is missing, and its rows must read as NaN. Ends with 77 when h5py is not installed.
"""

import os
import sys

try:
    import h5py
    import numpy as np
except ImportError as error:
    print(f"h5py cannot be imported: {error}")
    sys.exit(77)


def expected(folder, name, dtype):
    return np.fromfile(os.path.join(folder, name.replace("/", "+") + ".bin"), dtype=dtype)


def datasets(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def check_whole(checkpoint, folder):
    with h5py.File(os.path.join(checkpoint, "index.h5"), "r") as index:
        tensors = datasets(index)
        names = {name[: -len(".bin")].replace("+", "/") for name in os.listdir(folder)}
        assert set(tensors) == names, (set(tensors), names)
        for name, tensor in tensors.items():
            assert tensor.is_virtual, name
            if tensor.dtype.itemsize * tensor.size != os.path.getsize(os.path.join(folder, name.replace("/", "+") + ".bin")):
                raise AssertionError(f"{name}: {tensor.shape} {tensor.dtype}")
            assert tensor[()].tobytes() == expected(folder, name, tensor.dtype).tobytes(), name


def check_shards(checkpoint, folder):
    seen = 0
    for file_name in sorted(os.listdir(checkpoint)):
        if not (file_name.startswith("shard-") and file_name.endswith(".h5")):
            continue
        with h5py.File(os.path.join(checkpoint, file_name), "r") as shard:
            for name, dataset in datasets(shard).items():
                tensor, first, end = name.rsplit(".rows-", 1)[0], *map(int, name.rsplit(".rows-", 1)[1].split("-"))
                shape = tuple(dataset.attrs["global_shape"])
                assert dataset.attrs["first_row"][0] == first
                assert dataset.shape == (end - first,) + shape[1:], name
                assert dataset.chunks is None and dataset.id.get_offset() % 4096 == 0, name
                whole = expected(folder, tensor, dataset.dtype).reshape(shape)
                assert dataset[()].tobytes() == whole[first:end].tobytes(), name
                seen += 1
    assert seen > 0


def check_missing(checkpoint, missing):
    with h5py.File(os.path.join(checkpoint, "index.h5"), "r") as index:
        gone = 0
        for name, tensor in datasets(index).items():
            if tensor.dtype.kind != "f":
                continue
            for source in tensor.virtual_sources():
                if source.file_name != missing:
                    continue
                first, end = source.dset_name.rsplit(".rows-", 1)[1].split("-")
                assert np.isnan(tensor[int(first) : int(end)]).all(), name
                gone += 1
        assert gone > 0


if len(sys.argv) > 3:
    check_missing(sys.argv[1], sys.argv[3])
else:
    check_whole(sys.argv[1], sys.argv[2])
    check_shards(sys.argv[1], sys.argv[2])
print(f"h5py {h5py.__version__} reads it")
