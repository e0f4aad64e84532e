#!/usr/bin/env bash
# With pyarrow installed, pandas 3 can't make a column of paths that are no UTF-8.
#
# pandas 3.1.1, pyarrow 26.0.1, numpy 2.4.6. One would guess that any list of Python
# strings makes a Series, as it always did. Since pandas 3 text becomes the dtype "str",
# which pyarrow stores as UTF-8 where it is installed: what os.listdir gives for a name
# with other bytes (surrogates, PEP 383) is then a UnicodeEncodeError, in pd.Series, in
# DataFrame and in DataFrame.map. Without pyarrow the same line works, so that it depends
# on what else is installed. dtype=object keeps such names in both.
#
# Output seen:
#   without pyarrow: str
#   with pyarrow: UnicodeEncodeError; object
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 numpy==2.4.6
cat > "$folder/names.py" <<'PY'
import os
import sys

import pandas as pd

name = os.fsdecode(b"b\xff.png")  # as os.listdir gives it
try:
    found = str(pd.Series([name, "a.png"]).dtype)
except UnicodeEncodeError:
    found = "UnicodeEncodeError"
kept = pd.Series([name, "a.png"], dtype=object)
assert kept[0] == name
print("pandas", pd.__version__, found, kept.dtype)
assert found == sys.argv[1]
PY
"$folder/venv/bin/python" "$folder/names.py" str
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
"$folder/venv/bin/python" "$folder/names.py" UnicodeEncodeError
