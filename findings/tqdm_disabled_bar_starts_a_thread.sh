#!/usr/bin/env bash
# A progress bar that is switched off still starts a thread.
#
# tqdm 4.67.1, Python 3.11. `tqdm(disable=True)` shows nothing and counts nothing, but
# the class starts its monitor thread before it looks at `disable`: the process has one
# thread more from the first bar on, which lives until the process ends. One would guess
# that a bar that is off does nothing. It matters where processes are forked after a
# quiet call (data loaders, job queues): since Python 3.12, os.fork warns in a process
# with more than one thread. `tqdm.monitor_interval = 0` before the first bar prevents it;
# so does making no bar at all.
#
# Output seen:
#   as it comes: 1 2 TMonitor; with monitor_interval = 0: 1 1
# (threads before a bar that is off, threads after it, and the classes of the new ones)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" tqdm==4.67.1
count() { # extra line
  PYTHONPATH="$folder" python3 - <<PY
import threading
from tqdm import tqdm
$1
before = threading.active_count()
for _ in tqdm(range(3), disable=True):
    pass
names = [type(thread).__name__ for thread in threading.enumerate()[1:]]
print(before, threading.active_count(), *names)
PY
}
plain=$(count "")
quiet=$(count "tqdm.monitor_interval = 0")
echo "as it comes: $plain; with monitor_interval = 0: $quiet"
[ "$plain" = "1 2 TMonitor" ] && [ "$quiet" = "1 1" ]
