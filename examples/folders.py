"""What the examples share: a folder of images, split in two, and the backbone."""

import argparse
from pathlib import Path

from sklearn.model_selection import train_test_split

from sklearn_dl.backbones import load_backbone
from sklearn_dl.datasets import load_image_folder


def parser_for(description: str, *, cache: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the arguments for images and a backbone."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with a subfolder per class, or with train and val (test) folders",
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="torchvision model")
    parser.add_argument(
        "--weights",
        default="DEFAULT",
        help="DEFAULT, the name of an entry, a file, or none for random weights",
    )
    if cache:
        parser.add_argument(
            "--cache",
            default="memory",
            help="folder to keep features in for later runs; memory: for this one",
        )
    return parser


def load_split(args: argparse.Namespace):
    """Return X_train, X_test, y_train, y_test, and the backbone's parameters.

    Ends the program with a message where images or weights can't be had.
    """
    weights = None if args.weights.lower() == "none" else args.weights
    try:
        load_backbone(args.backbone, weights)
        parts = load_folders(args.data)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{error}") from error
    X_train, X_test = parts[0], parts[1]
    print(
        f"{args.data.name}: {len(X_train)} images to learn from, {len(X_test)} held out"
    )
    cache = getattr(args, "cache", None)
    backbone = {"backbone": args.backbone, "weights": weights, "cache": cache}
    return *parts, {**backbone, "random_state": 0}


def load_folders(folder: Path):
    """Return X_train, X_test, y_train, y_test of a folder of images."""
    held_out = next((n for n in ("val", "test") if (folder / n).is_dir()), None)
    if held_out is None or not (folder / "train").is_dir():
        X, y = _load(folder)
        return train_test_split(X, y, stratify=y, random_state=0)
    X_train, y_train = _load(folder / "train")
    X_test, y_test = _load(folder / held_out)
    return X_train, X_test, y_train, y_test


def _load(folder: Path):
    data = load_image_folder(folder, verify="skip")
    for path, reason in data.skipped.itertuples(index=False):
        print(f"Left out: {path} ({reason})")
    return data.data, data.target
