"""Which files are images by their suffix, and what is said of others."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable

from PIL import Image

# What Pillow opens that is no image, or shares its suffix with what isn't: documents,
# films, scientific containers, point clouds (.pcd), circuit boards (.gbr).
_NO_IMAGES = frozenset(
    "BUFR EPS FITS FLI GBR GRIB HDF5 IM IPTC MCIDAS MPEG PCD WMF".split()
)
_HEIF = frozenset(".heic .heics .heif .heifs .hif".split())
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .raw .rw2 "
    ".sr2 .srw .x3f".split()
)
_AVIF, _JXL = frozenset([".avif", ".avifs"]), frozenset([".jxl"])
_PHOTOGRAPHS = _HEIF | _RAW | _AVIF | _JXL
_ADVICE = {
    _HEIF: "pip install pillow-heif, then pillow_heif.register_heif_opener()",
    _JXL: "pip install pillow-jxl-plugin, then import pillow_jxl",
    _AVIF: "newer versions of Pillow open it",
    _RAW: "develop it to TIFF or JPEG (rawpy does)",
    frozenset([".dcm"]): "read it with pydicom, scale it to [0, 1] and save it as .npy",
    frozenset([".npy"]): "extensions=['.npy'] takes arrays",
    frozenset([""]): "extensions=[''] takes files without a suffix",
}


def image_suffixes(extensions: Iterable[str] | None = None) -> frozenset[str]:
    """Return suffixes as they are compared; None is all that Pillow can open here."""
    if extensions is None:
        known = Image.registered_extensions().items()  # also loads all plugins
        opened = {*Image.OPEN} - _NO_IMAGES | {"MPO"}  # which the opener of JPEG reads
        return frozenset(suffix for suffix, name in known if name in opened)
    if isinstance(extensions, str):
        extensions = [extensions]
    bare = (suffix.lower().lstrip(".") for suffix in extensions)
    return frozenset(suffix and "." + suffix for suffix in bare)


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name as it is compared."""
    return os.path.splitext(name)[1].lower()


def count_suffixes(paths: Iterable[str]) -> dict[str, int]:
    """Count files by suffix, the most frequent first."""
    return dict(Counter(map(suffix_of, paths)).most_common())


def in_words(counts: dict[str, int]) -> str:
    """Say how many files of which suffix there are."""
    shown = [f"{n} {suffix or 'without a suffix'}" for suffix, n in counts.items()]
    return ", ".join(shown[:5] + ["..."] * (len(shown) > 5))


def advice_on(counts: dict[str, int]) -> str:
    """Say what opens the files whose suffixes Pillow doesn't open, if it is known."""
    sentences = []
    for suffixes, advice in _ADVICE.items():
        if found := [suffix for suffix in counts if suffix in suffixes]:
            what = " and ".join(found[:3])
            sentences.append(f" For {what}: {advice}." if what else f" {advice}.")
    return "".join(sentences)


def warn_of_photographs(root: str, left_out: Iterable[str]) -> None:
    """Warn, if there are photographs among the files that are left out."""
    counts = count_suffixes(left_out)
    if not _PHOTOGRAPHS.isdisjoint(counts):
        warnings.warn(
            f"{sum(counts.values())} files below {root!r} are left out because of "
            f"their suffix: {in_words(counts)}.{advice_on(counts)}",
            UserWarning,
            stacklevel=3,
        )
