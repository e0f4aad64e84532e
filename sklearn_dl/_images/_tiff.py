"""TIFF: which page, what its numbers mean, and files beyond Pillow through tifffile."""

import io
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from sklearn_dl._images._formats import (
    Meaning,
    Note,
    check_size,
    raw_mode,
    refuse_signed,
    tiles_as,
)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# What tifffile raises for a damaged file, beside its own error.
_DAMAGES = (IndexError, KeyError, OSError, struct.error, zlib.error)
_PAGES, _KIND, _SUB_IFDS, _PLANAR = "pages", 254, 330, 284
_WAY_OUT = "read it with tifffile (tifffile.imread(path)) and pass arrays"
_COUNTED = 99  # pages that are looked for, each time that a file is read
_BY_PATH = "pass its path, or the array of tifffile.imread(path)"
_OTHER_PAGES = "tifffile.imread(path, key=page) gives another as an array"
_COLOURS = ("RGB", "RGBA", "RGBX")  # modes of Pillow
_GREY, _COLOUR = (0, 1), 2  # photometric interpretations; 0 is white is zero
# The ends of raw modes of Pillow that read the upper bytes, and those for the lower.
_LOWER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
# Steps along lines and columns that undo an orientation; from 5 on after a transpose.
_STEPS = dict(enumerate([(1, 1), (1, -1), (-1, -1), (-1, 1)] * 2, start=1))
_YCBCR, _JPEG = 6, (6, 7)  # a photometric interpretation, and compressions


