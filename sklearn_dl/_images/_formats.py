"""What the numbers of an image opened by Pillow mean, as its format says.

Pillow gives samples; the file says which number is white, and what an alpha means.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from sklearn_dl._images._errors import BOMB_ADVICE

Clear = int | tuple[int, ...]
Note = Callable[[str, str], None]  # what hears of something odd: its kind, a text


@dataclass(frozen=True)
class Meaning:
    """What the samples of an opened image mean."""

    white: int | None = None  # the sample that is white; None for that of the mode
    inverted: bool = False  # whether that sample is black instead, and 0 white
    # "premultiplied", or "none": the colours alone count; "none if empty": so where it
    # is zero everywhere; "kept": it is a channel like others.
    alpha: str = "straight"
    clear: Clear | None = None  # the sample, or colour, that is transparent
    # How Pillow reads the upper and the lower bytes of 16-bit colour, of which it keeps
    # the upper ones alone: values of `tile`. One where both come at once.
    passes: tuple[list[Any], ...] = ()
    # Where the image lies on the canvas; the rest is transparent.
    frame: tuple[int, int, int, int] | None = None


PLAIN = Meaning()


def check_size(width: int, height: int) -> None:
    """Refuse an image of more pixels than Pillow's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        size = f"{width} x {height} pixels"
        raise ValueError(f"{size}, more than the limit of {limit}. {BOMB_ADVICE}")


def refuse_signed(bits: int) -> None:
    """Say that signed numbers have no black and white."""
    raise ValueError(
        f"signed pixels (int{bits}), such as Hounsfield units: which of them are "
        "black and white isn't in the file. Scale them yourself to [0, 1] and pass "
        "arrays"
    )


def refuse_channels(n: int, bits: int) -> None:
    """Say how a TIFF is read whose channels are neither grey nor three colours."""
    raise ValueError(
        f"a TIFF of {n} channels of {bits} bits: an estimator with "
        f"image_shape=Channels({n}) takes it (sklearn_dl.datasets.Channels)"
    )


def raw_mode(image: Image.Image) -> str:
    """Return how an image that isn't loaded yet lies in its file, such as "RGB;16B"."""
    tile = getattr(image, "tile", None)
    if not tile:
        return ""
    args: Any = tile[0][3]
    return str(args[0] if isinstance(args, tuple) else args)


def tiles_as(image: Any, mode: str, codec: str | None = None) -> list[Any]:
    """Return how Pillow would read an image's samples in another raw mode."""
    tiles = []
    for tile in image.tile:  # plain tuples before Pillow 11
        name, box, offset, args = tile
        args = (mode, *args[1:]) if isinstance(args, tuple) else mode
        values = codec or name, box, offset, (mode, 0, 1) if codec else args
        tiles.append(values if type(tile) is tuple else type(tile)(*values))
    return tiles


def _png(image: Any) -> Meaning:
    """Find lower bytes of colour, and scale a transparent sample of few bits."""
    raw = raw_mode(image)
    clear = image.info.get("transparency") if image.mode not in ("P", "PA") else None
    if raw == "LA;16B":
        return Meaning(passes=(tiles_as(image, "RGBA"),))
    if raw.endswith(";16B") and image.mode in ("RGB", "RGBA"):
        lower = tiles_as(image, raw.replace("16B", "16L"))
        return Meaning(passes=(image.tile, lower), clear=clear)
    if isinstance(clear, int) and image.mode in ("1", "L"):
        bits = {"1": 1, "L;2": 2, "L;4": 4}.get(raw, 8)
        most = (1 << bits) - 1
        return Meaning(clear=(clear & most) * 255 // most)
    return Meaning(white=65535 if image.mode == "I" else None, clear=clear)


def _ppm(image: Any) -> Meaning:
    """Find lower bytes of colour; Pillow scales grey of any depth to 16 bits."""
    codec, args = image.tile[0][::3] if image.tile else ("", (0, 0))
    if codec == "ppm" and image.mode == "RGB" and args[1] > 255:
        raws = "RGB;16B", "RGB;16L"
        passes = tuple(tiles_as(image, raw, "raw") for raw in raws)
        return Meaning(white=args[1], passes=passes)
    return Meaning(white=65535 if image.mode == "I" else None)


def _jpeg2000(image: Any) -> Meaning:
    """Undo that Pillow shifts samples to 8 or 16 bits; take alpha by its box."""
    boxes = _jpeg2000_boxes(image.fp) if image.tile else {}
    siz = boxes.get(b"SIZ ", b"")
    if len(siz) < 39:
        return Meaning(alpha="none")
    bits, signed = (siz[38] & 0x7F) + 1, siz[38] & 0x80
    if signed:
        refuse_signed(bits)
    if bits > 8 and not image.mode.startswith("I"):
        raise ValueError(
            f"colour JPEG 2000 of {bits} bits: read it with imagecodecs "
            "(imagecodecs.imread(path)) or rasterio and pass arrays"
        )
    held = 16 if image.mode.startswith("I") else 8
    white = ((1 << bits) - 1) << (held - bits) if bits < held else None
    channels = boxes.get(b"cdef", b"")
    kinds = [kind for _, kind, _ in struct.iter_unpack(">HHH", channels[2:])]
    return Meaning(white=white, alpha="premultiplied" if 2 in kinds else "none")


def _jpeg2000_boxes(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the definition of channels (cdef) and the head of the codestream (SIZ)."""
    file.seek(0)
    if file.read(4) == b"\xff\x4f\xff\x51":
        return {b"SIZ ": file.read(64)}
    found, end = {}, file.seek(0, io.SEEK_END)
    position = 0
    while position + 16 <= end and b"SIZ " not in found:
        file.seek(position)
        size, kind, large = struct.unpack(">I4sQ", file.read(16))
        header = 16 if size == 1 else 8
        size = large if size == 1 else size or end - position
        file.seek(position + header)
        if kind == b"jp2c":
            found[b"SIZ "] = file.read(68)[4:]
        elif kind == b"cdef":
            found[kind] = file.read(size - header)
        # the header's boxes lie within it; others are passed over
        position += header if kind == b"jp2h" else max(size, header)
    return found


def _tga(image: Any) -> Meaning:
    """Read in the descriptor's lowest bits how many bits of a pixel are alpha."""
    if image.tile:
        image.fp.seek(17)
        if image.fp.read(1)[0] & 0x0F == 0:
            return Meaning(alpha="none")
    return Meaning(alpha="none if empty")


def _gif(image: Any) -> Meaning:
    """Return where the first frame lies, which need not cover the canvas."""
    frame = getattr(image, "dispose_extent", None)
    covers = frame is None or tuple(frame) == (0, 0, *image.size)
    return PLAIN if covers or image.tell() else Meaning(frame=frame)


def _fits(image: Any) -> Meaning:
    raise ValueError(
        "FITS, whose numbers are no grey levels: read it with astropy "
        "(fits.getdata(path)), scale to [0, 1] and pass arrays"
    )


def _empty_alpha(image: Any) -> Meaning:
    return Meaning(alpha="none if empty")


# What a format says beyond the mode that Pillow gives its images.
FORMATS: dict[str | None, Callable[[Any], Meaning]] = {
    "PNG": _png,
    "PPM": _ppm,
    "JPEG2000": _jpeg2000,
    "TGA": _tga,
    "ICO": _empty_alpha,
    "CUR": _empty_alpha,
    "BMP": _empty_alpha,
    "DIB": _empty_alpha,
    "GIF": _gif,
    "FITS": _fits,
}
