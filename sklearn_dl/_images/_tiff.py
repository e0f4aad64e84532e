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

from sklearn_dl._images._channels import Selection
from sklearn_dl._images._errors import TIFF_MARKS
from sklearn_dl._images._formats import (
    Meaning,
    Note,
    check_size,
    raw_mode,
    refuse_channels,
    refuse_signed,
    tiles_as,
)
from sklearn_dl._images._samples import noted

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
_INKS, _RAW = 5, 34892  # photometric interpretations whose bands can be taken as bands
_SAMPLES, _TEXT = 277, 270
_NAMES = (".tif", ".tiff")


def tiff_meaning(image: Any) -> Meaning:
    """Return what the samples of a TIFF that Pillow has opened mean."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return Meaning()
    bits, kind = max(tags.get(258, (1,))), tags.get(339, (1,))[0]
    if kind == 2:
        refuse_signed(bits)
    extra = tags.get(338, ())
    if tags.get(_SAMPLES) == 2 and {1, 2}.isdisjoint(extra):
        refuse_channels(2, bits)
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


def needs_tifffile(content: str | bytes, channels: Selection | None) -> bool:
    """Tell whether a file is a TIFF with more than Pillow makes of it."""
    if isinstance(content, str) and not (channels and channels.stored != 1):
        if not content.lower().endswith(_NAMES):
            return False  # others aren't opened twice
    tags = _first_tags(content)
    if tags is None:
        return False
    several = bool(tags.next) or "ImageJ=" in str(tags.get(_TEXT, ""))
    return _is_beyond(tags, channels, several)


def _is_beyond(tags: Any, channels: Selection | None, several: bool) -> bool:
    """Tell by the tags of a page, one of several or not, what `needs_tifffile` does."""
    samples = tags.get(_SAMPLES, 1)
    from PIL.TiffImagePlugin import MAX_SAMPLESPERPIXEL

    if samples > MAX_SAMPLESPERPIXEL:  # Pillow would also log it
        return True
    if channels is None or channels.stored == 1:
        return False
    if samples == 1:
        return several  # each may be a band
    return channels.bands and samples != 3


def _first_tags(content: str | bytes) -> Any:
    """Return the tags of the first page; None for a damaged TIFF and other files."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2  # with the first TIFF

    try:
        with _file(content) as file:
            head = file.read(16)
            if not head.startswith(TIFF_MARKS):
                return None
            tags = ImageFileDirectory_v2(head if head[2] == 43 else head[:8])
            file.seek(tags.next)
            tags.load(file)
            return tags
    except (*_DAMAGES, SyntaxError, ValueError, TypeError):
        return None


def _file(content: str | bytes) -> Any:
    return io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb")


def choose_page(image: Any, note: Note, channels: Selection | None) -> bool:
    """Bring an opened file to its picture; False where tifffile alone can read it."""
    # Pillow mixes up the bands of deep planar images.
    if image.tag_v2.get(_PLANAR) == 2 and max(image.tag_v2.get(258, (1,))) > 8:
        return False
    several = getattr(image, "is_animated", False)
    if not _is_picture(image):
        page = next(_pictures(image), None)
        if page is None and image.tag_v2.get(_SUB_IFDS):
            return False
        try:
            image.seek(page or 0)
        except SyntaxError:
            return False
        if _is_beyond(image.tag_v2, channels, False):
            return False
    text = str(image.tag_v2.get(_TEXT, ""))
    planes = re.search(r"^images=(\d+)", text, re.M) if "ImageJ=" in text else None
    n_pages = int(planes[1]) if planes else 1
    if n_pages == 1 and several:
        here = image.tell()
        n_pages = 1 + sum(1 for _ in islice(_pictures(image), _COUNTED))
        image.seek(here)
    if n_pages > 1:
        note(_PAGES, _pages_text(n_pages))
    return True


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


def read_beyond_pillow(
    content: str | bytes, note: Note, channels: Selection | None = None
) -> np.ndarray:
    """Read what Pillow can't: pixels (H, W, 1 or 3), or all bands if so asked for."""
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
            bands = channels is not None and channels.bands
            _refuse(page, bands)
            values = _stack(tiff, page, channels)
            if values is None:
                values = _samples(page)
                if len(pages) > 1:
                    note(_PAGES, _pages_text(len(pages)))
            bands |= values.ndim == 3 and page.samplesperpixel == 1
            return _turned(_scaled(values, page, bands, note), page)
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


