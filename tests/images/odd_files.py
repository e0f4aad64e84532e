"""Odd image files, made here, each with the pixels that its specification says.

`CASES` maps a name to a function that returns the bytes of a file and its pixels: an
array (H, W, 1 or 3) in [0, 1]. Most are stripes, eight pixels wide.
"""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 16, 8
CASES = {}
FRACTIONS = np.array([0, 0.25, 0.5, 1])
COLOURS = np.array([[0.1, 0.5, 0.9], [1, 0, 0.25], [0.6, 0.6, 0.6]])


def stripes(values, dtype=None):
    """Return an image with a stripe for each value, or each colour."""
    row = np.repeat(np.asarray(values, dtype=dtype), WIDTH, axis=0)
    return np.repeat(row[None], HEIGHT, axis=0)


def case(name):
    def add(make):
        CASES[name] = make
        return make

    return add


def grey(values):
    return stripes(values)[..., None]


# TIFF


def tiff(values, **tags):
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **{"photometric": "minisblack", **tags})
    return stream.getvalue()


def grey_tiff(dtype, white, order, zero, **tags):
    samples = np.rint(FRACTIONS * white).astype(dtype) if white > 1 else FRACTIONS
    pixels = samples / white
    if zero == "miniswhite":
        pixels = 1 - pixels
    values = stripes(samples, dtype)
    data = tiff(values, byteorder=order, photometric=zero, **tags)
    return data, grey(pixels)


for _dtype, _white in {"u1": 255, "u2": 65535, "u4": 2**32 - 1, "f4": 1}.items():
    for _order in "<>":
        for _zero in ("minisblack", "miniswhite"):
            CASES[f"tiff {_dtype} {_order} {_zero}"] = (
                lambda d=_dtype, w=_white, o=_order, z=_zero: grey_tiff(d, w, o, z)
            )
for _order in "<>":
    CASES[f"tiff f8 {_order}"] = lambda o=_order: grey_tiff("f8", 1, o, "minisblack")
CASES["tiff f2"] = lambda: grey_tiff("f2", 1, "<", "minisblack")
CASES["tiff u2 tiled"] = lambda: grey_tiff(
    "u2", 65535, "<", "minisblack", tile=(16, 16)
)
CASES["tiff u2 strips"] = lambda: grey_tiff(
    "u2", 65535, ">", "minisblack", rowsperstrip=3
)
CASES["tiff u2 big"] = lambda: grey_tiff("u2", 65535, "<", "minisblack", bigtiff=True)
CASES["tiff f4 big"] = lambda: grey_tiff("f4", 1, "<", "minisblack", bigtiff=True)
CASES["tiff u2 deflate"] = lambda: grey_tiff(
    "u2", 65535, ">", "minisblack", compression="zlib"
)
CASES["tiff u2 deflate miniswhite"] = lambda: grey_tiff(
    "u2", 65535, "<", "miniswhite", compression="zlib"
)


