"""Training beyond memory: features in a file, and a linear classifier in chunks.

::

    python examples/features_on_disk.py --data hymenoptera_data --out features

Each image goes through the backbone once, into a file; started again after a kill, it
goes on where it ended. The classifier sees the file in chunks, in another order in each
epoch, and stops when a tenth of the training images says that it learns no more. It
prints that accuracy by epochs, and the accuracy on held-out images.
"""

import copy
from pathlib import Path

import numpy as np
from folders import load_split, parser_for
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl.datasets import iter_features, load_features


def main() -> None:
    """Write the features, train on them, and predict images."""
    parser = parser_for(__doc__, cache=False)
    parser.add_argument("--out", type=Path, required=True, help="folder of the file")
    parser.add_argument("--rows", type=int, default=8192, help="rows of a chunk")
    parser.add_argument("--epochs", type=int, default=50, help="at most")
    parser.add_argument("--patience", type=int, default=5, help="epochs without gain")
    args = parser.parse_args()
    X, X_test, y, y_test, backbone = load_split(args)
    stop = train_test_split(
        np.arange(len(X)), test_size=max(0.1, 2 / len(X)), stratify=y, random_state=0
    )[1]
    split = np.full(len(X) + len(X_test), "train")
    split[stop], split[len(X) :] = "stop", "test"

    extractor = ImageFeatureExtractor(**backbone, verbose=1).fit(X)
    args.out.mkdir(exist_ok=True)
    path = args.out / "features.npy"
    images, labels = np.concatenate([X, X_test]), np.concatenate([y, y_test])
    extractor.transform_to(images, path, labels, split=split, dtype="float16")

    # That it is the same backbone is checked here, and so for the predictions below.
    classes = load_features(path, extractor=extractor).target_names
    scaler = StandardScaler()
    for features, _ in iter_features(path, args.rows, split="train"):
        scaler.partial_fit(features)
    model = train(path, scaler, classes, args)
    held_out = accuracy(path, "test", scaler, model, args.rows)
    print(f"on {len(X_test)} held-out images: {held_out:.3f}")
    classifier = make_pipeline(extractor.set_params(verbose=0), scaler, model)
    print(f"from the images themselves: {classifier.score(X_test, y_test):.3f}")


def train(path: Path, scaler, classes: np.ndarray, args) -> SGDClassifier:
    """Return the model of the epoch that was the best on the rows of "stop"."""
    model = SGDClassifier(alpha=1e-3, average=True, random_state=0)
    best, kept, best_epoch = -1.0, model, 0
    print("epoch  accuracy")
    for epoch in range(args.epochs):
        order = {"shuffle": True, "random_state": epoch}
        for features, labels in iter_features(path, args.rows, split="train", **order):
            model.partial_fit(scaler.transform(features), labels, classes=classes)
        score = accuracy(path, "stop", scaler, model, args.rows)
        print(f"{epoch + 1:5}  {score:.3f}")
        if score > best:
            best, kept, best_epoch = score, copy.deepcopy(model), epoch
        elif epoch - best_epoch >= args.patience:
            break
    return kept


def accuracy(path: Path, split: str, scaler, model, rows: int) -> float:
    """Return the share of a split's rows that a model gets right."""
    right = [
        model.predict(scaler.transform(features)) == labels
        for features, labels in iter_features(path, rows, split=split)
    ]
    return float(np.concatenate(right).mean())


if __name__ == "__main__":
    main()
