"""What libraries make of odd image files: how many each reads right.

    python examples/benchmarks/odd_files.py [--wrong]

The files are those of ``tests/images/odd_files.py``, with the pixels that the
specifications of their formats say. A file is right where every pixel is within two
levels of 255, as each library gives RGB of 8 bits by its usual call. Libraries that
aren't installed are left out. The table is printed as Markdown; `--wrong` adds names.
"""

import argparse
import collections
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "images"))

KINDS = {
    "TIFF of 8 bits": "tiff u1,tiff of 2,tiff of 4,tiff colour u1",
    "TIFF of 16 and 32 bits": "tiff u2,tiff u4,tiff colour u2,tiff colour u4,tiff CMYK",
    "TIFF of 10 to 14 bits": "tiff of 1",
    "TIFF of floats": "tiff f",
    "TIFF with an extra band": "tiff RGB and,tiff grey and",
    "PNG of 16 bits": "png L 16,png LA 16,png RGB 16,png RGBA 16",
    "PNG with a transparent sample": "png",
    "JPEG 2000": "jpeg",
    "Netpbm": "netpbm,portable",
    "TGA, BMP, ICO of 32 bits": "tga,bmp,ico",
    "GIF of a small first frame": "gif",
    "orientation in XMP alone": "webp,tiff turned,png turned",
}


def kind_of(name: str) -> str:
    """Return the row of the table in which a case counts."""
    if "XMP" in name:
        return "orientation in XMP alone"
    matches = (
        kind
        for kind, starts in KINDS.items()
        if name.startswith(tuple(starts.split(",")))
    )
    return next(matches)


def with_sklearn_dl(path: str):
    """As `decode_image` shows it."""
    from sklearn_dl.datasets import decode_image

    return np.asarray(decode_image(path))


def with_torchvision(path: str):
    """As `decode_image` of torchvision.io gives it, in mode "RGB"."""
    from torchvision.io import ImageReadMode, decode_image

    image = decode_image(path, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    if image.element_size() == 2:
        image = image.float() / 257
    return image.permute(1, 2, 0).numpy()


def with_torchvision_folder(path: str):
    """As `ImageFolder` of torchvision.datasets loads it."""
    from torchvision.datasets.folder import default_loader

    return np.asarray(default_loader(path))


def with_opencv(path: str):
    """As `cv2.imread` reads it by default, in the order RGB."""
    import cv2

    image = cv2.imread(path)
    if image is None:
        raise ValueError("None")
    return image[..., ::-1]


def with_timm(path: str):
    """As `ImageDataset` of timm.data loads it."""
    from timm.data import ImageDataset
    from timm.data.readers.reader import Reader

    class One(Reader):
        def __getitem__(self, index):
            return open(path, "rb"), 0

        def __len__(self):
            return 1

        def _filename(self, index, basename=False, absolute=False):
            return path

    return np.asarray(ImageDataset(path, reader=One())[0][0])


def with_fastai(path: str):
    """As `PILImage.create` of fastai.vision loads it."""
    from fastai.vision.core import PILImage

    return np.asarray(PILImage.create(path))


def with_transformers(path: str):
    """As `load_image` of transformers.image_utils loads it."""
    from transformers.image_utils import load_image

    return np.asarray(load_image(path))


def with_datasets(path: str):
    """As the feature `Image(mode="RGB")` of datasets decodes it."""
    from datasets import Image as Feature

    return np.asarray(Feature(mode="RGB").decode_example({"path": path, "bytes": None}))


READERS = {
    "sklearn_dl": with_sklearn_dl,
    "torchvision.io": with_torchvision,
    "torchvision ImageFolder": with_torchvision_folder,
    "OpenCV": with_opencv,
    "timm": with_timm,
    "fastai": with_fastai,
    "transformers": with_transformers,
    "datasets": with_datasets,
}


def works(read) -> bool:
    """Tell whether a library is installed, and reads an ordinary file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plain.png")
        Image.new("RGB", (9, 9), (1, 2, 3)).save(path)
        return verdict(read, str(path), np.full((9, 9, 3), (1, 2, 3)) / 255) == "right"


def verdict(read, path: str, expected: np.ndarray) -> str:
    """Return "right", "refused" or "wrong"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = np.asarray(read(path), dtype=float)
    except Exception:
        return "refused"
    if found.shape[:2] != expected.shape[:2]:
        return "wrong"
    found = np.atleast_3d(found)
    return "right" if np.abs(found - expected * 255).max() <= 2 else "wrong"


def main() -> None:
    """Read every case by every library and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wrong", action="store_true", help="name the files")
    args = parser.parse_args()
    from odd_files import CASES

    readers = {name: read for name, read in READERS.items() if works(read)}
    counts: dict = collections.defaultdict(collections.Counter)
    wrong = collections.defaultdict(list)
    totals = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, make) in enumerate(CASES.items()):
            data, expected = make()
            suffix = {"netpbm": "ppm", "portable": "pfm", "jpeg": "jp2", "tiff": "tif"}
            start = name.split()[0]
            end = "j2k" if "codestream" in name else suffix.get(start, start)
            path = Path(folder, f"{number}.{end}")
            path.write_bytes(data)
            totals[kind_of(name)] += 1
            for reader, read in readers.items():
                found = verdict(read, str(path), expected)
                counts[kind_of(name), reader][found] += 1
                if found == "wrong":
                    wrong[reader].append(name)
    print("| files | " + " | ".join(readers) + " |")
    print("|---" * (len(readers) + 1) + "|")
    for kind in KINDS:
        cells = []
        for reader in readers:
            count = counts[kind, reader]
            cells.append(f"{count['right']}, {count['wrong']}")
        print(f"| {kind} ({totals[kind]}) | " + " | ".join(cells) + " |")
    sums = [
        f"{sum(counts[k, r]['right'] for k in KINDS)}, "
        f"{sum(counts[k, r]['wrong'] for k in KINDS)}"
        for r in readers
    ]
    print(f"| all ({totals.total()}) | " + " | ".join(sums) + " |")
    print("\nright, silently wrong; the rest is refused")
    if args.wrong:
        for reader, names in wrong.items():
            print(f"{reader}: {', '.join(names)}")


if __name__ == "__main__":
    main()
