"""One page to look at: an error report that is read, and worked in, in a browser."""

import base64
import hashlib
import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from sklearn_dl._files import check_target, replacing
from sklearn_dl._images import ImageDecodeError, ImageSource, as_source, look_at_images
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.inspection import _page_parts as parts
from sklearn_dl.inspection import _page_scores as scores
from sklearn_dl.inspection._embedding import backbone_features
from sklearn_dl.inspection._judged import KEPT, Judged, judge, readable
from sklearn_dl.inspection._pictures import encoded, reduced, thumbnail, with_map
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._saliency import placed, saliency
from sklearn_dl.inspection._stream import image_shape_of

_ODD = 60  # findings of `verify_images` with a picture
_AT_ONCE = 4  # images whose maps are made at once, for their gradients' memory
_SPARE = 40_000  # bytes for what is found out last
_LEAST = 600  # bytes of a picture


@dataclass(frozen=True)
class ReportOptions:
    """What of `write_report` is rarely changed.

    Parameters
    ----------
    n_images : int, default=300
        Pictures in the galleries at most: images with doubtful labels, then the others
        by falling loss.
    n_saliency : int, default=12
        For how many images, those of the highest losses, a map is made of what in it
        counts (Grad-CAM). Models without a network that can be looked into have none.
    robustness : RobustnessReport, default=None
        What `robustness_report` returned: its curves are drawn.
    title : str, default=None
        Heading; None names the model.
    max_bytes : int, default=5_000_000
        Size of the file: the more pictures, the smaller each is.
    random_state : int, RandomState instance or None, default=0
        Shuffles the folds of `cv`.

    Raises
    ------
    InvalidParameterError
        If a value isn't possible.

    Examples
    --------
    >>> from sklearn_dl.inspection import ReportOptions
    >>> ReportOptions(n_images=1000).max_bytes
    5000000
    """

    n_images: int = 300
    n_saliency: int = 12
    robustness: RobustnessReport | None = None
    title: str | None = None
    max_bytes: int = 5_000_000
    random_state: Any = 0

    _constraints: ClassVar[dict] = {
        "n_images": [Interval(Integral, 1, None, closed="left")],
        "n_saliency": [Interval(Integral, 0, None, closed="left")],
        "robustness": [RobustnessReport, None],
        "title": [str, None],
        "max_bytes": [Interval(Real, 200_000, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __post_init__(self):
        validate_parameter_constraints(
            self._constraints, vars(self), caller_name=type(self).__name__
        )


def write_report(
    model,
    X,
    y,
    path: str | os.PathLike,
    *,
    cv=None,
    reference=None,
    slices=None,
    options: ReportOptions | None = None,
) -> Path:
    """Write a page about where a model errs, in which labels can be corrected.

    The page is one HTML file: it asks nothing of any server, and opens from disk in
    any browser. It has

    - what was fitted and how well it does, with intervals and a baseline;
    - the worst predictions as a gallery, with maps of what counted (Grad-CAM);
    - labels that are likely wrong. Each image can be kept, relabelled or dropped, by
      buttons or keys; the browser remembers, and downloads ``corrections.csv``, which
      `apply_corrections` takes;
    - confusions with examples, calibration, slices, robustness, the training history;
    - duplicates, and what `verify_images` finds.

    Of a regressor there are the largest errors, and residuals against targets; of a
    classifier of several labels per image, the errors of each label.

    Parameters
    ----------
    model : classifier or regressor
        Fitted; with `cv` it need not be.
    X : images
        Any form that `model` takes. Those that can't be read are listed and left out.
    y : array-like of shape (n,), or (n, n_outputs)
        Labels, indicators of several labels (the columns of a DataFrame name them), or
        numbers.
    path : str or path-like
        The file, which is replaced as a whole.
    cv : int, splitter or iterable of (train, test), default=None
        Judge each image by a clone fitted without it, as `top_losses` does. Give it
        for the images that the model was fitted on: it hides their wrong labels.
    reference : images, default=None
        The images that the model was fitted on, where X are others: near-duplicates of
        them are listed, if there is a backbone to compare by.
    slices : DataFrame, Series, dict or array-like of shape (n,), default=None
        What is known of the images: their scores by it, as of `slice_scores`; of
        several labels per image the share of images with all labels right.
    options : ReportOptions, default=None
        Numbers of pictures, robustness curves, title, size.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    ValueError
        If y or slices don't belong to X, or X holds no images.
    ImportError
        If Jinja2 is missing: ``pip install "sklearn_dl[report]"``.
    NotFittedError
        If `cv` is None and the model isn't fitted.
    OSError
        If the file can't be written.

    See Also
    --------
    sklearn_dl.datasets.apply_corrections : The way back.
    top_losses, label_errors, most_confused, slice_scores : The parts as tables.

    Notes
    -----
    The backbone sees each image once, for predictions, folds and near-duplicates alike:
    an estimator with ``cache=None`` has a cache of 128 MiB meanwhile. Each image is
    decoded once more, for its picture and `verify_images`.

    Near-duplicates are pairs whose features are at most 0.4 times as far apart (1 minus
    their cosine) as an image usually is from its nearest other.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dl.inspection import write_report
    >>> X = np.repeat([[10], [20], [200], [210]], 10, axis=0) * np.ones(64)
    >>> y = np.repeat(["dark", "light"], 20)
    >>> y[3] = "light"  # on purpose
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(
    ...         LogisticRegression(), X.astype("uint8"), y, f"{folder}/page.html", cv=5
    ...     )
    ...     page.name, "likely wrong" in page.read_text()
    ('page.html', True)
    """
    options = ReportOptions() if options is None else options
    check_target(path)
    render = _renderer()
    try:
        judged = judge(model, X, y, cv, options.random_state)
        others = None
        if reference is not None and judged.network is not None:
            others = _others(judged, reference)
    finally:
        KEPT.clear()
    found, worst, doubted = parts.cards(judged)
    shown = [*dict.fromkeys([*doubted, *worst])][: options.n_images]
    page = _values(judged, slices, options)
    page |= {
        "parameters": repr(model),
        "pairs": parts.duplicates(judged, others),
        "n_doubted": len(doubted),
        "n_likely": sum("suggestion" in card for card in found.values()),
        "data": _data(judged, found, shown, worst, doubted),
    }
    wanted = {*judged.rows[shown].tolist()}
    wanted |= {row for pair in page["pairs"] for row in pair["rows"]}
    for pair in page["confusions"]:
        wanted |= {*pair["examples"], pair["typical"]} - {None}
    strangers = {pair["other"] for pair in page["pairs"] if "other" in pair}
    n_pictures = len(wanted) + len(strangers) + options.n_saliency + _ODD
    room = options.max_bytes - _SPARE - len(render(page))
    most = max(_LEAST, int(room / n_pictures))
    pictures, findings = _looked_at(judged.source, y, wanted, most)
    for row in strangers:
        assert others is not None
        pictures[f"reference {row}"] = encoded(thumbnail(others[0], row), most)
    chosen = {*shown}
    seen = [position for position in worst if position in chosen]
    for position, picture in _maps(judged, seen[: options.n_saliency]).items():
        pictures[f"map {judged.rows[position]}"] = encoded(picture, most)
    page |= {"odd": findings.head(_ODD).to_dict("records"), "n_odd": len(findings)}
    html = render(page | {"pictures": pictures})
    with replacing(path) as file:
        file.write(html)
    return Path(path)


def _others(judged: Judged, X: Any) -> tuple[ImageSource, np.ndarray, np.ndarray]:
    """Return other images, their rows that can be read, and features of these."""
    source = as_source(X, image_shape=image_shape_of(judged.model))
    rows = np.arange(len(source))
    try:
        return source, rows, backbone_features(judged.network, X)
    except ImageDecodeError:
        rows = readable(source)
        if len(rows) in (0, len(source)):
            raise
        X = _safe_indexing(X, rows)
        return source, rows, backbone_features(judged.network, X)


def _values(judged: Judged, slices: Any, options: ReportOptions) -> dict[str, Any]:
    """Return what the template lays out, as far as it has no pictures."""
    return {
        "title": options.title or f"Report of {type(judged.model).__name__}",
        "facts": scores.facts(judged),
        "kind": judged.kind,
        "n_images": len(judged.rows),
        "n_folds": judged.n_folds,
        "names": judged.names,
        "scores": scores.scores(judged),
        "classes": scores.classes(judged),
        "confusions": parts.confusions(judged),
        "calibration": parts.calibration(judged),
        "residuals": parts.residuals(judged),
        "slices": parts.slices_of(judged, slices, len(judged.source)),
        "robustness": parts.robustness(options.robustness),
        "history": parts.history(judged.network),
        "odd": [],
        "n_odd": 0,
        "pictures": {},
    }


def _looked_at(
    source: ImageSource, y: Any, wanted: set[int], most: int
) -> tuple[dict[str, str], pd.DataFrame]:
    """Return pictures of rows, and what is odd; each image is decoded once for both."""
    pictures: dict[str, str] = {}

    def on_image(row: int, image: Any) -> None:
        if row in wanted:
            pictures[str(row)] = encoded(reduced(image, source.channels), most)

    findings = look_at_images(source, y, on_image)
    # Of many of one kind, such as "scale", the graver aren't hidden.
    graver = findings["kind"].isin(["unreadable", "two classes"])
    findings = findings.iloc[np.argsort(~graver, kind="stable")]
    for row in {*findings["row"].head(_ODD)} - {*map(int, pictures)}:
        try:
            pictures[str(row)] = encoded(thumbnail(source, row), most)
        except ImageDecodeError:  # which is what is odd
            continue
    return pictures, findings


def _data(judged: Judged, found, shown, worst, doubted) -> dict[str, Any]:
    """Return what the page's script knows of the images."""
    rows, names, chosen = judged.rows, judged.names, {*shown}
    known = [found[position] for position in judged.positions]
    said: list[Any] = [names, [(card["path"], card["old"]) for card in known]]
    if judged.source.stackable:  # what has no paths is known by its pixels
        said.append(judged.source.digests(rows))
    return {
        # Of the images and labels alone: marks outlive a page that is written anew.
        "id": hashlib.sha256(repr(said).encode("utf-8", "replace")).hexdigest()[:16],
        "kind": judged.kind,
        "names": names,
        "cards": {str(rows[position]): found[position] for position in shown},
        "worst": [int(rows[p]) for p in worst if p in chosen],
        "doubted": [int(rows[p]) for p in doubted if p in chosen],
    }


def _maps(judged: Judged, positions: list[int]) -> dict[int, np.ndarray]:
    """Return pictures with what in them counts, where there is a network to ask."""
    model = getattr(judged.model, "best_estimator_", judged.model)
    preprocessing = getattr(judged.network, "preprocessing_", None)
    if not positions or not isinstance(preprocessing, Preprocessing):
        return {}
    target: Any = judged.predicted[positions]
    if judged.kind == "labels":  # the worst one
        target = np.abs(judged.values - judged.truth)[positions].argmax(axis=1)
    elif judged.kind == "numbers":
        target = np.zeros(len(positions), dtype=int)
    maps: list[np.ndarray] = []
    for start in range(0, len(positions), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        images = _safe_indexing(judged.X, positions[part])
        try:
            maps += [*saliency(model, images, target=target[part], frame="input")]
        except TypeError:  # such as of an ensemble
            return {}
    found = {}
    for position, values in zip(positions, maps, strict=True):
        small = thumbnail(judged.source, int(judged.rows[position]))
        at_its_place = placed(values, preprocessing, small.shape[:2])
        found[position] = with_map(small, at_its_place)
    return found


def _renderer() -> Any:
    """Return the function from a page's values to its bytes."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise ImportError(
            'The report needs Jinja2: pip install "sklearn_dl[report]".'
        ) from error
    loader = jinja2.PackageLoader("sklearn_dl", "inspection/templates")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    own: dict[str, Any] = {}
    for name, file in (("style", "report.css"), ("script", "report.js")):
        text = loader.get_source(environment, file)[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        own |= {name: Markup(text), f"{name}_hash": digest}

    def render(page: dict[str, Any]) -> bytes:
        # Bytes of a name that are no UTF-8 are spelled out.
        return template.render(own | page).encode("utf-8", "backslashreplace")

    return render
