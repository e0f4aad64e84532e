r"""Images in spreadsheets: digits from two CSV files, pixels and labels.

The first file has a row of 784 pixels for each image, the second the row's label. A
small network is trained from random weights on the first rows and tested on the rest::

    python examples/mnist_csv.py pixels.csv labels.csv

With MNIST's own files (IDX, compressed) at hand, the two CSV files are written first::

    python examples/mnist_csv.py pixels.csv labels.csv \
        --from-idx t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_dl import ImageClassifier
from sklearn_dl.datasets import load_image_csv


def main() -> None:
    """Read the two sheets, train, test."""
    args = parse_arguments()
    try:
        if args.from_idx:
            write_csv(*args.from_idx, args.pixels, args.labels)
        X, y = load_image_csv(args.pixels, args.labels, return_X_y=True)
    except (OSError, ValueError) as error:
        raise SystemExit(f"mnist_csv: {error}") from error
    if not 0 < args.train < len(X):
        raise SystemExit(f"mnist_csv: --train must be below the {len(X)} rows")
    n = args.train
    print(f"{n} rows to learn from, {len(X) - n} to test on, {X.shape[1]} pixels each")
    model = ImageClassifier(
        args.backbone,
        weights=None,
        image_size=(args.image_size, args.image_size),
        preprocessing="data",
        trainable="all",
        augment=None if args.augment == "none" else args.augment,
        schedule="one_cycle",
        lr=args.lr,
        batch_size=64,
        max_epochs=args.epochs,
        random_state=args.seed,
        verbose=1,
    )
    start = time.perf_counter()
    model.fit(X[:n], y[:n])
    fitted = time.perf_counter()
    predicted = model.predict(X[n:])
    print(model.history_[["epoch", "train_loss", "lr", "dur"]].to_string(index=False))
    print(
        f"accuracy {np.mean(predicted == y[n:]):.4f} on {len(X) - n} rows; "
        f"{fitted - start:.0f} s to train, "
        f"{time.perf_counter() - fitted:.1f} s to predict"
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pixels", type=Path, help="CSV file, a row per image")
    parser.add_argument("labels", type=Path, help="CSV file, a label per row")
    parser.add_argument(
        "--from-idx",
        type=Path,
        nargs=2,
        metavar=("IMAGES", "LABELS"),
        help="write the two CSV files from these first",
    )
    parser.add_argument("--train", type=int, default=8000, help="rows to learn from")
    parser.add_argument("--backbone", default="resnet18", help="a torchvision model")
    parser.add_argument("--image-size", type=int, default=32, help="side in pixels")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.05, help="highest learning rate")
    parser.add_argument("--augment", default="light", help="a preset, or none")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def write_csv(images: Path, labels: Path, to_pixels: Path, to_labels: Path) -> None:
    """Write images and labels in IDX form as two CSV files with a header each."""
    pixels = read_idx(images)
    columns = [f"pixel{i}" for i in range(pixels[0].size)]
    sheet = pd.DataFrame(pixels.reshape(len(pixels), -1), columns=columns)
    sheet.to_csv(to_pixels, index=False)
    pd.DataFrame({"label": read_idx(labels)}).to_csv(to_labels, index=False)
    print(f"Written: {to_pixels}, {to_labels}")


def read_idx(path: Path) -> np.ndarray:
    """Return the array of unsigned bytes that an IDX file holds.

    After two zero bytes come the type (8 is unsigned byte), the number of dimensions,
    and each of them as four bytes, most significant first.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        content = file.read()
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of unsigned bytes.")
    n_dimensions = content[3]
    start = 4 + 4 * n_dimensions
    shape = np.frombuffer(content[4:start], ">i4")
    return np.frombuffer(content[start:], np.uint8).reshape(shape)


if __name__ == "__main__":
    main()
