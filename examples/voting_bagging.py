"""Ensembles next to their members, and why they gain or don't.

::

    python examples/voting_bagging.py --data hymenoptera_data --picture diversity.png

Votes, hard and soft, over features + SVM, trained heads and a fine-tuned network;
bagging, boosting and stacking; one network from several seeds. For the votes it prints
what the members have in common: `sklearn_dl.ensemble.diversity`.
"""

import time
from pathlib import Path

from folders import load_split, parser_for
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, make_feature_classifier
from sklearn_dl.ensemble import DiversityDisplay, diversity
from sklearn_dl.model_selection import recommend_regime


def main() -> None:
    """Fit everything and print accuracies on the held-out images."""
    parser = parser_for(__doc__)
    parser.add_argument("--picture", type=Path, help="draw the diversity of the vote")
    parser.add_argument(
        "--epochs", type=int, default=7, help="of the fine-tuned networks"
    )
    args = parser.parse_args()
    X, X_test, y, y_test, backbone = load_split(args)

    print(f"\n{'':36}  accuracy  seconds")
    fitted = {}
    for name, model in {**members(backbone, args), **ensembles(backbone, args)}.items():
        start = time.perf_counter()
        fitted[name] = model.fit(X, y)
        accuracy = model.score(X_test, y_test)
        seconds = time.perf_counter() - start
        print(f"{name:36}  {accuracy:8.3f}  {seconds:7.1f}", flush=True)

    for name in ("hard vote", "bagging of 10 SVMs", "three seeds, averaged"):
        found = diversity(fitted[name], X_test, y_test)
        print(f"\n{name}: {found}")
    if args.picture:
        found = diversity(fitted["hard vote"], X_test, y_test)
        display = DiversityDisplay(found).plot()
        display.figure_.savefig(args.picture, dpi=150)


def members(backbone, args) -> dict:
    """Return the models that vote."""
    # Which layer is an earlier one, whatever the backbone.
    unlike_photographs = recommend_regime(ImageClassifier(**backbone), 100, "different")
    layer = unlike_photographs[0].estimator["features"].layer
    return {
        "features + SVM": make_feature_classifier(**backbone, probability=True),
        "features of an earlier layer + SVM": make_feature_classifier(
            **backbone, layer=layer, probability=True
        ),
        "trained head": ImageClassifier(**backbone),
        "fine-tuned": fine_tuned(backbone, args, seed=0),
    }


def fine_tuned(backbone, args, seed: int) -> ImageClassifier:
    """Return a network trained as a whole after a warm-up of its head."""
    return ImageClassifier(
        **{**backbone, "random_state": seed},
        trainable="all",
        warmup_epochs=2,
        max_epochs=args.epochs,
    )


def ensembles(backbone, args) -> dict:
    """Return scikit-learn's ensembles of them."""
    voters = list(members(backbone, args).items())
    extractor = ImageFeatureExtractor(**backbone)
    svm = make_pipeline(extractor, StandardScaler(), LinearSVC(C=1e-3))
    weak = CalibratedClassifierCV(LinearSVC(C=1e-4), ensemble=False, cv=3)
    seeds = [(f"seed {s}", fine_tuned(backbone, args, seed=s)) for s in range(3)]
    return {
        "hard vote": VotingClassifier(voters),
        "soft vote": VotingClassifier(voters, voting="soft"),
        "stacking": StackingClassifier(voters[:3], LogisticRegression(), cv=5),
        "bagging of 10 SVMs": BaggingClassifier(svm, 10, random_state=0),
        "bagging of 10 heads": BaggingClassifier(
            ImageClassifier(**backbone), 10, random_state=0
        ),
        "AdaBoost of 10 SVMs": make_pipeline(
            extractor, StandardScaler(), AdaBoostClassifier(weak, n_estimators=10)
        ),
        "AdaBoost of 10 heads": AdaBoostClassifier(
            ImageClassifier(**backbone), n_estimators=10, random_state=0
        ),
        "three seeds, averaged": VotingClassifier(seeds, voting="soft"),
    }


if __name__ == "__main__":
    main()
