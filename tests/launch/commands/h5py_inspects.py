"""Reads whole tensors from a checkpoint's index.h5 with h5py, and compares them with what `checkpoint inspect --json` says.

h5py_inspects.py CHECKPOINT INSPECTED: INSPECTED is a file with that JSON object. Ends with 77 when h5py is not installed.
"""

import json
import math
import os
import sys

try:
    import h5py
    import numpy as np
except ImportError as error:
    print(f"h5py cannot be imported: {error}")
    sys.exit(77)

with open(sys.argv[2], encoding="utf-8") as file:
    inspected = json.load(file)["tensors"]
assert inspected
with h5py.File(os.path.join(sys.argv[1], "index.h5"), "r") as index:
    for row in inspected:
        values = index[row["tensor"]][()]
        assert list(values.shape) == row["shape"], row
        values = values.astype(np.float64).ravel()
        assert values.min() == row["min"] and values.max() == row["max"], row
        assert np.count_nonzero(values == 0) == row["zeros"], row
        scale = max(np.abs(values).max(), 1e-300)  # squares of what is here may be too large
        norm = scale * math.sqrt(math.fsum((values / scale) ** 2))
        assert abs(norm - row["norm"]) <= values.size * 2**-52 * norm, (row, norm)  # sums in another order
        exponents = np.frexp(np.abs(values[values != 0]))[1] - 1
        assert {e: c for e, c in row["magnitudes"]} == dict(zip(*np.unique(exponents, return_counts=True))), row
print(f"h5py {h5py.__version__} finds the same in {len(inspected)} tensors")
