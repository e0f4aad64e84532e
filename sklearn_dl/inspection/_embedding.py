"""Features of images, near-duplicates by them, and their place in two dimensions."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._base import ImageEstimatorMixin, estimators_within, network_of
from sklearn_dl._extraction import OnFeatures, run_frozen, run_network
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl.augmentation import resolve_views

_REDUCED = 50  # components that t-SNE starts from
_ROWS = 512  # compared with all others at once
# A pair is near where its distance (1 minus the cosine) is at most so many times the
# median distance of an image to its nearest other.
_SHARE = 0.4
# What rounding makes of equal features.
_EQUAL = 1e-5
_SAMPLE = 1024  # images whose nearest are looked for


def features_of(estimator: Any, X: Any) -> tuple[np.ndarray, str]:
    """Return features of images, and what they are of."""
    if isinstance(estimator, Pipeline):
        check_is_fitted(estimator)
        last = estimator.steps[-1][1]
        if len(estimator.steps) == 1 and not hasattr(last, "transform"):
            return features_of(last, X)
        if hasattr(last, "transform"):
            return estimator.transform(X), "features of the pipeline"
        return estimator[:-1].transform(X), f"features before {type(last).__name__}"
    if isinstance(estimator, NeuralImageEstimator):
        check_is_fitted(estimator)
        return _before_the_head(estimator, X), _name_of(estimator)
    if hasattr(estimator, "transform"):
        return estimator.transform(X), _name_of(estimator)
    raise TypeError(
        f"{type(estimator).__name__} makes no features: give an ImageFeatureExtractor, "
        "ImageClassifier, ImageRegressor, a pipeline or a transformer; of a search "
        "give best_estimator_, of an ensemble one of its members."
    )


def _name_of(estimator: Any) -> str:
    backbone = getattr(estimator, "backbone", None)
    if isinstance(backbone, str):
        return f"features of {backbone}"
    return f"features of {type(estimator).__name__}"


def _before_the_head(estimator: NeuralImageEstimator, X: Any) -> np.ndarray:
    """Return what the head of a fitted classifier or regressor sees."""
    source, execution = estimator._new_source(X), estimator._execution(fall_back=True)
    preprocessing, backbone = estimator.preprocessing_, estimator._network.backbone
    views = resolve_views(estimator.tta, preprocessing, estimator.augment)
    options: dict[str, Any] = {"description": "features", "views": views}
    if backbone.trains:
        network = backbone.as_it_is()
        return run_network(network, source, preprocessing, execution, **options)
    return run_frozen(backbone, source, execution, cache=estimator.cache, **options)


def network_within(model: Any) -> Any:
    """Return the first fitted estimator with a backbone in a model, None without."""
    inside = estimators_within(model)
    fitted = (e for e in inside if isinstance(e, ImageEstimatorMixin) and network_of(e))
    return next(fitted, None)


def backbone_features(estimator: Any, X: Any) -> np.ndarray:
    """Return the features of an estimator with a backbone, before head and scaler."""
    if isinstance(estimator, NeuralImageEstimator):
        return _before_the_head(estimator, X)
    return estimator.transform(X)


def answers_to_features(estimator: Any, features: np.ndarray) -> np.ndarray:
    """Return probabilities, scores or numbers that features get, without views."""
    network, targets = estimator._network, estimator._targets
    head = OnFeatures(network.head, estimator._execution(fall_back=True))
    outputs = head(torch.from_numpy(features))
    if not hasattr(estimator, "classes_"):
        return targets.predictions(targets.activate(outputs).to(outputs).numpy())
    if hasattr(estimator, "predict_proba"):
        return targets.activate(outputs).to(outputs).numpy()
    return targets.margins(outputs.double().to(outputs).numpy())


def embedded(
    features: np.ndarray, method: Any, random_state: int
) -> tuple[np.ndarray, str, tuple[str, str]]:
    """Return features in two dimensions, what they are, and labels of the axes."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n, width = features.shape
    labels, name = ("dimension 1", "dimension 2"), type(method).__name__
    if width == 2:
        return features, "", labels
    if isinstance(method, str) and method == "pca":
        pca = PCA(min(2, width), random_state=random_state)
        points = np.zeros((n, 2))
        points[:, : pca.n_components] = pca.fit_transform(features)
        shares = np.zeros(2)
        shares[: pca.n_components] = np.nan_to_num(pca.explained_variance_ratio_)
        one, two = (
            f"component {k + 1}: {shares[k]:.0%} of the variance" for k in (0, 1)
        )
        return points, "principal components", (one, two)
    if isinstance(method, str) and method == "tsne":
        if n < 4:
            raise ValueError(f"method='tsne' needs at least 4 images, got {n}.")
        if min(n, width) > _REDUCED:
            features = PCA(_REDUCED, random_state=random_state).fit_transform(features)
        init = "pca" if width > 1 else "random"
        near = min(30.0, (n - 1) / 3)
        method = TSNE(perplexity=near, init=init, random_state=random_state)
        name = "t-SNE"
    if not hasattr(method, "fit_transform"):
        raise ValueError(
            f"method={method!r} is none of 'pca', 'tsne', nor a transformer with "
            "fit_transform, such as umap.UMAP()."
        )
    points = np.asarray(method.fit_transform(features))
    if points.shape != (n, 2):
        raise ValueError(
            f"{name}.fit_transform returned the shape {points.shape}, not ({n}, 2): "
            "set its n_components to 2."
        )
    return points, name, labels


