#!/usr/bin/env bash
# pandas.read_json makes numbers of JSON's texts, dtype=str only where names allow it.
#
# pandas 3.1.1, numpy 2.4.6. JSON says which values are texts, so one would guess that they
# stay so. By default "007" becomes 7 and "1e3" 1000.0: ids of files lose their zeros, and
# classes that are digits become numbers. dtype=str keeps them, but a column whose name
# looks like one of dates ("modified", or "..._at") is still turned into numbers. Only
# dtype=False leaves every value as the file has it.
#
# Output seen:
#   default: {'id': [7, 8], 'code': [1000.0, 2.0], 'modified': [12, 13]}
#   str: {'id': ['007', '008'], 'code': ['1e3', '2'], 'modified': [12, 13]}
#   False: {'id': ['007', '008'], 'code': ['1e3', '2'], 'modified': ['12', '13']}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 numpy==2.4.6
cat > "$folder/texts.py" <<'PY'
import io
import json

import pandas as pd

rows = [
    {"id": "007", "code": "1e3", "modified": "12"},
    {"id": "008", "code": "2", "modified": "13"},
]
text = "\n".join(map(json.dumps, rows))
found = {}
for name, options in (("default", {}), ("str", {"dtype": str}), ("False", {"dtype": False})):
    frame = pd.read_json(io.StringIO(text), lines=True, **options)
    found[name] = frame.to_dict("list")
    print(f"{name}: {found[name]}")
texts = {"id": ["007", "008"], "code": ["1e3", "2"], "modified": ["12", "13"]}
assert found["default"] == {"id": [7, 8], "code": [1000.0, 2.0], "modified": [12, 13]}
assert found["str"] == {**texts, "modified": [12, 13]}
assert found["False"] == texts
PY
"$folder/venv/bin/python" "$folder/texts.py"
