#!/usr/bin/env bash
# Ctrl-C while torch.save writes to a Python file may come out as a RuntimeError.
#
# torch 2.14.1, numpy 2.4.6. One would guess that KeyboardInterrupt, which is no
# Exception, goes through torch.save as it does through file.write. It does where it
# comes while the pickle is written; where it comes while tensors are, the archive is
# closed on the way out, finds that bytes are missing, and raises a RuntimeError of its
# own, which takes the interrupt's place; that is left as its __context__. So
# `except RuntimeError` around torch.save, as for a full disk (whose OSError is replaced
# in the same way), swallows Ctrl-C, and a training loop goes on.
#
# Output seen, for an interrupt in each of the first writes:
#   RuntimeError with KeyboardInterrupt as its context: 24
#   KeyboardInterrupt: 20
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import collections
import io

import torch

print("torch", torch.__version__)


class Interrupted(io.BytesIO):
    """A file whose nth write is interrupted."""

    def __init__(self, n):
        self.left = n

    def write(self, data):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().write(data)


ends = collections.Counter()
for n in range(1, 60):
    try:
        torch.save({"a": torch.zeros(100_000), "b": torch.ones(5)}, Interrupted(n))
    except RuntimeError as error:
        ends[f"RuntimeError of {type(error.__context__).__name__}"] += 1
    except KeyboardInterrupt:
        ends["KeyboardInterrupt"] += 1
    else:
        break
print(dict(ends))
assert ends["RuntimeError of KeyboardInterrupt"] > 0
assert ends["KeyboardInterrupt"] > 0
PY
