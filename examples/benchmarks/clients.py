r"""Which libraries hand which form of X to an estimator: docs/guide/clients.md.

::

    pip install cleanlab crepes dask-ml datasets doubtlab imbalanced-learn lime \
        mapie mlxtend modAL-python optuna-integration pyod scikit-optimize skrub \
        umap-learn yellowbrick
    python clients.py

Each library trains or uses a classifier of this package on 32 small drawn images, with
the weights in the package; none needs a network. What fails is tried again with a
classifier of scikit-learn's kind that takes any X: where that fails too, the library
refuses the form. Libraries that are not installed are left out.
"""

import argparse
import tempfile
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression

from sklearn_dl import ImageClassifier, ImageFeatureExtractor

FORMS = ("paths (n, 1)", "list", "DataFrame", "(n, H, W, C)", "rows", "Column")
BACKBONE = {
    "backbone": "mobilenet_v3_small",
    "weights": "builtin",
    "image_size": 64,
    "random_state": 0,
}


class AnyClassifier(ClassifierMixin, BaseEstimator):
    """Classifier that takes anything that has a length."""

    def __init__(self, lr=None):
        self.lr = lr

    def fit(self, X, y):
        """Learn the classes."""
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        """Return the first class."""
        return np.repeat(self.classes_[:1], len(X))

    def predict_proba(self, X):
        """Return probabilities that lean to the first class."""
        first = 0.5 + 0.001 * np.arange(len(X))
        return np.stack([first, 1 - first], axis=1)


class AnyExtractor(TransformerMixin, BaseEstimator):
    """Transformer that takes anything that has a length."""

    def fit(self, X, y=None):
        """Learn nothing."""
        return self

    def transform(self, X):
        """Return numbers."""
        return np.random.default_rng(0).normal(size=(len(X), 8))


def classifier():
    """Return the classifier that is tried out."""
    return ImageClassifier(max_epochs=2, **BACKBONE)


def extractor():
    """Return the transformer that is tried out."""
    return ImageFeatureExtractor(**BACKBONE)


def cleanlab(model, features, X, y):
    """Find label issues."""
    from cleanlab.classification import CleanLearning

    labels = np.unique(y, return_inverse=True)[1]
    CleanLearning(model(), cv_n_folds=2).fit(X, labels)


def crepes(model, features, X, y):
    """Predict sets of classes."""
    from crepes import WrapClassifier

    wrapped = WrapClassifier(model())
    wrapped.fit(X, y)
    wrapped.calibrate(X, y)
    wrapped.predict_set(X)


def dask_ml(model, features, X, y):
    """Search a grid."""
    from dask_ml.model_selection import GridSearchCV

    GridSearchCV(model(), {"lr": [0.01, 0.02]}, cv=2, scheduler="sync").fit(X, y)


def doubtlab(model, features, X, y):
    """Find rows to doubt."""
    from doubtlab.ensemble import DoubtEnsemble
    from doubtlab.reason import ProbaReason

    fitted = model().fit(X, y)
    DoubtEnsemble(proba=ProbaReason(fitted, max_proba=0.6)).get_indices(X, y)


def imblearn_rows(model, features, X, y):
    """Draw rows of the smaller class again."""
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import make_pipeline

    make_pipeline(RandomOverSampler(random_state=0), model()).fit(X, y)


def imblearn_features(model, features, X, y):
    """Make up features of the smaller class."""
    from imblearn.over_sampling import SMOTE
    from imblearn.pipeline import make_pipeline

    make_pipeline(features(), SMOTE(random_state=0), LogisticRegression()).fit(X, y)


def lime(model, features, X, y):
    """Explain one image."""
    from lime.lime_image import LimeImageExplainer

    fitted = model().fit(X, y)
    LimeImageExplainer(random_state=0).explain_instance(
        np.asarray(X[0]), fitted.predict_proba, num_samples=20
    )


def mapie(model, features, X, y):
    """Predict sets of classes."""
    from mapie.classification import SplitConformalClassifier

    split = SplitConformalClassifier(model(), confidence_level=0.8, prefit=False)
    split.fit(X, y).conformalize(X, y).predict_set(X)


def mlxtend_vote(model, features, X, y):
    """Vote."""
    from mlxtend.classifier import EnsembleVoteClassifier

    EnsembleVoteClassifier([model(), model()], voting="soft").fit(X, y).predict(X)


def mlxtend_stacking(model, features, X, y):
    """Stack."""
    from mlxtend.classifier import StackingClassifier

    stack = StackingClassifier(
        [model(), model()], LogisticRegression(), use_probas=True
    )
    stack.fit(X, y).predict(X)


def modal(model, features, X, y):
    """Ask which rows to label."""
    from modAL.models import ActiveLearner

    ActiveLearner(model(), X_training=X, y_training=y).query(X, n_instances=2)


def optuna(model, features, X, y):
    """Search."""
    from optuna.distributions import FloatDistribution
    from optuna.integration import OptunaSearchCV

    space = {"lr": FloatDistribution(1e-3, 1e-1, log=True)}
    OptunaSearchCV(model(), space, cv=2, n_trials=2, random_state=0).fit(X, y)


