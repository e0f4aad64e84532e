#!/usr/bin/env bash
# GPU tests and benchmarks in nine minutes: one table of figures, with versions.
#
#     examples/benchmarks/gpu.sh --wheels wheels --out gpu-figures
#     examples/benchmarks/gpu.sh --device cpu --small        # a dry run
#
# It runs the tests marked `gpu`, then extraction, fine-tuning, a head and latency on the
# device, each against the bare network and a plain loop. The table, figures.md in the
# folder of --out, has each part's rows as soon as it has ended: who is cut off keeps
# them. A part that takes longer than its limit is ended, and named in the table.
#
#   --device NAME    torch's name of the device (cuda)
#   --out FOLDER     where figures.md and the parts' logs go (gpu-figures)
#   --wheels FOLDER  wheels of packages that this Python lacks, such as skorch's; without
#                    it, a folder `wheels` here, or in the repository's root
#   --data FOLDER    photographs for the parts on files; otherwise some are drawn
#   --seconds N      limit of the whole (540)
#   --python NAME    which Python (python3)
#   --small          few images and turns: to see that it runs
#
# A machine without a network gets the wheels along:
#
#     python3 -m pip download --no-deps -d wheels skorch
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
device=cuda out=gpu-figures wheels="" data="" seconds=540 python=python3 small=""
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=1; shift; continue ;;
        --help | -h) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit ;;
        --device | --out | --wheels | --data | --seconds | --python)
            [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
            printf -v "${1#--}" %s "$2"; shift 2 ;;
        *) echo "unknown option $1; see --help" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
table=$out/figures.md
if [ -z "$wheels" ]; then
    for folder in "$PWD/wheels" "$root/wheels"; do
        if [ -d "$folder" ]; then wheels=$folder; break; fi
    done
fi
if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
        --upgrade --target "$out/packages" "$wheels"/*.whl
fi
export PYTHONPATH="$root:$out/packages${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1

# Ends at once, with a reason, where the parts could not run.
about=$("$python" - "$root" "$device" <<'PY'
import sys

sys.path.insert(0, sys.argv[1] + "/examples/benchmarks")
import torch

if sys.argv[2].startswith("cuda") and not torch.cuda.is_available():
    sys.exit("torch finds no CUDA device here; --device cpu is a dry run")
import harness
import skorch  # noqa: F401
import sklearn_dl

print(f"sklearn_dl {sklearn_dl.__version__}; {harness.machine()}")
PY
)
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo "no git")
{
    echo "# Figures on $device"
    echo
    echo "\`gpu.sh --device $device${small:+ --small}\`; commit $commit; $about"
    echo
    echo "| part | contender | figures |"
    echo "|---|---|---|"
} > "$table"
begun=$SECONDS

# part NAME LIMIT COMMAND...: run within a limit, then add the rows of its tables.
part() {
    local name=$1 limit=$2 left=$((seconds - SECONDS + begun)) code=0 start=$SECONDS
    shift 2
    local log=$out/${name// /-}.log tables=$out/${name// /-}.md
    if [ "$left" -lt 15 ]; then
        echo "| $name | | left out: no time |" >> "$table"
        return
    fi
    [ "$limit" -lt "$left" ] || limit=$left
    echo "== $name (at most $limit s)"
    rm -f "$tables"
    timeout --kill-after=5 "$limit" "$@" > "$log" 2>&1 || code=$?
    if [ -f "$tables" ]; then rows < "$tables" >> "$table"; fi
    local took=$((SECONDS - start))
    case $code in
        0) ;;
        124 | 137) echo "| $name | | ended after $took s, its limit |" >> "$table" ;;
        *) echo "| $name | | failed with $code: see its log |" >> "$table" ;;
    esac
    tail -n 3 "$log"
}

# A benchmark's tables, each row with its title and the names of its columns.
rows() {
    awk -F ' *[|] *' '
        /^### / { title = substr($0, 5); header = 1; next }
        /^\|---/ || !/^\|/ { next }
        header { n = NF; for (i = 3; i < n; i++) column[i] = $i; header = 0; next }
        {
            text = ""
            for (i = 3; i < n; i++) text = text (i > 3 ? "; " : "") column[i] " " $i
            print "| " title " | " $2 " | " text " |"
        }'
}

benchmark() { # NAME LIMIT SCRIPT OPTIONS...
    local name=$1 limit=$2 script=$3
    shift 3
    part "$name" "$limit" "$python" "$root/examples/benchmarks/$script" "$@" \
        --device "$device" --output "$out/${name// /-}.md"
}

part "gpu tests" 150 "$python" -m pytest "$root/tests/gpu" -m gpu -q --rootdir "$root" \
    -c "$root/pyproject.toml" -p no:cacheprovider --durations=5
said=$(grep -E '(passed|failed|skipped|deselected|error).* in [0-9.]+s' "$out/gpu-tests.log" | tail -1 || true)
echo "| gpu tests | | ${said//=/} |" >> "$table"

networks=(resnet18 resnet50) images=2048 rounds=3 calls=50 batch=256 half=bfloat16
if [ -n "$small" ]; then networks=(squeezenet1_1) images=8 rounds=1 calls=2 batch=4; fi
sizes=(--images "$images" --batch-size "$batch" --rounds "$rounds")
files=(--form files)
if [ -n "$data" ]; then files+=(--data "$data"); fi
last=${networks[-1]}
bare=(--contenders "bare limit" "plain loop")
loops=(--contenders "tuned loop" "plain loop")

benchmark "extraction" 70 extraction.py --backbones "${networks[@]}" "${sizes[@]}" "${bare[@]}"
benchmark "extraction $half" 60 extraction.py --backbones "${networks[@]}" "${sizes[@]}" \
    --contenders "bare limit" --precision $half
benchmark "fine-tuning" 60 training.py --backbones "$last" "${sizes[@]}" "${loops[@]}"
benchmark "fine-tuning $half" 50 training.py --backbones "$last" "${sizes[@]}" \
    --contenders "tuned loop" --precision $half
benchmark "head" 50 training.py --part head --backbones "$last" "${sizes[@]}" \
    --contenders "bare limit"
benchmark "latency" 50 latency.py --backbones "$last" --calls "$calls" --rounds "$rounds"
benchmark "extraction of files" 60 extraction.py "${files[@]}" --backbones "$last" \
    "${sizes[@]}" --contenders "bare limit" decoding
echo "== $((SECONDS - begun)) s; $table"
cat "$table"
