#!/usr/bin/env bash
# Pillow 13 makes other pixels of a tall image by the same resize than Pillow 12.
#
# Pillow 12.3.0 and 13.0.0, numpy 2.4.6, Python 3.11. Image.resize works in two passes and
# rounds to 8 bits between them. In 12 the width goes first; in 13 an image three times as
# high as wide that becomes smaller has its height resized first (of 2 to 3 it has not). With
# a filter that overshoots (bicubic) what is cut off at 0 and 255 between the passes differs,
# so noise and sharp edges come out many levels apart. A wide image is the same in both. One
# would guess that resizing is fixed to the bit across versions of one library. It matters
# to features of tall photographs (a pretrained network with bicubic preprocessing), to
# caches of them, and to tests that compare pixels to the bit.
#
# Output seen (largest difference of a level, of 255):
#   wide bilinear 0, wide bicubic 0, tall bilinear 1, tall bicubic 10
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check \
        pillow==$version numpy==2.4.6
    "$folder/$version/bin/python" - "$folder/$version.npz" <<'PY'
import sys

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
noise = rng.integers(0, 256, (1200, 400, 3), "uint8")
found = {}
for shape, pixels in (("wide", noise.transpose(1, 0, 2)), ("tall", noise)):
    image = Image.fromarray(np.ascontiguousarray(pixels))
    size = (768, 256) if shape == "wide" else (256, 768)
    for name in ("BILINEAR", "BICUBIC"):
        found[f"{shape} {name.lower()}"] = np.asarray(
            image.resize(size, Image.Resampling[name])
        )
np.savez(sys.argv[1], **found)
PY
done
said=$("$folder/13.0.0/bin/python" - "$folder/12.3.0.npz" "$folder/13.0.0.npz" <<'PY'
import sys

import numpy as np

old, new = (np.load(path) for path in sys.argv[1:])
print(*(f"{k} {np.abs(old[k].astype(int) - new[k]).max()}" for k in old), sep=", ")
PY
)
echo "$said"
test "$said" = "wide bilinear 0, wide bicubic 0, tall bilinear 1, tall bicubic 10"