def spread(points: np.ndarray, side: float, most: int) -> np.ndarray:
    """Return rows whose squares don't overlap, each the farthest from those before."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    # Squares overlap where both distances are below their side.
    row = int(np.abs(points - middle).max(axis=1).argmin())
    nearest = np.full(len(points), np.inf)
    chosen: list[int] = []
    while len(chosen) < most and nearest[row] > side:
        chosen.append(row)
        distance = np.abs(points - points[row]).max(axis=1)
        nearest = np.minimum(nearest, distance)
        row = int(nearest.argmax())
    return np.array(chosen, dtype=int)


def near_duplicates(
    features: np.ndarray, others: np.ndarray | None = None, *, k: int = 60
) -> pd.DataFrame:
    """Return the k pairs of images (or of images and others) most alike, if nearly."""
    one = _normalised(features)
    limit = _limit(one)
    two = one if others is None else _normalised(others)
    every = np.empty((0, 3))
    for start in range(0, len(one), _ROWS):
        distances = 1 - one[start : start + _ROWS] @ two.T
        if others is None:  # each pair once
            rows = start + np.arange(len(distances))
            distances[np.arange(len(two)) <= rows[:, None]] = np.inf
        # Where images are all equal, all their pairs would not fit into memory.
        near = np.flatnonzero(distances <= limit)
        near = near[np.argsort(distances.flat[near], kind="stable")[:k]]
        row, other = np.unravel_index(near, distances.shape)
        pairs = np.column_stack([start + row, other, distances.flat[near]])
        every = np.concatenate([every, pairs])
        every = every[np.argsort(every[:, 2], kind="stable")][:k]
    table = pd.DataFrame(every[:, :2].astype(int), columns=["row", "other"])
    table["similarity"] = 1 - every[:, 2]
    return table


def _limit(features: np.ndarray) -> float:
    """Return the distance up to which a pair is near, from some of the images."""
    if len(features) < 3:
        return _EQUAL
    rows = np.linspace(0, len(features) - 1, min(len(features), _SAMPLE)).astype(int)
    distances = 1 - features[rows] @ features.T
    distances[np.arange(len(rows)), rows] = np.inf
    return max(_EQUAL, _SHARE * float(np.median(distances.min(axis=1))))


def _normalised(features: np.ndarray) -> np.ndarray:
    features = features.reshape(len(features), -1).astype(np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
