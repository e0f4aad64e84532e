"""From a baseline to a deployed model: the whole course on one folder of images.

Without ``--data`` it runs on scikit-learn's handwritten digits, with the weights that
are in the package, and needs no network; give a folder with one subfolder per class, or
with ``train`` and ``val`` (or ``test``) folders of that form::

    python examples/course.py --data hymenoptera_data
    python examples/course.py --data hymenoptera_data --backbone mobilenet_v2

Baselines, a trained head, where it errs and which changes of images it can't bear,
regularisation and the augmentations that answer them, tuning, an ensemble, and the
final model, saved and exported. Each step is scored on the same folds of the training
images; the test images are looked at once, when the choice is made. Scores, pictures
and models are written to ``--output``. On two cores it takes minutes.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from quickstart import BUILTIN, PixelBaseline, choose_weights, load_data
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sklearn_dl import FeatureCache, ImageClassifier, make_feature_classifier
from sklearn_dl import inspection as look
from sklearn_dl.ensemble import DiversityDisplay, diversity
from sklearn_dl.model_selection import Experiments, ExperimentsDisplay
from sklearn_dl.persistence import export_onnx, load, load_exported, save
from sklearn_dl.training import Head, LogLoss, Optimizer, diagnose

LOG = "experiments.jsonl"
FOLDS, CANDIDATES = "accuracy, folds", "accuracy, folds of the search"
CORRUPTED, TEST = "accuracy, corrupted images", "accuracy, test images"
PIXELS, SVM, HEAD = "raw pixels", "features + SVM", "trained head"
REGULARISED, AUGMENTED = "regularised head", "augmented"
TUNED, VOTE = "tuned head", "soft vote"
# Changes that leave a digit what it is.
OF_DIGITS = (
    "smaller larger rotation translation shear darker less_contrast blur".split()
)
OF_DIGITS += ["noise", "occlusion", "jpeg"]


class RawPixels(ClassifierMixin, BaseEstimator, PixelBaseline):
    """The quickstart's baseline, as scikit-learn's tools want it."""

    def fit(self, X, y):
        """Tune, and note the classes."""
        self.classes_ = np.unique(y)
        return super().fit(X, y)

    def predict_proba(self, X):
        """Return 1 for the prediction, 0 for others."""
        return (self.predict(X)[:, None] == self.classes_).astype(float)


class Course:
    """What the steps share: the images to learn from, and what became of them."""

    def __init__(self, args: argparse.Namespace, X, y: np.ndarray, backbone: dict):
        self.args, self.X, self.y, self.backbone = args, X, y, backbone
        self.log = Experiments(args.output / LOG)
        n_folds = 2 if args.quick else 3
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        self.folds = list(folds.split(np.zeros(len(y)), y))
        # What takes one division of the images takes the first.
        self.learn, held = self.folds[0]
        n_held = 12 if args.quick else 200
        self.held = np.random.default_rng(0).permutation(held)[:n_held]
        self.models: dict[str, Any] = {}  # unfitted
        self.first: dict[str, Any] = {}  # fitted on `learn`
        self.found: dict[str, np.ndarray] = {}  # probabilities, each image held out
        self.report: Any = None

    def try_out(self, name: str, model: Any, **options) -> None:
        """Judge a model by the folds, and keep it."""
        start = time.perf_counter()
        found = np.zeros((len(self.y), len(np.unique(self.y))))
        for learn, held in self.folds:
            fitted = clone(model).fit(self.X[learn], self.y[learn])
            found[held] = fitted.predict_proba(self.X[held])
            self.first.setdefault(name, fitted)
        self.keep(name, model, found, seconds=time.perf_counter() - start, **options)

    def keep(self, name: str, model: Any, found: np.ndarray, **options) -> None:
        """Record and print what probabilities of the folds are worth."""
        self.models[name], self.found[name] = model, found
        right = self.predicted(name) == self.y
        scores = [right[held].mean() for _, held in self.folds]
        done = self.log.record(name, scores, model, metric=FOLDS, **options)
        gain = self.log.table["gain"].iloc[-1]
        beside = "" if np.isnan(gain) else f", {gain:+.3f} from {done.since!r}"
        print(f"{name}: accuracy {done.score:.3f} ± {done.spread:.3f}{beside}")

    def predicted(self, name: str) -> np.ndarray:
        """Return a model's classes of all training images, each held out once."""
        return np.unique(self.y)[self.found[name].argmax(axis=1)]

    def best(self, *without: str):
        """Return the experiment of the highest score on the folds, the first one."""
        ours = [e for e in self.log.experiments if e.metric == FOLDS]
        return max((e for e in ours if e.name not in without), key=lambda e: e.score)

    def draw(self, display: Any, name: str) -> None:
        """Write a picture."""
        import matplotlib.pyplot as plt

        display.figure_.savefig(self.args.output / name, dpi=110)
        plt.close(display.figure_)
        print(f"Picture: {self.args.output / name}")


