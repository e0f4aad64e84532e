"""Peak memory of `transform` against the number of image files.

Each size runs in a process of its own over distinct JPEG files; the peak of its
resident memory, less the features it returns, should not grow with the number.

    python examples/benchmarks/memory.py --sizes 2000 20000
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Write the images once, measure each size, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--pixels", type=int, default=320, help="side of the images")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args.measure, args.sizes[0], args.backbone)
    print(f"{platform.processor() or platform.machine()}, {sys.version.split()[0]}")
    print(f"{'files':>8}  {'peak MB':>8}  {'features MB':>11}  {'less features':>13}")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), max(args.sizes), args.pixels)
        for size in args.sizes:
            command = [sys.executable, __file__, "--measure", folder]
            command += ["--sizes", str(size), "--backbone", args.backbone]
            output = subprocess.check_output(command, text=True)
            peak, features = (float(word) for word in output.split())
            print(
                f"{size:8}  {peak:8.0f}  {features:11.0f}  {peak - features:13.0f}",
                flush=True,
            )


def write_images(folder: Path, n: int, side: int) -> None:
    """Write n distinct images of smooth random colours."""
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8"))
        coarse.resize((side, side)).save(folder / f"{i:06}.jpg", quality=90)


def measure(folder: Path, n: int, backbone: str) -> None:
    """Print the peak resident memory and the size of the features, in MB."""
    from sklearn_dl import ImageFeatureExtractor

    paths = sorted(str(path) for path in folder.iterdir())[:n]
    extractor = ImageFeatureExtractor(backbone, weights=None, random_state=0)
    features = extractor.fit_transform(paths)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(kilobytes / 1000, features.nbytes / 1e6)


if __name__ == "__main__":
    main()
