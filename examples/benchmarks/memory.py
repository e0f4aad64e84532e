"""Peak memory of `transform` against the number of files, and memory of many fits.

    python examples/benchmarks/memory.py --sizes 1000 20000
    python examples/benchmarks/memory.py --fits 300
    python examples/benchmarks/memory.py --rows 20000
    python examples/benchmarks/memory.py --maps 20000 --pixels 96

Each size runs in a process of its own over distinct JPEG files, without a cache; the
peak of its resident memory, less the features it returns, should not grow with the
number. With `--fits`, one process fits heads on random backbones of ever new seeds,
without a cache: its resident memory should not grow once the bound of the backbones
that are kept is reached. With `--rows`, the linear part of the default pipeline is
fitted on so many rows of 1,280 float32 features, and that of scikit-learn beside it,
each in a process of its own: how far the peak of its resident memory rises over what
the features take. With `--maps`, the last three stages are trained for a hundred steps
on the maps of so many files, which take more than the cache's bound, in memory and in a
folder of 256 MiB: how far the peak rises over that of a fit on 64 of them, and what the
cache holds.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import harness
import numpy as np
import torch
from PIL import Image


def main() -> None:
    """Write the images once, measure each size, print the table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--pixels", type=int, default=320, help="side of the images")
    parser.add_argument("--fits", type=int, help="measure so many fits instead")
    parser.add_argument("--rows", type=int, help="measure linear models instead")
    parser.add_argument("--maps", type=int, help="train on maps of so many instead")
    parser.add_argument("--package", type=Path, help="the folder that holds sklearn_dl")
    parser.add_argument("--measure", type=Path, help=harness.argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender and args.maps:
        return print(*memory_of_maps(args.contender, args))
    if args.contender:
        return print(memory_of_a_fit(args.contender, args.rows))
    if args.rows:
        return linear_models(args)
    if args.maps:
        return maps_of_files(args)
    if args.measure:
        return measure(args.measure, args.sizes[0], args.backbone)
    if args.package is not None:
        sys.path.insert(0, str(args.package.resolve()))
    if args.fits:
        header = ["fits", "resident MB"]
        title = f"Resident memory of heads on ever new backbones, {args.backbone}"
        rows = list(after_fits(args.fits, args.backbone))
        return harness.table(title, header, rows, args.output)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), max(args.sizes), args.pixels)
        for size in args.sizes:
            command = [sys.executable, __file__, "--measure", folder]
            command += ["--sizes", str(size), "--backbone", args.backbone]
            output = subprocess.check_output(command, text=True)
            peak, features = (float(word) for word in output.split())
            rows.append([size, *(f"{mb:.0f}" for mb in (peak, features))])
            rows[-1].append(f"{peak - features:.0f}")
    header = ["files", "peak MB", "features MB", "less features"]
    title = f"Memory of `transform` against the number of files, {args.backbone}"
    harness.table(title, header, rows, args.output)


def after_fits(n: int, backbone: str) -> Iterator[list]:
    """Yield the number of fits so far and the resident memory, ten times."""
    from sklearn_dl import ImageClassifier

    X = harness.random_arrays(8, 64)
    for seed in range(n):
        model = ImageClassifier(
            backbone, weights=None, image_size=64, random_state=seed, cache=None
        )
        model.set_params(max_epochs=1).fit(X, np.arange(8) % 2).predict(X)
        if (seed + 1) % max(1, n // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            yield [seed + 1, f"{pages * resource.getpagesize() / 1e6:.0f}"]


def linear_models(args) -> None:
    """Fit scaler and SVM of each kind, and print the table."""
    rows = []
    for name in ("FeatureScaler, FeatureSVC", "StandardScaler, LinearSVC"):
        command = [sys.executable, __file__, "--contender", name]
        command += ["--rows", str(args.rows)]
        rows.append([name, subprocess.check_output(command, text=True).strip()])
    header = ["scaler and classifier", "added memory over that of the features"]
    title = f"Memory of a fit on {args.rows} x 1280 features of ten classes"
    harness.table(title, header, rows, args.output)


def memory_of_a_fit(name: str, n: int) -> str:
    """Return what a fit adds to the resident memory, over that of its features."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    from sklearn_dl import FeatureScaler, FeatureSVC

    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, n)
    features = np.empty((n, 1280), np.float32)
    means = rng.standard_normal((10, 1280), dtype=np.float32) * 0.15
    for start in range(0, n, 4096):
        part = features[start : start + 4096]
        rng.standard_normal(dtype=np.float32, out=part)
        part += means[y[start : start + 4096]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = name.startswith("FeatureScaler")
    scaler = FeatureScaler() if ours else StandardScaler()
    svm = FeatureSVC() if ours else LinearSVC(C=1e-3, max_iter=10)
    make_pipeline(scaler, svm).fit(features, y)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"{added * 1024 / features.nbytes:.2f}"


def maps_of_files(args) -> None:
    """Train on maps that a cache has no room for, and print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        write_images(Path(folder) / "images", args.maps, args.pixels)
        for name in ("memory", f"{folder}/cache"):
            command = [sys.executable, __file__, "--contender", name]
            command += ["--maps", str(args.maps), "--pixels", str(args.pixels)]
            command += ["--backbone", args.backbone, "--measure", f"{folder}/images"]
            words = subprocess.check_output(command, text=True).split()
            rows.append([name.removeprefix(f"{folder}/"), *words])
    header = ["cache", "maps MB", "bound MB", "it holds MB", "added to the peak MB"]
    title = f"Memory of a fit on maps of {args.maps} files, {args.backbone}"
    harness.table(title, header, rows, args.output)


def memory_of_maps(name: str, args) -> list[str]:
    """Return size of all maps, bound, what the cache holds, and what a fit adds."""
    from sklearn_dl import FeatureCache, ImageClassifier
    from sklearn_dl.training import StoppingRules

    torch.set_num_threads(1)
    folder = name != "memory"
    bound = 2**28 if folder else 2**29  # the default of memory
    cache = FeatureCache(name, max_bytes=bound)
    paths = [str(path) for path in sorted(args.measure.iterdir())]
    y = np.arange(len(paths)) % 2
    model = ImageClassifier(
        args.backbone,
        weights=None,
        image_size=args.pixels,
        trainable=3,
        random_state=0,
        cache=FeatureCache(name="warm-up"),
        callbacks=[StoppingRules(max_steps=100)],
    ).fit(paths[:64], y[:64])
    halves = model.module_.backbone.halves(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.set_params(cache=cache, max_epochs=3).fit(paths, y)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    kept = cache.statistics()
    every = len(paths) * halves.prefix.n_features * 4
    return [f"{n / 1e6:.0f}" for n in (every, bound, kept.bytes, added)]


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
    extractor = ImageFeatureExtractor(
        backbone, weights=None, cache=None, random_state=0
    )
    features = extractor.fit_transform(paths)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(kilobytes / 1000, features.nbytes / 1e6)


if __name__ == "__main__":
    main()
