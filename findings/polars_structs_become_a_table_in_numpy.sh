#!/usr/bin/env bash
# numpy makes a two-dimensional array of one polars column of structs.
#
# polars 2.1.0, pandas 3.1.1, pyarrow 26.0.1, numpy 2.4.6, Python 3.11. The same column
# {"bytes", "path"}, as Hugging Face's Parquet files hold images, is an object array of n
# dicts by np.asarray of a pandas Series and of a pyarrow ChunkedArray. Of a polars Series
# np.asarray makes (n, 2): the fields become columns, without their names. Of the frame
# with this one column it makes (n, 1), whose cells are arrays. One would guess that one
# column stays one column, so code that checks ndim takes images for rows of a table.
# to_list() gives the dicts.
#
# Output seen:
#   pandas (3,) dict; pyarrow (3,) dict; polars (3, 2) bytes; frame (3, 1) ndarray;
#   to_list dict
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 \
    pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
said=$("$folder/venv/bin/python" - <<'PY'
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

cells = [{"bytes": b"x", "path": None}] * 3
said = []
columns = {"pandas": pd.Series(cells), "pyarrow": pa.chunked_array([cells])}
for name, column in columns.items():
    array = np.asarray(column)
    said.append(f"{name} {array.shape} {type(array[0]).__name__}")
kind = pl.Struct({"bytes": pl.Binary, "path": pl.String})
column = pl.Series("image", cells, dtype=kind)
array = np.asarray(column)
said.append(f"polars {array.shape} {type(array[0, 0]).__name__}")
frame = np.asarray(column.to_frame())
said.append(f"frame {frame.shape} {type(frame[0, 0]).__name__}")
said.append(f"to_list {type(column.to_list()[0]).__name__}")
print("; ".join(said))
PY
)
echo "$said"
expected="pandas (3,) dict; pyarrow (3,) dict; polars (3, 2) bytes; frame (3, 1) ndarray"
[ "$said" = "$expected; to_list dict" ]
