#!/usr/bin/env bash
# From pytest 9.2, monkeypatch can't take back torch.backends.cuda.matmul.allow_tf32.
#
# pytest 9.2.0 beside 9.1.1, torch 2.14.1, Python 3.11, no GPU needed. Tests that compare
# a GPU with a CPU set this flag by monkeypatch.setattr for the length of a test. The flag
# lives behind __getattr__ and __setattr__ of its object, in no __dict__ and no property.
# Since 9.2 monkeypatch remembers what the __dict__ of an object held, finds nothing there,
# and takes back by delattr, which raises: each such test passes and then errors in its
# teardown, and the flag keeps the value of the test for all tests after it. One would
# guess that the value which getattr gave is set again, as it was until 9.1.
# torch.backends.cudnn.allow_tf32, a property, is taken back by both.
#
# Output seen:
#   pytest 9.1.1: 1 passed
#   pytest 9.2.0: 1 passed, 1 error (AttributeError); the flag afterwards: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$folder/test_flag.py" <<'PY'
import torch


def test_flag(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)


def teardown_module():
    print("flag:", torch.backends.cuda.matmul.allow_tf32)
PY
for version in 9.1.1 9.2.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pytest==$version"
    (cd "$folder" && venv/bin/python -m pytest -s -p no:cacheprovider test_flag.py > "$version" || true)
    echo "pytest $version: $(tail -1 "$folder/$version"); $(grep -o 'flag: .*' "$folder/$version")"
done
grep -q "1 passed in" "$folder/9.1.1"
grep -q "^E .*AttributeError.*allow_tf32" "$folder/9.2.0"
grep -q "1 passed, 1 error" "$folder/9.2.0"
grep -q "flag: True" "$folder/9.2.0"
grep -q "flag: False" "$folder/9.1.1"