def main() -> None:
    """Go through all steps."""
    args = parse_arguments()
    try:
        name, images, options = load_data(args.data, args.image_size)
        if args.quick and args.data is None:
            images = tuple(part[:200] for part in images)
        X, X_test, y, y_test = images
        counts = pd.Series(y).value_counts()
        if counts.min() < 10:
            few = f"class {counts.idxmin()!r} has {counts.min()} images"
            raise ValueError(f"{few} to learn from; the folds need at least 10.")
        options |= choose_weights(args.backbone, args.weights, options)
        args.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise SystemExit(f"course: {error}") from error
    print(f"{name}: {len(y)} images to learn from, {len(y_test)} for the last test")
    course = Course(args, X, np.asarray(y), options | {"random_state": 0})
    began = time.perf_counter()
    steps: list[tuple] = [
        ("Baselines", baselines),
        ("A trained head", train_head),
        ("Where it errs", analyse),
        ("Regularisation and augmentation", answer),
        ("Tuning", tune),
        ("Ensemble", vote),
        ("The final model", finish, X_test, np.asarray(y_test)),
        ("What was tried", summarise),
    ]
    for i, (title, function, *last) in enumerate(steps, 1):
        print(f"\n== {i}. {title}", flush=True)
        start = time.perf_counter()
        function(course, *last)
        print(f"({time.perf_counter() - start:.1f} s)", flush=True)
    print(f"\nAll: {(time.perf_counter() - began) / 60:.1f} minutes")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with a subfolder per class")
    parser.add_argument("--backbone", default=BUILTIN, help="a torchvision model")
    weights = f"DEFAULT, an entry, a file, none (random) or builtin (of {BUILTIN})"
    parser.add_argument("--weights", help=weights)
    parser.add_argument("--image-size", type=int, help="in pixels (digits: 96)")
    parser.add_argument("--epochs", type=int, default=6, help="on augmented images")
    parser.add_argument("--output", type=Path, default=Path("course"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="only to see it run")
    args = parser.parse_args()
    if find_spec("matplotlib") is None:
        parser.error("the pictures need matplotlib: pip install 'sklearn_dl[plots]'")
    if args.epochs < 1:
        parser.error("--epochs must be 1 or more")
    if (args.output / LOG).exists():
        parser.error(f"--output: {args.output} holds an earlier run; give another one")
    os.environ.setdefault("MPLBACKEND", "Agg")
    return args


def show(table: pd.DataFrame) -> None:
    """Print a table."""
    print(table.to_string(index=False, float_format="{:.3f}".format, na_rep=""))


def baselines(course: Course) -> None:
    """Score raw pixels, which whatever follows has to beat, and features + SVM."""
    course.try_out(PIXELS, RawPixels())
    course.try_out(SVM, make_feature_classifier(**course.backbone, probability=True))


def train_head(course: Course) -> None:
    """Train a head, and look at its training."""
    course.try_out(HEAD, model := ImageClassifier(**course.backbone))
    X, y, learn, held = course.X, course.y, course.learn, course.held
    watched = clone(model).fit(X[learn], y[learn], X_val=X[held], y_val=y[held])
    course.draw(look.TrainingHistoryDisplay.from_estimator(watched), "history.png")
    for row in diagnose(watched).itertuples():
        print(f"{row.finding}: {row.evidence}; {row.parameters or 'nothing to change'}")


def analyse(course: Course) -> None:
    """Look at mistakes of the head on training images that it wasn't fitted on."""
    X, y, model, cv = course.X, course.y, course.models[HEAD], course.folds
    worst = look.top_losses(model, X, y, k=12, cv=cv)
    print("The highest losses:")
    show(worst.head(5).drop(columns="path"))
    course.draw(look.TopLossesDisplay(worst, X).plot(), "top_losses.png")
    rows = look.label_errors(model, X, y, k=10, cv=cv)["row"].tolist()
    print(f"Labels to look at again: rows {rows or 'none'}.")
    print("What is taken for what:")
    show(look.most_confused(y, course.predicted(HEAD), k=5, n_examples=4))
    display = look.MostConfusedDisplay(y, course.predicted(HEAD), X).plot()
    course.draw(display, "confused.png")
    fitted, held = course.first[HEAD], course.held
    rows = held[look.top_losses(fitted, X[held], y[held], k=4)["row"]]
    display = look.SaliencyDisplay.from_estimator(fitted, X[rows], y[rows])
    course.draw(display, "saliency.png")
    display = look.EmbeddingDisplay.from_estimator(fitted, X[held], y[held])
    course.draw(display, "features.png")
    course.report = corrupt_images(course, HEAD, "robustness.png")
    print(course.report)


def corrupt_images(course: Course, name: str, picture: str) -> look.RobustnessReport:
    """Report how a model bears corruptions of other images, and draw it."""
    start = time.perf_counter()
    corruptions = OF_DIGITS if course.args.data is None else None
    if course.args.quick:
        corruptions = ["rotation", "darker", "blur"]
    report = look.robustness_report(
        course.first[name],
        *(course.X[course.held], course.y[course.held], course.X[course.learn]),
        corruptions=corruptions,
        severities=(1.0, 2.0),
    )
    course.log.record(
        name,
        report.table["score"].mean(),
        course.models[name],
        metric=CORRUPTED,
        seconds=time.perf_counter() - start,
        since=HEAD,
    )
    course.draw(look.RobustnessDisplay(report).plot(), picture)
    return report


def answer(course: Course) -> None:
    """Regularise, add the augmentations that the report named, and report again."""
    regularised = clone(course.models[HEAD]).set_params(
        head=Head(dropout=0.5),
        optimizer=Optimizer(weight_decay=1e-2),
        loss=LogLoss(label_smoothing=0.1),
    )
    course.try_out(REGULARISED, regularised, since=HEAD)
    before, epochs = course.report, 2 if course.args.quick else course.args.epochs
    if (augment := before.augment) is None:
        augment = "light" if course.args.data is None else "standard"
        print(f"No drop is beyond chance: augment={augment!r} instead.")
    # A head learns which features bear a change; the whole network, to see through it.
    model = clone(regularised).set_params(
        augment=augment,
        trainable="all",
        max_epochs=epochs,
        warmup_epochs=epochs // 3,
        batch_size=16,
    )
    course.try_out(AUGMENTED, model, since=REGULARISED)
    X = course.X[course.learn]
    drawn = look.AugmentationDisplay.from_estimator(course.first[AUGMENTED], X)
    course.draw(drawn, "augmentations.png")
    after = corrupt_images(course, AUGMENTED, "robustness_after.png")
    weak = before.weaknesses
    if len(weak):
        print("Drops of the trained head beyond chance, and what they are now:")
        show(weak[["corruption", "amount", "drop"]].assign(now=after.table["drop"]))
        n_halved = (after.table.loc[weak.index, "drop"] <= weak["drop"] / 2).sum()
        print(f"Halved: {n_halved} of {len(weak)}; they were picked for being large.")
    new = sorted({*after.weaknesses["corruption"]} - {*weak["corruption"]})
    print(f"New weaknesses: {', '.join(new) or 'none'}.")
    print(f"Images as they are: {before.clean_score:.3f}, now {after.clean_score:.3f}.")
    changed, now = before.table["score"].mean(), after.table["score"].mean()
    print(f"Corrupted images, mean: {changed:.3f}, now {now:.3f}.")


def tune(course: Course) -> None:
    """Search parameters of the head, from features that the backbone gave once."""
    grid = {"lr": [3e-3, 1e-2, 3e-2], "head__dropout": [0.0, 0.5]}
    inner = StratifiedKFold(len(course.folds), shuffle=True, random_state=1)
    search = GridSearchCV(course.models[REGULARISED], grid, cv=inner)
    # Each fold searches anew, without its images: the best of several flatters itself.
    course.try_out(TUNED, search, since=REGULARISED)
    search.fit(course.X, course.y)
    results = search.cv_results_
    for i, parameters in enumerate(results["params"]):
        course.log.record(
            ", ".join(f"{k.split('__')[-1]}={v:g}" for k, v in parameters.items()),
            [results[f"split{k}_test_score"][i] for k in range(search.n_splits_)],
            parameters=parameters,
            metric=CANDIDATES,
            seconds=results["mean_fit_time"][i] * search.n_splits_,
            since=TUNED,
        )
    print(f"Of {len(results['params'])} candidates: {search.best_params_}")
    course.models[TUNED] = clone(search.best_estimator_)


def vote(course: Course) -> None:
    """Average probabilities of unlike models, from the folds that each went through."""
    names = [SVM, TUNED, AUGMENTED]
    mean = np.mean([course.found[name] for name in names], axis=0)
    ensemble = VotingClassifier([(n, course.models[n]) for n in names], voting="soft")
    course.keep(VOTE, ensemble, mean, since=course.best(PIXELS).name)
    votes = {name: course.predicted(name) for name in names}
    display = DiversityDisplay(diversity(votes, None, course.y)).plot()
    print(display.diversity)
    course.draw(display, "diversity.png")


def finish(course: Course, X_test, y_test: np.ndarray) -> None:
    """Choose; only then fit on all training images, test, save and export."""
    chosen = course.best(PIXELS)
    print(f"Chosen by the folds: {chosen.name!r}, {chosen.score:.3f}.")
    if course.best().name == PIXELS:
        print(f"Raw pixels are above it: {course.best().score:.3f}.")
    fitted: dict[str, Any] = {}
    on_folds = {e.name: e.score for e in course.log.experiments if e.metric == FOLDS}
    rows = []
    for name, model in course.models.items():
        start = time.perf_counter()
        if name == VOTE:  # its members are fitted by now
            parts = [(n, FrozenEstimator(fitted[n])) for n, _ in model.estimators]
            model = VotingClassifier(parts, voting="soft")
        fitted[name] = clone(model).fit(course.X, course.y)
        right = fitted[name].predict(X_test) == y_test
        course.log.record(
            name,
            right,
            metric=TEST,
            seconds=time.perf_counter() - start,
            since=PIXELS,
        )
        rows.append((name, on_folds[name], right.mean(), "*" * (name == chosen.name)))
    print("The test images, which chose nothing (* is what the folds chose):")
    show(pd.DataFrame(rows, columns=["", "folds", "test", "*"]))
    print(f"One image of the {len(y_test)} is {1 / len(y_test):.3f}.")
    deploy(course, chosen.name, fitted, X_test)


def deploy(course: Course, name: str, fitted: dict, X_test) -> None:
    """Save the chosen model and a graph for other programs; load them, and compare."""
    path = course.args.output / "final.model"
    save(fitted[name], path)
    answers = []
    for model in (fitted[name], load(path)):
        FeatureCache().clear()  # so that each backbone has to work
        answers.append(model.predict_proba(X_test))
    equal = "equal to the last bit" if np.array_equal(*answers) else "NOT equal"
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB), loaded: {equal}.")
    if not all(find_spec(part) for part in ("onnx", "onnxscript", "onnxruntime")):
        print("A graph for other programs needs pip install 'sklearn_dl[export]'.")
        return
    if name == VOTE:
        name = course.best(PIXELS, VOTE).name
        print(f"A graph is of one network: {name!r}, the best one on the folds.")
    path = course.args.output / "final.onnx"
    export_onnx(fitted[name], path)
    graph = load_exported(path).predict_proba(X_test)
    expected = fitted[name].predict_proba(X_test)
    same = np.mean(graph.argmax(axis=1) == expected.argmax(axis=1))
    off = np.abs(graph - expected).max()
    print(f"{path}, loaded: {same:.1%} equal, probabilities within {off:.0e}.")
    print(f"From the command line: python -m sklearn_dl predict {path} IMAGES")


def summarise(course: Course) -> None:
    """Print the log, and draw it."""
    import matplotlib.pyplot as plt

    table = course.log.table
    groups = dict(list(table.groupby("metric", sort=False)))
    for metric, rows in groups.items():
        print(f"\n{metric}")
        show(rows[["name", "score", "spread", "gain", "seconds"]])
    fell = table.loc[(table["gain"] < 0) & (table["metric"] == FOLDS), "name"]
    print(f"\nSteps that fell on the folds: {', '.join(fell) or 'none'}.")
    shown = [metric for metric in groups if metric != CANDIDATES]
    heights = [2 + len(groups[metric]) for metric in shown]
    options: dict = {"height_ratios": heights, "layout": "constrained"}
    _, axes = plt.subplots(len(shown), figsize=(8, 0.4 * sum(heights)), **options)
    for metric, ax in zip(shown, axes, strict=True):
        display = ExperimentsDisplay(course.log.table, metric).plot(ax=ax)
    course.draw(display, "experiments.png")
    print(f"All of it, with parameters: {course.log.path}")


if __name__ == "__main__":
    main()
