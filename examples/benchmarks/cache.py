"""What the feature cache costs on a first pass, and what it saves later.

Three tables over a folder with one subfolder per class, on one machine in one run::

    python examples/benchmarks/cache.py --data hymenoptera_data/train \
        --weights mobilenet_v2_imagenet.pth

First pass: `transform` into an empty cache against ``cache=None``, the three in turn;
the ratio of the fastest passes, which other load on the machine moves least, and that
of the medians.

Search: 5 folds of 8 candidates for the head of a frozen backbone, 10 epochs each,

- by `GridSearchCV` over `ImageClassifier`, with an empty cache at the start,
- the same with ``cache=None``: one pass for each fit and each score,
- by `GridSearchCV` over a skorch net on features that are ready, to which one pass of
  extraction is added: what it takes at least,
- by skorch as its image tutorial has it: a frozen torchvision network and a head,
  which decode and see each image in each epoch. One fold of one candidate is
  measured, and multiplied by 40.

Found (``--parts found``): `transform` and `predict_proba` of 20,000 files that are all
in a folder cache, medians of wall and CPU seconds. Two checkouts are compared by
running this file twice, with ``PYTHONPATH`` at one and at the other.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from skorch.helper import SliceDataset
from torch import nn

from sklearn_dl import FeatureCache, ImageClassifier, ImageFeatureExtractor
from sklearn_dl.backbones import load_backbone
from sklearn_dl.datasets import load_image_folder

GRID = {"lr": [1e-3, 3e-3, 1e-2, 3e-2], "optimizer__weight_decay": [0.0, 1e-4]}
FOLDS = 5


def main() -> None:
    """Run both parts and print their tables."""
    args = parse_arguments()
    X, y = load_image_folder(args.data, return_X_y=True)
    print(
        f"{len(X)} images, {args.backbone}; {platform.processor() or 'CPU'}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}, torchvision {torchvision.__version__}\n",
        flush=True,
    )
    if "first" in args.parts:
        first_pass(X, args)
    if "search" in args.parts:
        search(X, y, args)
    if "found" in args.parts:
        found_again(args)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument(
        "--weights", default="none", help="a file, an entry, or none: random"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=20, help="of the first pass")
    parser.add_argument("--workers", type=int, default=2, help="of skorch's loader")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["first", "search", "found"],
        default=["first", "search"],
    )
    args = parser.parse_args()
    args.weights = None if args.weights.lower() == "none" else args.weights
    return args


def seconds_of(call) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ------------------------------------------------------------------- a first pass


def first_pass(X, args) -> None:
    """Compare a first `transform` of files and of arrays with and without a cache."""
    arrays = np.stack([photograph(path) for path in X[:, 0]])
    print("First pass, against cache=None (ratio of the fastest, of the medians)")
    for form, rows in {"files": X, "arrays of 256 x 256": arrays}.items():
        took: dict[str, list[float]] = {"none": [], "memory": [], "directory": []}
        timed_pass(rows, None, args)
        for repeat in range(args.repeats):
            with tempfile.TemporaryDirectory() as folder:
                caches = {"none": None, "memory": "memory", "directory": folder}
                for name in list(caches)[:: 1 if repeat % 2 else -1]:
                    took[name].append(timed_pass(rows, caches[name], args))
        for name in ("memory", "directory"):
            fastest = min(took[name]) / min(took["none"])
            median = statistics.median(took[name]) / statistics.median(took["none"])
            print(f"  {form:20} {name:10} {fastest:.3f}  {median:.3f}", flush=True)
        plain = took["none"]
        print(f"  {form:20} none: {min(plain):.2f} to {max(plain):.2f} s", flush=True)
    print()


def photograph(path: str) -> np.ndarray:
    """Return an image as an array of 256 x 256."""
    from sklearn_dl._images import decode_image

    return np.array(decode_image(path).resize((256, 256)))


def timed_pass(rows, cache, args) -> float:
    """Return the seconds of a `transform` into an empty cache."""
    FeatureCache("memory").clear()
    extractor = ImageFeatureExtractor(
        args.backbone, weights=args.weights, random_state=0, cache=cache
    ).fit(rows)
    return seconds_of(lambda: extractor.transform(rows))


# ------------------------------------------------------------- all of it is found


def found_again(args, n_files: int = 20_000, side: int = 32) -> None:
    """Time calls that find the features of small files in a folder cache."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (n_files, 8, 8, 3), "uint8")
        paths = [os.path.join(folder, f"{k:05d}.png") for k in range(n_files)]
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image).save(path)
        X, y = np.array(paths, object), np.arange(n_files) % 2
        options = {"weights": args.weights, "image_size": side, "random_state": 0}
        options["cache"] = os.path.join(folder, "cache")
        extractor = ImageFeatureExtractor(args.backbone, **options).fit(X)
        model = ImageClassifier(args.backbone, **options, max_epochs=1).fit(X, y)
        print(f"{n_files} files that are found, {args.backbone}: wall, CPU seconds")
        for call in (extractor.transform, model.predict_proba):
            call(X)
            took, work = [], []
            for _ in range(args.repeats):
                cpu = time.process_time()
                took.append(seconds_of(lambda call=call: call(X)))
                work.append(time.process_time() - cpu)
            wall, cpu = statistics.median(took), statistics.median(work)
            print(f"  {call.__name__:15} {wall:.2f}  {cpu:.2f}", flush=True)


