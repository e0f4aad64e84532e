"""The error of images that cannot be decoded, and what is the matter with them."""

import os
from collections.abc import Iterable, Iterator

from PIL import UnidentifiedImageError

Failure = tuple[int | None, str | None, str]  # row, path, reason

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_DIGITS = 12  # that an id has at most
_PRINTED = 10
_LONGEST = 260  # characters of a path, as Windows has them
BOMB_ADVICE = "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS (None: no limit)"
_TEXT_ADVICE = "If you trust the file, raise PIL.PngImagePlugin."
# Words in an error of Pillow, in small letters, and what helps.
_ADVICE = {
    "decompression bomb": f" {BOMB_ADVICE}",
    "decompressed data too large": f". {_TEXT_ADVICE}MAX_TEXT_CHUNK",
    "too much memory used in text chunks": f". {_TEXT_ADVICE}MAX_TEXT_MEMORY",
}
HEAD = 4096  # bytes that tell what a file is
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ARRAYS = "and pass arrays"
# What a file is that Pillow can't read: its first bytes, and where they stand.
_SIGNATURES: list[tuple[int, bytes, str]] = [
    (128, b"DICM", f"DICOM: read it with pydicom (its pixel_array) {_ARRAYS}"),
    (0, b"SIMPLE  =", f"FITS: read it with astropy (fits.getdata(path)) {_ARRAYS}"),
    (0, b"\x93NUMPY", f"a NumPy array: read it with numpy.load(path) {_ARRAYS}"),
    (0, b"\x89HDF", f"HDF5: read it with h5py {_ARRAYS}"),
    (0, b"\x76\x2f\x31\x01", f"OpenEXR: read it with OpenCV {_ARRAYS}"),
    (0, b"#?RADIANCE", f"Radiance HDR: read it with OpenCV {_ARRAYS}"),
    (0, b"version https://git-lfs", "a Git LFS pointer, no image: run git lfs pull"),
    (0, b"%PDF", "PDF: convert its pages to PNG"),
    (0, b"PK\x03\x04", "a ZIP archive: unpack it"),
    (0, b"\x1f\x8b", "gzip: unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (0, b"\xff\x0a", "JPEG XL: pip install pillow-jxl-plugin, then import pillow_jxl"),
    (4, b"JXL ", "JPEG XL: pip install pillow-jxl-plugin, then import pillow_jxl"),
    (0, b"8BPS", "a PSD of a kind that Pillow can't read: export it as TIFF or PNG"),
    (0, b"\xff\xd8\xff", "a damaged or truncated JPEG"),
    (0, b"\x89PNG", "a damaged or truncated PNG"),
    (0, b"GIF8", "a damaged or truncated GIF"),
    (8, b"WEBP", "a damaged or truncated WebP"),
    *((0, mark, "a damaged or truncated TIFF") for mark in TIFF_MARKS),
    (4, b"jP  ", "a damaged or truncated JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a damaged or truncated JPEG 2000"),
]
_HEIC = (
    "HEIC, a phone's photograph: pip install pillow-heif, then "
    "pillow_heif.register_heif_opener()"
)
_AVIF = "AVIF, damaged or beyond this Pillow: pip install -U pillow"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1"), _HEIC),
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    b"crx ": f"a camera's raw file: read it with rawpy {_ARRAYS}",
}
# What text begins with, in small letters without space before it.
_TEXTS = [
    (b"<!doctype html", "an HTML page, not an image: was it downloaded?"),
    (b"<html", "an HTML page, not an image: was it downloaded?"),
    (b"<svg", "SVG, a drawing, not pixels: convert it to PNG"),
    (b"<?xml", "an XML document, not an image"),
    (b"{", "JSON, not an image"),
]


