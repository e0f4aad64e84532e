#!/usr/bin/env bash
# The tests on the lowest versions that pyproject.toml allows, torch's among them.
#
#     tools/lowest_versions.sh                          # the default tests
#     tools/lowest_versions.sh python3.11 -m quick      # that Python, the quick part
#
# It makes an environment in build/lowest, where it stays for the next time, with exactly
# the lower bound of each package that is named, and of the extras but `export`, which
# needs a later torch. The tools that run tests keep the versions that pyproject.toml pins.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then python=$1; shift; fi
folder=build/lowest
"$python" -m venv "$folder"
"$folder/bin/python" - > "$folder/lowest.txt" <<'PY'
import re
import tomllib

extras = ["dask", "examples", "remote", "report", "tables", "tensorboard", "tiff"]
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
optional = project["optional-dependencies"]
wanted = list(project["dependencies"])
while extras:
    for text in optional[extras.pop()]:
        own = re.fullmatch(r"sklearn_dl\[(.*)\]", text)
        if own:
            extras += own[1].split(",")
        else:
            wanted.append(text)
lowest = {}
for text in wanted:
    name, bound = re.fullmatch(r"([\w-]+)>=([\w.]+)", text).groups()
    known = lowest.get(name, "0")  # an extra may ask for a later one
    lowest[name] = max(known, bound, key=lambda v: [*map(int, v.split("."))])
for name, version in lowest.items():
    print(f"{name}=={version}")
for text in optional["dev"]:
    if text.startswith(("pytest", "rich")):
        print(text)
PY
cat "$folder/lowest.txt"
"$folder/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
    --requirement "$folder/lowest.txt"
"$folder/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable .
# Old packages use what their own dependencies have deprecated since.
quiet=()
for warning in Deprecation Future PendingDeprecation pytest.PytestRemovedIn10; do
    quiet+=(-W "ignore::${warning}Warning")
done
"$folder/bin/python" -m pytest -n auto "${quiet[@]}" "$@"