# ---------------------------------------------------------------------- a search


def search(X, y, args) -> None:
    """Compare the four ways through a grid search."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    options = {"weights": args.weights, "random_state": 0}
    extractor = ImageFeatureExtractor(args.backbone, **options, cache=None).fit(X)
    features = extractor.transform(X)
    codes = np.unique(y, return_inverse=True)[1]

    def ours(cache):
        model = ImageClassifier(
            args.backbone, **options, max_epochs=args.epochs, cache=cache
        )
        found = GridSearchCV(model, GRID, cv=folds, refit=False, error_score="raise")
        return found.fit(X, y)

    def on_features():
        # Momentum and batches as ImageClassifier has them.
        net = skorch_net(nn.Linear(features.shape[1], 2), args, batch_size=32)
        found = GridSearchCV(net, GRID, cv=folds, refit=False, error_score="raise")
        return found.fit(features, codes)

    on_features()
    cached, heads, passes = [], [], []
    for _ in range(7):
        FeatureCache("memory").clear()
        cached.append(seconds_of(lambda: ours("memory")))
        heads.append(seconds_of(on_features))
        passes.append(seconds_of(lambda: extractor.transform(X)))
    least = [a + b for a, b in zip(passes, heads, strict=True)]
    took = {
        "ImageClassifier": statistics.median(cached),
        "the same, cache=None": seconds_of(lambda: ours(None)),
        "one pass + heads on features": statistics.median(least),
        "skorch on images (one of 40, times 40)": 40 * skorch_on_images(X, codes, args),
    }
    print(f"Search: {FOLDS} folds x 8 candidates x {args.epochs} epochs")
    for name, seconds in took.items():
        times = seconds / took["ImageClassifier"]
        print(f"  {name:40} {seconds:9.1f} s  {times:7.2f} times")
    ratio = took["ImageClassifier"] / took["one pass + heads on features"]
    print(
        f"  one pass {statistics.median(passes):.2f} s, heads on features "
        f"{statistics.median(heads):.2f} s\n"
        f"  ImageClassifier / (one pass + heads): {ratio:.2f} of the medians, "
        f"{min(cached) / min(least):.2f} of the fastest of {len(cached)}"
    )


def skorch_net(module, args, **more) -> NeuralNetClassifier:
    """Return a net that trains like an `ImageClassifier` of default parameters."""
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        max_epochs=args.epochs,
        train_split=None,
        verbose=0,
        **more,
    )


def skorch_on_images(X, codes, args) -> float:
    """Return the seconds of one fit and score of a frozen network with a head."""
    backbone = load_backbone(args.backbone, args.weights)
    # The preset of torchvision, as its tutorial has it.
    entry = torchvision.models.get_model_weights(args.backbone)["IMAGENET1K_V1"]
    dataset = Photographs(list(X[:, 0]), codes, entry.transforms())
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    train, test = next(folds.split(X, codes))
    net = skorch_net(
        FrozenWithHead(backbone.module.eval(), backbone.n_features),
        args,
        batch_size=32,
        lr=GRID["lr"][0],
        iterator_train__shuffle=True,
        iterator_train__num_workers=args.workers,
        iterator_valid__num_workers=args.workers,
    )
    images = SliceDataset(dataset)

    def once():
        net.fit(images[train], codes[train])
        net.predict(images[test])

    return seconds_of(once)


class FrozenWithHead(nn.Module):
    """A network that is not trained, and a linear layer that is."""

    def __init__(self, backbone: nn.Module, n_features: int):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.head = nn.Linear(n_features, 2)

    def train(self, mode: bool = True):
        """Keep the frozen part in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the head."""
        return self.head(self.backbone(x))


class Photographs(torch.utils.data.Dataset):
    """Images in files, each decoded whenever it is asked for."""

    def __init__(self, paths: list[str], y: np.ndarray, transform):
        self.paths, self.y, self.transform = paths, y, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        from PIL import Image

        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB")), int(self.y[i])


if __name__ == "__main__":
    main()
