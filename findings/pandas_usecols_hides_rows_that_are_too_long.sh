#!/usr/bin/env bash
# With usecols, pandas.read_csv says nothing of rows that have more cells than the header.
#
# pandas 3.1.1, numpy 2.4.6. One would guess that to name the columns of interest only
# leaves the others out. It also switches the check of lengths off: where a comma in a
# label isn't quoted ("b.jpg,bee, honey,5"), the cells behind it move to the right, and
# a column gets the value of its neighbour in silence. Without usecols the same file is a
# ParserError that names the line. A table of paths and labels read by usecols=["path",
# "grams"] so trains on wrong targets; read it whole, then take the columns.
#
# Output seen:
#   whole: ParserError: Expected 3 fields in line 3, saw 4
#   usecols: ['3', ' honey']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 numpy==2.4.6
cat > "$folder/rows.py" <<'PY'
import io

import pandas as pd

text = "path,kind,grams\na.jpg,ant,3\nb.jpg,bee, honey,5\n"
try:
    pd.read_csv(io.StringIO(text))
except pd.errors.ParserError as error:
    print("whole: ParserError:", str(error).split("error: ")[1].strip())
else:
    raise SystemExit("the whole table was read")
grams = pd.read_csv(io.StringIO(text), usecols=["path", "grams"])["grams"].tolist()
print("usecols:", grams)
assert grams == ["3", " honey"]
PY
"$folder/venv/bin/python" "$folder/rows.py"
