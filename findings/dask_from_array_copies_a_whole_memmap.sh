#!/usr/bin/env bash
# A Dask array of a memory-mapped file is a copy of the whole file in memory.
#
# dask 2026.8.0, numpy 2.4.6, Python 3.11. `dask.array.from_array(np.load(path,
# mmap_mode="r"), chunks=...)` looks lazy, as the map is: one would guess that each task
# maps the file where it runs and reads its own block. In fact the map is copied into
# memory at once, as other arrays are, and named by a hash of all its bytes: `name=False`
# saves the hash, not the copy. The copy isn't cut into blocks, but is one value of the
# graph, so that a cluster of processes sends it whole, through caller and scheduler, to
# each worker. What works is the path in the graph: `from_delayed` or
# `map_blocks` with a function that maps the file where it runs.
#
# Output seen, for a file of 67 MB in 16 blocks:
#   from_array: 67 MB copied, 67 MB in the graph
#   with name=False: 67 MB copied, 67 MB in the graph
#   by the path: 0 MB copied, 0 MB in the graph
# (growth of the process's unshared memory, and size of the pickled graph)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/site" \
  dask==2026.8.0 numpy==2.4.6
PYTHONPATH="$folder/site" python3 - "$folder/map.npy" <<'PY'
import pickle
import sys

import dask
import dask.array as da
import numpy as np

path = sys.argv[1]
np.save(path, np.random.default_rng(0).random((1 << 13, 1 << 10)))


def unshared():
    """Return the bytes of memory that are this process's own."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith("RssAnon:"))
    return int(found.split()[1]) * 1024


def block(start):
    return np.load(path, mmap_mode="r")[start : start + 512]


def by_path(mapped):
    blocks = [
        da.from_delayed(dask.delayed(block)(start), (512, 1024), float)
        for start in range(0, len(mapped), 512)
    ]
    return da.concatenate(blocks)


ways = {
    "from_array": lambda m: da.from_array(m, chunks=(512, -1)),
    "with name=False": lambda m: da.from_array(m, chunks=(512, -1), name=False),
    "by the path": by_path,
}
for name, make in ways.items():
    mapped, before = np.load(path, mmap_mode="r"), unshared()
    array = make(mapped)
    copied = round((unshared() - before) / 1e6)
    graph = round(len(pickle.dumps(dict(array.__dask_graph__()))) / 1e6)
    print(f"{name}: {copied} MB copied, {graph} MB in the graph")
    wanted = 0 if name == "by the path" else 67
    assert graph == wanted and abs(copied - wanted) < 9
    del array, mapped
PY
