"""Parts of an image that a prediction rests on."""

from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions, validate_params
from torch.nn.functional import interpolate

from sklearn_dl._extraction import PixelReader
from sklearn_dl._images import ImageSource
from sklearn_dl.backbones import Backbone, Preprocessing
from sklearn_dl.inspection._attribution import (
    Explained,
    dtype_of,
    explained,
    find_map,
    grad_cam,
    occlusion,
)


@validate_params(
    {
        "method": [StrOptions({"auto", "grad_cam", "occlusion"})],
        "layer": [str, None],
        "frame": [StrOptions({"image", "input"})],
    },
    prefer_skip_nested_validation=False,
)
def saliency(
    estimator, X, *, target=None, method="auto", layer=None, frame="image"
) -> Any:
    """Return maps of the parts of images that a prediction rests on.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor or Pipeline
        Fitted; it stays as it is. A pipeline begins with an `ImageFeatureExtractor`.
    X : images
        Any form that `estimator` takes.
    target : class, int, array-like of shape (n,) or None, default=None
        What is explained: a class for all images or one for each; for a regressor with
        several outputs, and a classifier of several labels, their position. None is
        the class of the highest score, or the only output.
    method : {"auto", "grad_cam", "occlusion"}, default="auto"
        ``"grad_cam"`` [1]_ weighs the channels of a layer's map by the mean of the
        output's gradient: one pass. ``"occlusion"`` [2]_ measures how far the output
        falls where a grey square, a quarter of the sides, covers the image: some 50
        passes, any network. ``"auto"`` is the first where the network has a map.
    layer : str or None, default=None
        The submodule of the backbone whose output Grad-CAM takes: a map, or tokens of a
        transformer, which are put back on their grid. None takes the last one that
        matters, but none of fewer than 4 cells a side: in a vision transformer what
        enters the last attention, after which only the token of the class counts.
    frame : {"image", "input"}, default="image"
        Maps of whole images at their own sizes, 0 outside of the centre crop, which the
        network doesn't see; or of the network's inputs.

    Returns
    -------
    ndarray of float32, shape (n, H, W), or list of n such arrays (H, W)
        A list where images differ in size. In units of the output that is explained: a
        class's score before softmax or sigmoid, a `decision_function`, the log-odds of
        a pipeline with probabilities alone, or a regressor's prediction. What speaks
        against a class is 0; what lowers a regressor's prediction is negative.

    Raises
    ------
    TypeError
        If there is no network to look into.
    ValueError
        If `target` is none of the classes or outputs, or the layer has no map.
    NotFittedError
        If the estimator isn't fitted.

    See Also
    --------
    SaliencyDisplay : The maps over the images.

    Notes
    -----
    With `tta` the plain view alone is explained. A map says what this network used, not
    what is true of the object; a method that doesn't agree with the other one on an
    image deserves little trust there.

    Through a pipeline's scikit-learn part gradients are taken by central differences,
    which are exact for linear models; trees have none, so give ``"occlusion"``.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via
       gradient-based localization", ICCV 2017.
    .. [2] M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional
       networks", ECCV 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.inspection import saliency
    >>> X = np.random.default_rng(0).integers(0, 128, (8, 40, 40, 3), "uint8")
    >>> X[4:, 4:16, 24:36] += 120
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=64, random_state=0
    ... ).fit(X, ["no"] * 4 + ["square"] * 4)
    >>> saliency(model, X, target="square").shape
    (8, 40, 40)
    """
    model = explained(estimator)
    source = model.source_of(X)
    preprocessing: Any = model.backbone.preprocessing
    if frame == "image" and not isinstance(preprocessing, Preprocessing):
        raise ValueError(
            "Where the crop of a preprocessing that is a function lies in an image "
            "isn't known: use frame='input'."
        )
    if layer is not None and method == "occlusion":
        raise ValueError("layer is for method='grad_cam'; occlusion has none.")
    wanted = _columns(model, target, len(source))
    maps: list[np.ndarray] = []
    found: Any = None
    with (
        torch.inference_mode(False),  # turns gradients on, too
        PixelReader(source, preprocessing, model.device) as reader,
    ):
        for rows, pixels in reader.batches(model.step_size):
            x = preprocessing.normalize(pixels).to(dtype_of(model.backbone))
            size = (x.shape[-2], x.shape[-1])
            if found is None and method != "occlusion":
                found = _map_of(model.backbone, size, method, layer)
                method = "grad_cam" if found else "occlusion"
            if wanted is None:
                columns = _scores(model, x).argmax(1)
            else:
                columns = torch.from_numpy(wanted[rows])
            columns = columns.to(model.device)
            if method == "grad_cam":
                values = grad_cam(model, x, columns, *found)
            else:
                values = occlusion(model, x, columns)
            if model.classes is not None:
                values = values.clamp(min=0)
            values = interpolate(values.float()[:, None], size, mode="bilinear")
            maps.extend(values[:, 0].cpu().numpy())
    if frame == "image":
        maps = [
            placed(values, preprocessing, _size_of_row(source, row))
            for row, values in enumerate(maps)
        ]
    return np.stack(maps) if len({m.shape for m in maps}) == 1 else maps


