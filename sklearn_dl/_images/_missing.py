"""Files that aren't there, and what they may be called instead."""

import os
from collections.abc import Iterator

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_DIGITS = 12  # that an id has at most


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
