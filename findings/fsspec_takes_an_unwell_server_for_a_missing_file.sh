#!/usr/bin/env bash
# A web server that is unwell looks as if the file were missing, to fsspec's `open`.
#
# fsspec 2026.9.0, aiohttp 3.14.5, Python 3.11. The server answers 503 to all, which
# says "come again". `open` raises FileNotFoundError, `exists` says False, and
# `cat_file` raises aiohttp's ClientResponseError, which is no OSError; nothing is asked
# again. One would guess the same error of the three, an OSError that is not
# FileNotFoundError, and attempts of its own, as the drivers of clouds make. It matters
# to whoever reads a million images: those that a busy server refused for a second are
# noted as missing, and `except OSError` doesn't catch the others.
#
# Output seen:
#   open: FileNotFoundError; exists: False, asked once; cat_file: ClientResponseError, an OSError: False, asked once
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" \
  fsspec==2026.9.0 aiohttp==3.14.5
seen=$(PYTHONPATH="$folder" python3 - <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import fsspec


class Unwell(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Unwell.asked += 1
        self.send_error(503)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Unwell)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/1.png"
system = fsspec.filesystem("http")
try:
    system.open(url).read()
except Exception as error:
    opened = type(error).__name__
Unwell.asked = 0
there, times = system.exists(url), Unwell.asked
Unwell.asked = 0
try:
    system.cat_file(url)
except Exception as error:
    read = f"{type(error).__name__}, an OSError: {isinstance(error, OSError)}"
words = {1: "once"}
print(
    f"open: {opened}; exists: {there}, asked {words.get(times, times)}; "
    f"cat_file: {read}, asked {words.get(Unwell.asked, Unwell.asked)}"
)
PY
)
echo "$seen"
[ "$seen" = "open: FileNotFoundError; exists: False, asked once; cat_file: ClientResponseError, an OSError: False, asked once" ]
