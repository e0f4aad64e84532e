#!/usr/bin/env bash
# Pillow reads a planar RGB TIFF of 16 bits as other pixels, without an error.
#
# Pillow 13.0.0, tifffile 2026.3.3, Python 3.11. A TIFF of three colours of 16 bits may
# hold them pixel by pixel or plane by plane (PlanarConfiguration 2); microscopes and
# ImageJ write the latter. Pillow gives the upper bytes of the first kind, as it says.
# The second it opens in mode "RGB" too, but the planes are read as if they were of 8 bits:
# half of the pixels are lower bytes. One would guess that what Pillow opens without an
# error it reads right, or at least that both layouts of the same pixels agree. It
# matters to every loader that ends in Image.open(path).convert("RGB").
#
# Output seen, of an image whose pixels are all (40000, 20000, 10000):
#   contig [[156, 78, 39]]
#   separate [[64, 32, 16], [156, 78, 39]]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
said=$("$folder/venv/bin/python" - <<'PY'
import io

import numpy as np
import tifffile
from PIL import Image

colour = np.full((8, 8, 3), (40000, 20000, 10000), np.uint16)
for layout, values in ("contig", colour), ("separate", np.moveaxis(colour, -1, 0)):
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="rgb", planarconfig=layout)
    seen = np.asarray(Image.open(stream)).reshape(-1, 3)
    print(layout, np.unique(seen, axis=0).tolist())
PY
)
echo "$said"
[ "$said" = "contig [[156, 78, 39]]
separate [[64, 32, 16], [156, 78, 39]]" ]