def pyod(model, features, X, y):
    """Find outliers among features."""
    from pyod.models.iforest import IForest
    from sklearn.pipeline import make_pipeline

    make_pipeline(features(), IForest(random_state=0)).fit(X)


def skopt(model, features, X, y):
    """Search."""
    from skopt import BayesSearchCV

    space = {"lr": (1e-3, 1e-1, "log-uniform")}
    BayesSearchCV(model(), space, n_iter=2, cv=2, random_state=0).fit(X, y)


def skrub(model, features, X, y):
    """Take features of the columns of a table."""
    from skrub import ApplyToCols

    ApplyToCols(features(), cols=["path"]).fit_transform(X)


def umap(model, features, X, y):
    """Draw features in two dimensions."""
    from sklearn.pipeline import make_pipeline
    from umap import UMAP

    make_pipeline(features(), UMAP(n_neighbors=5, random_state=0)).fit_transform(X)


def yellowbrick(model, features, X, y):
    """Draw a confusion matrix."""
    import matplotlib

    matplotlib.use("Agg")
    from yellowbrick.classifier import ConfusionMatrix

    matrix = ConfusionMatrix(model(), force_model=True)
    matrix.fit(X, y)
    matrix.score(X, y)


# Package, module, what is done, with which function.
CLIENTS: list[tuple[str, str, str, Callable]] = [
    ("cleanlab", "cleanlab", "`CleanLearning`, integer labels", cleanlab),
    ("crepes", "crepes", "`WrapClassifier`", crepes),
    ("dask-ml", "dask_ml", "`GridSearchCV`", dask_ml),
    ("doubtlab", "doubtlab", "`DoubtEnsemble`", doubtlab),
    ("imbalanced-learn", "imblearn", "`RandomOverSampler`, classifier", imblearn_rows),
    ("imbalanced-learn", "imblearn", "extractor, `SMOTE`", imblearn_features),
    ("lime", "lime", "`LimeImageExplainer`", lime),
    ("mapie", "mapie", "`SplitConformalClassifier`", mapie),
    ("mlxtend", "mlxtend", "`EnsembleVoteClassifier`", mlxtend_vote),
    ("mlxtend", "mlxtend", "`StackingClassifier`", mlxtend_stacking),
    ("modAL-python", "modAL", "`ActiveLearner.query`", modal),
    ("optuna-integration", "optuna.integration", "`OptunaSearchCV`", optuna),
    ("pyod", "pyod", "extractor, `IForest`", pyod),
    ("scikit-optimize", "skopt", "`BayesSearchCV`", skopt),
    ("skrub", "skrub", "`ApplyToCols`, extractor", skrub),
    ("umap-learn", "umap", "extractor, `UMAP`", umap),
    (
        "yellowbrick",
        "yellowbrick",
        "`ConfusionMatrix`, `force_model=True`",
        yellowbrick,
    ),
]


def main() -> None:
    """Try every library with every form, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="packages to try")
    parser.add_argument("--debug", action="store_true", help="print tracebacks")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"| library | use | {' | '.join(FORMS)} |")
    print(f"|{'---|' * (2 + len(FORMS))}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        forms, y = draw_images(Path(folder))
        for package, module, use, function in CLIENTS:
            if args.only and package not in args.only:
                continue
            try:
                import_module(module)
            except ImportError as error:
                print(f"{package} is left out: {error}", flush=True)
                continue
            cells = [
                "not tried" if X is None else try_out(function, X, y, args.debug)
                for X in forms
            ]
            name = f"{package} {version(package)}"
            print(f"| {name} | {use} | {' | '.join(cells)} |", flush=True)


def draw_images(folder: Path):
    """Return 32 images in all forms, and their classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 130, (32, 48, 48, 3), "uint8")
    y = np.repeat(["dark", "light"], [14, 18])
    images[14:] += 120
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    paths = [str(folder / f"{i}.png") for i in range(len(images))]
    column = np.array(paths, dtype=object)[:, None]
    frame = pd.DataFrame({"path": paths})
    rows = images.reshape(len(images), -1)
    return (column, paths, frame, images, rows, column_of(paths)), y


def column_of(paths: list[str]):
    """Return images as a column of a dataset of Hugging Face's, if that is there."""
    try:
        from datasets import Dataset, Features, Image
    except ImportError:
        return None
    features = Features({"image": Image()})
    return Dataset.from_dict({"image": paths}, features=features)["image"]


def try_out(function: Callable, X, y, debug: bool) -> str:
    """Say whether a library works on X, and whose fault it is where it doesn't."""
    try:
        function(classifier, extractor, X, y)
        return "yes"
    except Exception:
        if debug:
            traceback.print_exc()
    try:
        function(AnyClassifier, AnyExtractor, X, y)
        return "fails"
    except Exception:
        return "refused"


if __name__ == "__main__":
    main()
