"""One training, watched in TensorBoard, MLflow or Weights & Biases.

On scikit-learn's handwritten digits, with a small random network: it runs offline, in
under a minute, and everything is written to folders below ``--output``::

    python examples/tracking.py tensorboard
    python examples/tracking.py mlflow
    python examples/tracking.py wandb

Each is an optional library. MLflow and Weights & Biases are watched through skorch's
own callbacks, which go into ``callbacks=[...]`` like any other.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import MlflowLogger, WandbLogger

from sklearn_dl import ImageClassifier
from sklearn_dl.training import GradientMonitor, TensorBoard, diagnose


def main() -> None:
    """Train once, watched by one of the three."""
    args = parse_arguments()
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype("uint8")
    X_train, X_test, y_train, y_test = train_test_split(
        images, digits.target, stratify=digits.target, random_state=0
    )
    model = ImageClassifier(
        "resnet18",
        weights=None,
        layer="layer1",  # the first blocks alone: a small network
        image_size=(16, 16),
        trainable="all",
        lr=0.03,
        batch_size=64,
        max_epochs=args.epochs,
        random_state=0,
        verbose=1,
    )
    # Callbacks see what the ones before them recorded: gradients first.
    with TRACKERS[args.tracker](args.output, model) as tracker:
        model.set_params(callbacks=[GradientMonitor(), tracker])
        model.fit(X_train, y_train, X_val=X_test, y_val=y_test)
    columns = ["epoch", "train_loss", "valid_loss", "valid_score", "grad_norm"]
    print(model.history_[columns].round(3).to_string(index=False))
    print("\nWhat the history says:")
    for row in diagnose(model).itertuples():
        print(f"{row.finding}: {row.evidence}; {row.parameters or 'nothing to change'}")
    print(f"\n{HOW_TO_LOOK[args.tracker].format(folder=args.output)}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tracker", nargs="?", choices=sorted(TRACKERS), default="tensorboard"
    )
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("tracked"))
    return parser.parse_args()


@contextmanager
def tensorboard(folder: Path, model) -> Iterator[TensorBoard]:
    """Write curves, images, histograms; each fit into a folder of its own."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise SystemExit(missing("tensorboard")) from error
    yield TensorBoard(folder / "tensorboard")


@contextmanager
def mlflow(folder: Path, model) -> Iterator[MlflowLogger]:
    """Log the parameters of the estimator, and what each epoch measured."""
    try:
        import mlflow
    except ImportError as error:
        raise SystemExit(missing("mlflow")) from error
    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    if mlflow.get_experiment_by_name("digits") is None:
        artifacts = (folder / "mlflow_artifacts").resolve().as_uri()
        mlflow.create_experiment("digits", artifact_location=artifacts)
    mlflow.set_experiment("digits")
    with mlflow.start_run():
        mlflow.log_params(model.get_params())
        # The run is closed here, and skorch's copy of the weights isn't wanted.
        yield MlflowLogger(terminate_after_train=False, create_artifact=False)


@contextmanager
def wandb(folder: Path, model) -> Iterator[WandbLogger]:
    """Log the same without an account; ``wandb sync`` uploads it later."""
    try:
        import wandb
    except ImportError as error:
        raise SystemExit(missing("wandb")) from error
    folder.mkdir(parents=True, exist_ok=True)
    mode = os.environ.get("WANDB_MODE", "offline")
    config = {name: repr(value) for name, value in model.get_params().items()}
    with wandb.init(project="digits", dir=folder, mode=mode, config=config) as run:
        # Saving asks for the best epoch by loss; the estimator keeps its own weights.
        yield WandbLogger(run, save_model=False)


def missing(library: str) -> str:
    """Say how to install a library."""
    name = "'sklearn_dl[tensorboard]'" if library == "tensorboard" else library
    return f"tracking: {library} is not installed: pip install {name}"


TRACKERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}
HOW_TO_LOOK = {
    "tensorboard": "Look at it: tensorboard --logdir {folder}/tensorboard",
    "mlflow": "Look at it: mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db",
    "wandb": "Look at it: wandb sync {folder}/wandb/offline-run-*",
}


if __name__ == "__main__":
    main()