def tiff_meaning(image: Any) -> Meaning:
    """Return what the samples of a TIFF that Pillow has opened mean."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return Meaning()
    bits, kind = max(tags.get(258, (1,))), tags.get(339, (1,))[0]
    if kind == 2:
        refuse_signed(bits)
    extra = tags.get(338, ())
    raw = raw_mode(image).replace("RGBa", "RGBA")
    if image.tile and tags.get(_PLANAR) == 2 and bits > 8:
        raise ValueError(f"a planar TIFF, whose bands Pillow mixes up: {_BY_PATH}")
    passes: tuple[list[Any], ...] = ()
    if bits == 16 and image.mode in _COLOURS and raw[:-1].endswith(";16"):
        raws = raw, raw[:-1] + _LOWER[raw[-1]]
        passes = tuple(tiles_as(image, raw) for raw in raws)
    return Meaning(
        white=(1 << bits) - 1 if kind == 1 and image.mode[0] == "I" else None,
        inverted=bits > 8 and tags.get(262) == 0,
        # Pillow has undone the multiplication of 8 bits
        alpha="none" if 1 not in extra else "premultiplied" if passes else "straight",
        passes=passes,
    )


def choose_page(image: Any, content: Any, note: Note) -> np.ndarray | None:
    """Bring a file that Pillow has opened to its picture, past thumbnails and masks.

    The pixels are returned where tifffile alone can reach it, or knows how it lies:
    Pillow mixes up the bands of deep planar images.
    """
    if image.tag_v2.get(_PLANAR) == 2 and max(image.tag_v2.get(258, (1,))) > 8:
        return read_beyond_pillow(content, note)
    several = getattr(image, "is_animated", False)
    if not _is_picture(image):
        page = next(_pictures(image), None)
        if page is None and image.tag_v2.get(_SUB_IFDS):
            return read_beyond_pillow(content, note)
        try:
            image.seek(page or 0)
        except SyntaxError:
            return read_beyond_pillow(content, note)
    text = str(image.tag_v2.get(270, ""))
    planes = re.search(r"^images=(\d+)", text, re.M) if "ImageJ=" in text else None
    n_pages = int(planes[1]) if planes else 1
    if n_pages == 1 and several:
        here = image.tell()
        n_pages = 1 + sum(1 for _ in islice(_pictures(image), _COUNTED))
        image.seek(here)
    if n_pages > 1:
        note(_PAGES, _pages_text(n_pages))
    return None


def _pages_text(n_pages: int) -> str:
    many = "at least " if n_pages > _COUNTED else ""
    return f"holds {many}{n_pages} pages, of which the first is read: {_OTHER_PAGES}."


def _is_picture(image: Any) -> bool:
    """Tell whether a page is neither a smaller copy nor a mask of another."""
    return not int(image.tag_v2.get(_KIND, 0)) & 0b101


def _pictures(image: Any) -> Iterator[int]:
    """Yield the pages behind this one that are pictures."""
    page = image.tell()
    while True:
        page += 1
        try:
            image.seek(page)
        except EOFError:
            return
        except SyntaxError:  # of a kind beyond Pillow, but its tags are there
            pass
        if _is_picture(image):
            yield page


def read_beyond_pillow(content: str | bytes, note: Note) -> np.ndarray:
    """Read what Pillow can't, as (H, W, 1 or 3) pixels.

    They are uint8, or float32 in [0, 1] for samples of more than 8 bits.
    """
    try:
        import tifffile
    except ImportError:
        raise ImportError(
            "a TIFF that needs tifffile: pip install 'sklearn_dl[tiff]'"
        ) from None
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        with tifffile.TiffFile(file) as tiff:
            pages = list(islice(_every_picture(tiff), _COUNTED + 1))
            page: Any = pages[0] if pages else tiff.pages[0]
            check_size(page.imagewidth, page.imagelength)
            if len(pages) > 1:
                note(_PAGES, _pages_text(len(pages)))
            _refuse(page)
            return _turned(_scaled(_samples(page), page), page)
    except (tifffile.TiffFileError, *_DAMAGES) as error:
        raise ValueError(f"a damaged or truncated TIFF: {error}") from error


def _samples(page: Any) -> np.ndarray:
    """Return the samples of a page, (H, W) or (H, W, C)."""
    try:
        values = page.asarray()
    except NotImplementedError:
        values = _unpacked(page)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise ValueError(f"a damaged or truncated TIFF: {error}") from error
        raise ImportError(
            f"a TIFF with compression {page.compression.name} needs imagecodecs: "
            "pip install 'sklearn_dl[tiff]'"
        ) from None
    planar = page.planarconfig == 2 and values.ndim == 3
    return np.moveaxis(values, 0, -1) if planar else values


def _every_picture(tiff: Any) -> Iterator[Any]:
    """Yield the pages that are pictures, as `_is_picture` has it, and those in them."""
    for page in tiff.pages:
        page = page.aspage()
        within = [sub.aspage() for sub in page.pages] if page.subifds else []
        yield from (one for one in [page, *within] if not one.subfiletype & 0b101)


def _refuse(page: Any) -> None:
    """Refuse what has no black and white, or no three colours."""
    bits, samples = page.bitspersample, page.samplesperpixel
    if page.sampleformat == 2:
        refuse_signed(bits)
    if page.sampleformat not in (1, 3):
        raise ValueError(f"a TIFF of complex or undefined numbers: {_WAY_OUT}")
    colour = page.photometric == _COLOUR
    # of which tifffile's JPEG makes RGB
    colour |= page.photometric == _YCBCR and page.compression in _JPEG
    alphas = sum(1 for extra in page.extrasamples if extra in (1, 2))
    if not colour and page.photometric not in _GREY:
        name = getattr(page.photometric, "name", page.photometric)
        raise ValueError(f"a TIFF of {name} pixels of {bits} bits: {_WAY_OUT}")
    if not colour and samples - alphas not in (1, 3):
        raise ValueError(
            f"a TIFF of {samples} channels of {bits} bits: an estimator with "
            f"image_shape=Channels({samples}) takes it (sklearn_dl.datasets.Channels)"
        )
    if page.imagedepth > 1:
        raise ValueError(f"a TIFF of {page.imagedepth} layers: {_WAY_OUT}")


def _unpacked(page: Any) -> np.ndarray:
    """Read samples that lie across bytes, 10, 12 or 14 bits each, without imagecodecs.

    Lines begin at whole bytes.
    """
    if page.compression != 1 or page.is_tiled or page.fillorder != 1:
        raise ImportError(
            f"a TIFF of {page.bitspersample} bits needs imagecodecs: "
            "pip install 'sklearn_dl[tiff]'"
        )
    file, bits = page.parent.filehandle, page.bitspersample
    lines = np.frombuffer(_strips(page, file), np.uint8)
    shape = page.shape if page.planarconfig == 1 else page.shape[1:]
    per_line = int(np.prod(shape[1:]))
    stride = (per_line * bits + 7) // 8
    lines = lines[: len(lines) // stride * stride].reshape(-1, stride)
    values = np.empty((len(lines), per_line), np.uint16)
    weights = 1 << np.arange(bits, dtype=np.uint16)[::-1]
    for k, line in enumerate(lines):
        ones = np.unpackbits(line)[: per_line * bits].reshape(per_line, bits)
        values[k] = ones @ weights
    return values.reshape(page.shape)


def _strips(page: Any, file: Any) -> bytes:
    parts = []
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        parts.append(file.read(size))
    return b"".join(parts)


def _turned(pixels: np.ndarray, page: Any) -> np.ndarray:
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    down, right = _STEPS.get(orientation, (1, 1))
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[::down, ::right])


def _scaled(values: np.ndarray, page: Any) -> np.ndarray:
    """Return the colours of a page in [0, 1] or as uint8, as its tags say."""
    if values.ndim == 2:
        values = values[..., None]
    samples, extra = values.shape[-1], tuple(page.extrasamples)
    colours = 3 if samples - sum(e in (1, 2) for e in extra) >= 3 else 1
    premultiplied = 1 in extra and samples > colours
    alpha = values[..., colours + extra.index(1)] if premultiplied else None
    values = values[..., :colours]
    if values.dtype.kind == "f":
        pixels = values.astype(np.float32)
    else:
        white = (1 << page.bitspersample) - 1
        pixels = (values / np.float64(white)).astype(np.float32)
        alpha = None if alpha is None else alpha / white
    if page.photometric == 0:
        pixels = 1 - pixels
    if alpha is not None:
        pixels = pixels + (1 - alpha[..., None]).astype(np.float32)
    if page.bitspersample <= 8:
        return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return pixels