def _stack(tiff: Any, page: Any, channels: Selection | None) -> np.ndarray | None:
    """Return the pages of a TIFF that has one for each band, (H, W, C); else None."""
    if channels is None or channels.stored == 1 or page.samplesperpixel > 1:
        return None
    offset = page.offset
    series: Any = next((s for s in tiff.series if s.keyframe.offset == offset), None)
    sizes = {} if series is None else dict(zip(series.axes, series.shape, strict=True))
    others = [axis for axis in sizes if axis not in "YX" and sizes[axis] > 1]
    if not others or not {"Y", "X"} <= sizes.keys():
        return None
    if not channels.bands and (len(others) > 1 or sizes[others[0]] != channels.n):
        return None  # a photograph, with further pages
    if len(others) > 1:
        raise ValueError(
            f"a TIFF of axes {series.axes} and shape {series.shape}, not one image: "
            f"{_WAY_OUT}"
        )
    order = [series.axes.index(axis) for axis in ("Y", "X", *others)]
    rest = [k for k in range(len(series.shape)) if k not in order]
    shape = [series.shape[k] for k in order]
    return series.asarray().transpose(*order, *rest).reshape(shape)


def _every_picture(tiff: Any) -> Iterator[Any]:
    """Yield the pages that are pictures, as `_is_picture` has it, and those in them."""
    for page in tiff.pages:
        page = page.aspage()
        within = [sub.aspage() for sub in page.pages] if page.subifds else []
        yield from (one for one in [page, *within] if not one.subfiletype & 0b101)


def _refuse(page: Any, bands: bool) -> None:
    """Refuse what has no black and white, or no three colours."""
    bits, samples = page.bitspersample, page.samplesperpixel
    if page.sampleformat == 2:
        refuse_signed(bits)
    if page.sampleformat not in (1, 3):
        raise ValueError(f"a TIFF of complex or undefined numbers: {_WAY_OUT}")
    colour = page.photometric == _COLOUR
    # of which tifffile's JPEG makes RGB
    colour |= page.photometric == _YCBCR and page.compression in _JPEG
    colour |= bands and page.photometric in (_INKS, _RAW)
    alphas = sum(1 for extra in page.extrasamples if extra in (1, 2))
    if not colour and page.photometric not in _GREY:
        name = getattr(page.photometric, "name", page.photometric)
        raise ValueError(f"a TIFF of {name} pixels of {bits} bits: {_WAY_OUT}")
    if not (bands or colour) and samples - alphas not in (1, 3):
        refuse_channels(samples, bits)
    if page.imagedepth > 1:
        raise ValueError(f"a TIFF of {page.imagedepth} layers: {_WAY_OUT}")


def _unpacked(page: Any) -> np.ndarray:
    """Read samples of 10, 12 or 14 bits without imagecodecs; lines begin at bytes."""
    if page.compression != 1 or page.is_tiled or page.fillorder != 1:
        raise ImportError(
            f"a TIFF of {page.bitspersample} bits needs imagecodecs: "
            "pip install 'sklearn_dl[tiff]'"
        )
    file, bits, strips = page.parent.filehandle, page.bitspersample, []
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        strips.append(file.read(size))
    lines = np.frombuffer(b"".join(strips), np.uint8)
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


def _turned(pixels: np.ndarray, page: Any) -> np.ndarray:
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    down, right = _STEPS.get(orientation, (1, 1))
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[::down, ::right])


def _scaled(values: np.ndarray, page: Any, bands: bool, note: Note) -> np.ndarray:
    """Return the colours, or all bands, in [0, 1] or as uint8, as the tags say."""
    if values.ndim == 2:
        values = values[..., None]
    samples, extra = values.shape[-1], tuple(page.extrasamples)
    colours = 3 if samples - sum(e in (1, 2) for e in extra) >= 3 else 1
    colours = samples if bands else colours
    premultiplied = 1 in extra and samples > colours
    alpha = values[..., colours + extra.index(1)] if premultiplied else None
    values = values[..., :colours]
    white = 1 if values.dtype.kind == "f" else (1 << page.bitspersample) - 1
    if values.dtype.kind == "f":
        pixels = values.astype(np.float32)
    elif white == 255 and page.photometric != 0 and alpha is None:
        return values
    else:
        pixels = (values / np.float64(white)).astype(np.float32)
        alpha = None if alpha is None else alpha / white
    if page.photometric == 0:
        pixels = 1 - pixels
    if alpha is not None:
        pixels = pixels + (1 - alpha[..., None]).astype(np.float32)
    if page.bitspersample <= 8:
        return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return noted(
        pixels, values.dtype, float(values.min()), float(values.max()), white, note
    )