def _scores(model: Explained, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.scores(model.backbone(x))


def _map_of(backbone: Backbone, size, method: str, layer: str | None):
    """Return the layer and layout for Grad-CAM; None where it can't be."""
    names = [name for name, _ in backbone.module.named_modules() if name]
    if layer is not None and layer not in names:
        raise ValueError(
            f"layer={layer!r} is no submodule of the backbone; its last ones are "
            f"{', '.join(names[-5:])}."
        )
    found = find_map(backbone, size, layer)
    if found is None and layer is not None:
        raise ValueError(
            f"layer={layer!r} gives no map or tokens that the features depend on: "
            "take an earlier one, or layer=None."
        )
    if found is None and method == "grad_cam":
        raise ValueError(
            "No layer of this backbone gives a map of the image: use "
            "method='occlusion'."
        )
    return found


def _columns(model: Explained, target: Any, n: int) -> np.ndarray | None:
    """Return the column of the scores for each image; None for the highest."""
    if model.classes is None:
        size = model.backbone.preprocessing.output_size or (224, 224)
        shape = (1, model.backbone.preprocessing.n_channels, *size)
        x = torch.zeros(shape).to(model.device, dtype_of(model.backbone))
        known: list[Any] = list(range(_scores(model, x).shape[1]))
        if target is None and len(known) > 1:
            raise ValueError(
                f"The regressor has {len(known)} outputs: give target, from 0 to "
                f"{known[-1]}."
            )
        target = 0 if target is None else target
    elif target is None:
        return None
    else:
        known = model.classes.tolist()
    wanted = np.asarray(target)
    if wanted.ndim > 1 or (wanted.ndim == 1 and len(wanted) != n):
        raise ValueError(
            f"target must be one for all images or one for each of {n}, got the shape "
            f"{wanted.shape}."
        )
    each = wanted.tolist() if wanted.ndim else [wanted.item()] * n
    for row, one in enumerate(each):
        if one not in known:
            raise ValueError(
                f"target is {one!r} in row {row}, but there are {known!r:.200}."
            )
    return np.array([known.index(one) for one in each], dtype=int)


def placed(
    values: np.ndarray, preprocessing: Preprocessing, size: tuple[int, int]
) -> np.ndarray:
    """Return a map of a network's input at its place in an image (height, width)."""
    resized = preprocessing.resized_size(*size)
    down, across = map(_placing, size, resized, values.shape)
    return down @ values.astype(np.float32) @ across.T


def _placing(side: int, resized: int, seen: int) -> np.ndarray:
    """Return how a crop's lines become an image's: (side, seen) weights, 0 beyond."""
    # Linear between the lines of the resized image, which of a strip would be large.
    # As torchvision crops: smaller images are padded first.
    room = resized - seen
    start = round(room / 2) if room >= 0 else -(-room // 2)
    lines = np.arange(side)
    at = np.clip((lines + 0.5) * resized / side - 0.5, 0, resized - 1)
    first = np.floor(at).astype(int)
    weights = np.zeros((side, seen), dtype=np.float32)
    for line, weight in ((first, 1 - at + first), (first + 1, at - first)):
        column = np.minimum(line, resized - 1) - start
        inside = (column >= 0) & (column < seen)
        weights[lines[inside], column[inside]] += weight[inside]
    return weights


def _size_of_row(source: ImageSource, row: int) -> tuple[int, int]:
    """Return height and width of an image."""
    if source.image_shape is not None:
        return source.image_shape[:2]
    image = source[row]
    return image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