class ImageDecodeError(ValueError):
    """One or more images could not be decoded.

    Parameters
    ----------
    failures : list of (row, path, reason) or str
        Every image that failed: its row in X (None outside of X), its path (None if
        it has none) and what went wrong; the message prints the first ten. A string is
        the whole message: so ``torch``'s loader workers rebuild an exception.

    Attributes
    ----------
    failures : list of (row, path, reason)

    Examples
    --------
    >>> from sklearn_dl.datasets import ImageDecodeError
    >>> error = ImageDecodeError([(3, "a.jpg", "no such file")])
    >>> print(error)
    1 image could not be decoded: row 3, 'a.jpg': no such file
    """

    def __init__(self, failures: Iterable[Failure] | str):
        self.failures: list[Failure] = []
        if not isinstance(failures, str):
            failures = self.failures = list(failures)
        super().__init__(failures)  # `args` is what pickle calls the class with

    def __str__(self) -> str:
        if not self.failures:
            return str(self.args[0])
        lines = [_line(*failure) for failure in self.failures[:_PRINTED]]
        if len(self.failures) == 1:
            return f"1 image could not be decoded: {lines[0]}"
        if len(self.failures) > _PRINTED:
            lines.append(f"and {len(self.failures) - _PRINTED} more")
        first = f"{len(self.failures)} images could not be decoded:"
        return "\n  ".join([first, *lines])

    @classmethod
    def join(cls, errors: "Iterable[ImageDecodeError]") -> "ImageDecodeError":
        """One error for all of several, in the order of their rows."""
        failures = [failure for error in errors for failure in error.failures]
        return cls(sorted(failures, key=lambda f: -1 if f[0] is None else f[0]))


def cut_text(text: str) -> str:
    """Return a text as an error shows it; one too long for a path is cut."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:80]!r}..."


def _line(row: int | None, path: str | None, reason: str) -> str:
    where = [] if row is None else [f"row {row}"]
    if path is not None:
        where.append(cut_text(path))
    return f"{', '.join(where)}: {reason}" if where else reason


def name_content(head: bytes) -> str:
    """Say what a file is that Pillow can't read, by its first `HEAD` bytes."""
    for start, mark, name in _SIGNATURES:
        if head.startswith(mark, start):
            return name
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video or another ISO media file, no image")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text:
        text = b"<svg"
    for mark, name in _TEXTS:
        if text.startswith(mark):
            return name
    return "not an image that Pillow can read"


def reason_of(error: Exception, path: str | None = None) -> str:
    """Say in a few words why an image could not be decoded."""
    if isinstance(error, ImageDecodeError) and len(error.failures) == 1:
        return error.failures[0][2]
    if isinstance(error, FileNotFoundError):
        meant = "" if path is None else file_meant(os.path.expanduser(path))
        return f"no such file, but {meant}" if meant else "no such file"
    if isinstance(error, IsADirectoryError):
        return "a directory, not an image file"
    if isinstance(error, PermissionError):
        # Windows answers a directory with this one
        directory = path is not None and os.path.isdir(os.path.expanduser(path))
        return "a directory, not an image file" if directory else "permission denied"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror  # without the path again
    return text + next((a for words, a in _ADVICE.items() if words in text.lower()), "")


def file_meant(path: str) -> str:
    """Say which file may be meant by the path of one that isn't there, or nothing."""
    for found, advice in _other_names(path):
        if found != path and os.path.isfile(found):
            return f"{found!r} is there: {advice}"
    return ""


def _other_names(path: str) -> Iterator[tuple[str, str]]:
    """Yield paths, and what would make them of the given one."""
    yield path.strip(), "leave out the blanks"
    path = path.strip()
    slashes = path.replace("\\", "/")
    turned = "write / for \\" if slashes != path else ""
    yield slashes, turned
    stem, end = os.path.splitext(slashes)
    suffixes = [suffix for s in _SUFFIXES for suffix in (s, s.upper())]
    for suffix in suffixes:
        advice = f"add the suffix {suffix!r} (suffix= of load_image_frame)"
        yield slashes + suffix, f"{turned}, {advice}" if turned else advice
        if slashes.endswith(suffix[1:]):
            yield (
                slashes.removesuffix(suffix[1:]) + suffix,
                f"write {suffix!r}, with its dot",
            )
    if end.lower() in _SUFFIXES:
        for suffix in (end.lower(), end.upper(), *suffixes):
            yield stem + suffix, f"the suffix is {suffix}, not {end}"
    folder, name = os.path.split(stem)
    if name.isdigit():
        for width in range(len(name) + 1, _DIGITS + 1):
            longer = os.path.join(folder, name.zfill(width))
            for suffix in [end] if end else ["", *suffixes]:
                advice = f"zeros are lost, .str.zfill({width}) gives them back"
                more = f", add the suffix {suffix!r}" if suffix != end else ""
                yield longer + suffix, advice + more