def packed(samples, bits, photometric=1, order="<", per_pixel=1):
    """Write samples across bytes; each line begins at a whole one."""
    width = len(samples) // per_pixel
    line = "".join(format(int(v), f"0{bits}b") for v in samples)
    line += "0" * (-len(line) % 8)
    data = int(line, 2).to_bytes(len(line) // 8, "big") * HEIGHT
    depths = (3, 1, bits) if per_pixel == 1 else (3, per_pixel, 0)
    tags = [(256, 3, 1, width), (257, 3, 1, HEIGHT), (258, *depths), (259, 3, 1, 1)]
    tags += [(262, 3, 1, photometric), (273, 4, 1, 0), (277, 3, 1, per_pixel)]
    tags += [(278, 3, 1, HEIGHT), (279, 4, 1, len(data))]
    behind = 8 + 2 + 12 * len(tags) + 4
    more = struct.pack(f"{order}{per_pixel}H", *[bits] * per_pixel)
    start = behind + (len(more) if per_pixel > 1 else 0)
    out = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    out += struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        value = {273: start, 258: behind if count > 1 else value}.get(tag, value)
        form = "HHIHH" if kind == 3 and count == 1 else "HHII"
        rest = (value, 0) if form == "HHIHH" else (value,)
        out += struct.pack(order + form, tag, kind, count, *rest)
    out += struct.pack(order + "I", 0) + (more if per_pixel > 1 else b"")
    return out + data


def packed_grey(bits, photometric, order="<"):
    white = 2**bits - 1
    samples = np.rint(FRACTIONS * white)
    pixels = samples / white if photometric else 1 - samples / white
    data = packed(np.repeat(samples, WIDTH), bits, photometric, order)
    return data, grey(pixels)


for _bits in (2, 4, 10, 12, 14):
    for _photometric in (0, 1):
        CASES[f"tiff of {_bits} bits, photometric {_photometric}"] = (
            lambda b=_bits, p=_photometric: packed_grey(b, p)
        )
CASES["tiff of 12 bits, big-endian"] = lambda: packed_grey(12, 1, ">")


@case("tiff of 12 bits, lines that end within a byte")
def _():
    samples = np.array([0, 4095, 1000, 4095, 17])
    return packed(samples, 12), np.tile((samples / 4095)[None, :, None], (HEIGHT, 1, 1))


@case("tiff of 12 bits, RGB")
def _():
    colours = np.rint(stripes(COLOURS)[0] * 4095)
    pixels = np.tile((colours / 4095)[None], (HEIGHT, 1, 1))
    return packed(colours.ravel(), 12, 2, per_pixel=3), pixels


def colour_tiff(dtype, order="<", **tags):
    white = np.iinfo(dtype).max
    values = np.rint(stripes(COLOURS) * white).astype(dtype)
    pixels = values / white
    if tags.get("planarconfig") == "separate":
        values = np.moveaxis(values, -1, 0)
    data = tiff(values, byteorder=order, **{"photometric": "rgb", **tags})
    return data, pixels


for _order in "<>":
    for _planar in ("contig", "separate"):
        for _how in ("rgb", "minisblack"):
            CASES[f"tiff colour u2 {_order} {_planar} {_how}"] = (
                lambda o=_order, p=_planar, h=_how: colour_tiff(
                    "u2", o, planarconfig=p, photometric=h
                )
            )
    CASES[f"tiff colour u2 {_order} deflate"] = lambda o=_order: colour_tiff(
        "u2", o, compression="zlib"
    )
CASES["tiff colour u1 planar"] = lambda: colour_tiff("u1", planarconfig="separate")
CASES["tiff colour u1 minisblack"] = lambda: colour_tiff(
    "u1", planarconfig="contig", photometric="minisblack"
)
CASES["tiff colour u4"] = lambda: colour_tiff("u4")


def tiff_with_extra(dtype, kind, n_colours=3):
    """Return colours beside a band that is tagged as an alpha, or as nothing."""
    white = np.iinfo(dtype).max
    colours = stripes(COLOURS)[..., :n_colours]
    band = stripes([0.2, 0.6, 1])[..., None]
    if kind == "assocalpha":
        colours = colours * band
    samples = np.rint(np.concatenate([colours, band], axis=-1) * white).astype(dtype)
    pixels = samples[..., :n_colours] / white
    if kind == "assocalpha":
        pixels = pixels + 1 - samples[..., n_colours:] / white
    how = "rgb" if n_colours == 3 else "minisblack"
    tags = {"photometric": how, "planarconfig": "contig", "extrasamples": [kind]}
    return tiff(samples, **tags), pixels


for _dtype in ("u1", "u2"):
    for _kind in ("unassalpha", "assocalpha", "unspecified"):
        CASES[f"tiff RGB and {_kind} {_dtype}"] = lambda d=_dtype, k=_kind: (
            tiff_with_extra(d, k)
        )
    CASES[f"tiff grey and unassalpha {_dtype}"] = lambda d=_dtype: tiff_with_extra(
        d, "unassalpha", 1
    )
    CASES[f"tiff grey and assocalpha {_dtype}"] = lambda d=_dtype: tiff_with_extra(
        d, "assocalpha", 1
    )


@case("tiff CMYK 16 bits")
def _():
    inks = np.rint(stripes(COLOURS) * 255)
    samples = np.concatenate([inks, np.zeros_like(inks[..., :1])], axis=-1) * 257
    data = tiff(samples.astype("u2"), photometric="separated", planarconfig="contig")
    return data, 1 - inks / 255


@case("tiff f8, orientation 6")
def _():
    data, pixels = grey_tiff(
        "f8", 1, "<", "minisblack", extratags=[(274, 3, 1, 6, True)]
    )
    return data, np.rot90(pixels, -1)


# PNG


def png(width, depth, colour, lines, extra=(), interlaced=False):
    def chunk(tag, data):
        checked = zlib.crc32(tag + data)
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", checked)

    header = struct.pack(
        ">IIBBBBB", width, HEIGHT, depth, colour, 0, 0, int(interlaced)
    )
    chunks = [
        (b"IHDR", header),
        *extra,
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def png_of(samples, depth, colour, extra=(), interlaced=False):
    """Write samples (H, W, C) without a filter."""
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first line and column, and steps
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b""
    for top, left, down, right in passes:
        for line in samples[top::down, left::right].reshape(
            len(range(top, len(samples), down)), -1
        ):
            bits = "".join(format(int(v), f"0{depth}b") for v in line)
            bits += "0" * (-len(bits) % 8)
            lines += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return png(samples.shape[1], depth, colour, lines, extra, interlaced)


def clear_grey_png(depth):
    """Return grey of which one sample is transparent, so white."""
    white = 2**depth - 1
    samples = stripes(sorted({0, white // 3, 2 * white // 3, white}), int)[..., None]
    clear = white // 3
    pixels = np.where(samples == clear, 1.0, samples / white)
    extra = [(b"tRNS", struct.pack(">H", clear))]
    return png_of(samples, depth, 0, extra), pixels


for _depth in (1, 2, 4, 8, 16):
    CASES[f"png grey {_depth} bits, one sample transparent"] = lambda d=_depth: (
        clear_grey_png(d)
    )


def deep_png(kind, depth=16, clear=False, interlaced=False):
    white = 2**depth - 1
    alpha = stripes([0.2, 0.6, 1])[..., None]
    colours = stripes(COLOURS)[..., : 1 if kind in ("L", "LA") else 3]
    parts = [colours, alpha] if kind.endswith("A") else [colours]
    samples = np.rint(np.concatenate(parts, axis=-1) * white).astype(int)
    pixels = samples[..., : colours.shape[-1]] / white
    if kind.endswith("A"):
        share = samples[..., -1:] / white
        pixels = pixels * share + 1 - share
    extra = []
    if clear:
        transparent = samples[0, 0]
        extra = [(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))]
        pixels = np.where((samples == transparent).all(-1, keepdims=True), 1, pixels)
    number = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}[kind]
    return png_of(samples, depth, number, extra, interlaced), pixels


for _kind in ("L", "LA", "RGB", "RGBA"):
    for _interlaced in (False, True):
        CASES[f"png {_kind} 16 bits{' interlaced' * _interlaced}"] = (
            lambda k=_kind, i=_interlaced: deep_png(k, interlaced=i)
        )
CASES["png RGB 16 bits, one colour transparent"] = lambda: deep_png("RGB", clear=True)
CASES["png RGB 8 bits, one colour transparent"] = lambda: deep_png("RGB", 8, True)
CASES["png LA 8 bits"] = lambda: deep_png("LA", 8)


def palette_png(depth):
    palette = [(0, 0, 0), (255, 0, 0), (0, 128, 255), (9, 9, 9)][: 2**depth]
    samples = stripes(range(len(palette)), int)[..., None]
    extra = [(b"PLTE", bytes(v for colour in palette for v in colour))]
    extra += [(b"tRNS", bytes([255, 0]))]
    colours = np.array(palette) / 255
    colours[1] = 1
    return png_of(samples, depth, 3, extra), colours[samples[..., 0]]


for _depth in (1, 2, 4, 8):
    CASES[f"png palette {_depth} bits, one transparent"] = lambda d=_depth: palette_png(
        d
    )

# Other formats


def netpbm(kind, white):
    samples = np.rint(stripes(COLOURS if kind == "P6" else FRACTIONS) * white)
    dtype = ">u2" if white > 255 else "u1"
    header = f"{kind}\n{samples.shape[1]} {HEIGHT}\n{white}\n".encode()
    pixels = samples / white
    return header + samples.astype(dtype).tobytes(), np.atleast_3d(pixels)


for _kind in ("P5", "P6"):
    for _white in (255, 1023, 4095, 65535):
        CASES[f"netpbm {_kind} {_white}"] = lambda k=_kind, w=_white: netpbm(k, w)


@case("portable float map")
def _():
    samples = stripes(FRACTIONS, "<f4")
    header = f"Pf\n{samples.shape[1]} {HEIGHT}\n-1.0\n".encode()
    return header + samples[::-1].tobytes(), samples[..., None]


def bgra(alphas):
    colours = np.rint(COLOURS * 255)
    samples = np.concatenate([colours[:, ::-1], np.array(alphas)[:, None]], axis=1)
    return stripes(samples, "u1"), colours / 255, np.array(alphas)[:, None] / 255


def tga(alphas, alpha_bits, rle=False):
    samples, colours, share = bgra(alphas)
    body = samples.tobytes()
    if rle:  # a packet for each stripe
        count = bytes([0x80 | (WIDTH - 1)])
        body = b"".join(
            count + bytes(line[k])
            for line in samples
            for k in range(0, len(line), WIDTH)
        )
    size = (samples.shape[1], HEIGHT, 32, 0x20 | alpha_bits)
    kind = 10 if rle else 2
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, *size)
    used = alpha_bits and any(alphas)
    pixels = colours * share + 1 - share if used else colours
    return header + body, stripes(pixels)


CASES["tga without alpha bits"] = lambda: tga([0, 0, 0], 0)
CASES["tga without alpha bits, other numbers in them"] = lambda: tga([0, 90, 255], 0)
CASES["tga without alpha bits, run lengths"] = lambda: tga([0, 0, 0], 0, rle=True)
CASES["tga with alpha bits that are all zero"] = lambda: tga([0, 0, 0], 8)
CASES["tga with alpha"] = lambda: tga([51, 102, 255], 8)


def bmp(alphas, masked):
    samples, colours, share = bgra(alphas)
    body = samples[::-1].tobytes()
    size = (samples.shape[1], HEIGHT, 1, 32, 3 if masked else 0, len(body), 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108 if masked else 40, *size)
    if masked:
        head += masks + b"BGRs" + bytes(48)
    start = 14 + len(head)
    data = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + body
    pixels = colours * share + 1 - share if masked and any(alphas) else colours
    return data, stripes(pixels)


CASES["bmp of 32 bits without a mask for alpha"] = lambda: bmp([0, 0, 0], False)
CASES["bmp with alpha that is all zero"] = lambda: bmp([0, 0, 0], True)
CASES["bmp with alpha"] = lambda: bmp([51, 102, 255], True)


def ico(alphas):
    samples, colours, share = bgra(alphas)
    body = samples[::-1].tobytes()
    width = samples.shape[1]
    mask = bytes((width + 31) // 32 * 4 * HEIGHT)
    head = struct.pack("<IiiHHIIiiII", 40, width, 2 * HEIGHT, 1, 32, 0, 0, 0, 0, 0, 0)
    image = head + body + mask
    entry = struct.pack("<BBBBHHII", width, HEIGHT, 0, 0, 1, 32, len(image), 22)
    pixels = colours * share + 1 - share if any(alphas) else colours
    return struct.pack("<HHH", 0, 1, 1) + entry + image, stripes(pixels)


CASES["ico with alpha that is all zero"] = lambda: ico([0, 0, 0])
CASES["ico with alpha"] = lambda: ico([51, 102, 255])


def gif(clear, local):
    """Return a canvas of 8 x 8 whose first frame covers the 4 x 4 pixels at (2, 3)."""
    palette = bytes([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    out = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0 if local else 0x81, 0, 0)
    out += b"" if local else palette
    if clear is not None:
        out += b"\x21\xf9\x04" + bytes([1, 0, 0, clear]) + b"\0"
    out += b"," + struct.pack("<HHHHB", 2, 3, 4, 4, 0x81 if local else 0)
    out += palette if local else b""
    # three bits a code: clear the table, then one pixel, so that it never grows
    codes = [4, 1] * 16 + [5]
    bits = "".join(format(code, "03b")[::-1] for code in codes)
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[k : k + 8][::-1], 2) for k in range(0, len(bits), 8))
    out += bytes([2, len(data)]) + data + b"\0;"
    pixels = np.ones((8, 8, 3))
    if clear != 1:
        pixels[3:7, 2:6] = np.array([200, 0, 0]) / 255
    return out, pixels


for _clear in (None, 0, 1):
    for _local in (False, True):
        CASES[f"gif of a small frame, clear {_clear}, local palette {_local}"] = (
            lambda c=_clear, loc=_local: gif(c, loc)
        )


def jpeg2000(mode, **options):
    dtype, white = ("u2", 65535) if mode == "I;16" else ("u1", 255)
    bands = {"L": 1, "I;16": 1, "RGB": 3, "RGBA": 4}[mode]
    values = stripes(np.c_[COLOURS, [0.0, 0.5, 1.0]] * white).round()[..., :bands]
    image = Image.fromarray(values.astype(dtype).squeeze())
    stream = io.BytesIO()
    image.save(stream, "JPEG2000", irreversible=False, **options)
    return stream.getvalue(), values[..., :3] / white


for _mode in ("L", "I;16", "RGB", "RGBA"):
    for _bare in (False, True):
        CASES[f"jpeg 2000 {_mode}{' codestream' * _bare}"] = lambda m=_mode, b=_bare: (
            jpeg2000(m, no_jp2=b)
        )


@case("jpeg 2000 RGBA, premultiplied")
def _():
    share = stripes([0.2, 0.6, 1])[..., None]
    colours = np.rint(stripes(COLOURS) * share * 255)
    values = np.concatenate([colours, np.rint(share * 255)], axis=-1).astype("u1")
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG2000", irreversible=False)
    data = stream.getvalue()
    kinds = [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 2, 0)]  # channel, kind, of which
    box = struct.pack(">I4sH", 34, b"cdef", 4)
    box += b"".join(struct.pack(">HHH", *one) for one in kinds)
    if b"cdef" in data:
        at = data.index(b"cdef") - 4
        data = data[:at] + box + data[at + len(box) :]
    else:  # at the end of the header's boxes
        at = data.index(b"jp2h") - 4
        size = struct.unpack(">I", data[at : at + 4])[0]
        header = struct.pack(">I", size + len(box)) + data[at + 4 : at + size]
        data = data[:at] + header + box + data[at + size :]
    return data, (colours + 255 * (1 - share)) / 255


def with_xmp(format, exif=None):
    """Return an image whose XMP packet says that it lies on its side."""
    samples = np.rint(stripes(COLOURS) * 255).astype("u1")
    image, stream = Image.fromarray(samples), io.BytesIO()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {} if exif is None else {"exif": exif}
    if format == "PNG":
        from PIL import PngImagePlugin

        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options["pnginfo"] = info
    elif format == "TIFF":
        data = tiff(
            samples, photometric="rgb", extratags=[(700, 1, len(xmp), xmp, True)]
        )
        return data, samples / 255
    else:
        options |= {"xmp": xmp, "lossless": True}
    image.save(stream, format, **options)
    return stream.getvalue(), samples / 255


for _format in ("PNG", "WEBP", "TIFF"):
    CASES[f"{_format.lower()} turned by XMP alone"] = lambda f=_format: with_xmp(f)


@case("png turned by EXIF, by XMP otherwise")
def _():
    exif = Image.Exif()
    exif[0x0112] = 3
    data, pixels = with_xmp("PNG", exif)
    return data, pixels[::-1, ::-1]
