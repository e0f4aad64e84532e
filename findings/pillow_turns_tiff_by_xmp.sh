#!/usr/bin/env bash
# Pillow turns a TIFF whose XMP packet has an orientation, in loading; no other format.
#
# Pillow 13.0.0, tifffile 2026.3.3, Python 3.11. It is well known that Image.open leaves
# the EXIF orientation to ImageOps.exif_transpose. For TIFF that isn't so: loading turns
# the pixels. Less known is that it asks an XMP packet too where the file's own tag 274 is
# missing, so that `tiff:Orientation="6"`, left over by an editor, swaps width and height
# between Image.open and load. The same packet in a PNG or WebP file changes nothing until
# exif_transpose is called, and then it does. tifffile, OpenCV and libtiff don't read XMP.
# It matters to whoever compares sizes, boxes or masks with an image read twice.
#
# Output seen, (width, height) after open, after load, after exif_transpose:
#   TIFF (8, 4) (4, 8) (4, 8)
#   PNG (8, 4) (8, 4) (4, 8)
#   WEBP (8, 4) (8, 4) (4, 8)
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
from PIL import Image, ImageOps, PngImagePlugin

xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
values, files = np.zeros((4, 8, 3), np.uint8), {}
for name in ("TIFF", "PNG", "WEBP"):
    files[name] = stream = io.BytesIO()
    if name == "TIFF":
        tag = (700, 1, len(xmp), xmp.encode(), True)
        tifffile.imwrite(stream, values, photometric="rgb", extratags=[tag])
    elif name == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        Image.fromarray(values).save(stream, name, pnginfo=info)
    else:
        Image.fromarray(values).save(stream, name, xmp=xmp.encode())
for name, stream in files.items():
    image = Image.open(stream)
    opened = image.size
    image.load()
    print(name, opened, image.size, ImageOps.exif_transpose(image).size)
PY
)
echo "$said"
[ "$said" = "TIFF (8, 4) (4, 8) (4, 8)
PNG (8, 4) (8, 4) (4, 8)
WEBP (8, 4) (8, 4) (4, 8)" ]
