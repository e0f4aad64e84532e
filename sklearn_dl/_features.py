"""Features of images from a frozen backbone, and an SVM on them."""

import warnings

import numpy as np
import pandas as pd
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._base import ImageEstimatorMixin, on_cpu, with_callbacks
from sklearn_dl._extraction import (
    FeaturesFile,
    FrozenModel,
    run_frozen,
    write_file,
    write_shards,
)
from sklearn_dl._images import Channels, Selection
from sklearn_dl._parameters import (
    BACKBONE_CONSTRAINTS,
    NestedParameters,
    refuse_removed,
)
from sklearn_dl._plain import PlainParameters
from sklearn_dl._runtime import draw_seed, fingerprint_text, free_bytes
from sklearn_dl.augmentation import resolve_views
from sklearn_dl.backbones import Backbone, Preprocessing, digest_weights, handed_out
from sklearn_dl.datasets import (
    FeaturesTable,
    check_count,
    check_features_dtype,
    check_features_path,
    check_shard,
    shard_rows,
)

# Features below these are not compared with the memory that is free.
_LARGE_BYTES = 2**28


class ImageFeatureExtractor(
    NestedParameters,
    ImageEstimatorMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    PlainParameters,
    BaseEstimator,
):
    """Features of images from a frozen pretrained backbone.

    `fit` loads the backbone and trains nothing. `transform` gives one row of float32
    features per image, for an SVM, a logistic regression or any other estimator [1]_.

    Parameters
    ----------
    backbone : str or callable, default="auto"
        Name of a torchvision classification model (see `list_backbones`); ``"auto"``,
        which is ``"mobilenet_v2"``, or the one of the built-in weights; or a callable
        that returns a ``torch.nn.Module`` from images to features.
    weights : str, path, enum member or None, default="DEFAULT"
        ``"DEFAULT"`` or an entry such as ``"IMAGENET1K_V1"``: torchvision's, downloaded
        on first use. ``"builtin"``: in this package, of ``"mobilenet_v3_small"``.
        A path of a state dict (``.pth``, ``.pt``, ``.safetensors``). None: random ones.
    layer : str or (str, str), default="pre_logits"
        Where features are taken: ``"pre_logits"``, what enters the backbone's last
        layer; ``"pooled"``, the pooled output of its last stage; or any submodule by
        name (see `sklearn_dl.backbones.find_layers`). A pair says how the layer's map
        or tokens become one row: ``("layer4", "max")``, or "avg", "flatten", "cls".
    preprocessing : object, default=None
        Overrides the weights' own preprocessing: ``"pad"`` (black beside the image) or
        ``"squash"`` to show all of each image, not its centre; ``"data"`` or a pair
        (mean, std) for the mean and deviation of the channels, of the training rows
        or these, on the scale 0 to 1; an entry of weights, by name or as enum
        member, whose preprocessing is taken; a `Preprocessing`; a preset of
        torchvision; or a callable from a PIL image to a normalised tensor.
    image_size : int, tuple of int or None, default=None
        Input size of the network in pixels. An int keeps the proportions of the
        weights' resize and crop; (height, width) resizes straight to that size. None
        takes the weights' size.
    image_shape : tuple of int, Channels or None, default=None
        (height, width) or (height, width, channels) of rows of pixels; None infers
        it where images are square. ``Channels(13)`` and ``Channels([3, 2, 1])`` of
        `sklearn_dl.datasets` are for images of other channels than grey and RGB.
    tta : {"flip", "five_crop", "ten_crop"}, int, callable or None, default=None
        Views of an image over which features are averaged; an int adds random views
        to the plain one (``"light"`` of `sklearn_dl.augmentation`); a callable maps a
        PIL image to several.
    batch_size : int or "auto", default="auto"
        Images in one pass of the network; ``"auto"`` takes 32 on a CPU, more on a GPU,
        and fewer where memory is short.
    device : str, torch.device or list of them, default="auto"
        ``"auto"`` takes a GPU when there is one, ``"all"`` takes all GPUs. Of several,
        each batch goes to the first that is free.
    precision : str, default="float32"
        Precision of the arithmetic: "bfloat16", "float16", "float32", "float64", or
        "auto", the fastest that the hardware has natively.
    cache : "memory", str, path, FeatureCache or None, default="memory"
        Where features of the frozen backbone are kept, by the content of each image:
        in this process; in a folder, for all processes and later runs; or nowhere. See
        `FeatureCache`.
    random_state : int, RandomState instance or None, default=None
        Seed of random weights (``weights=None``). With None they differ at each fit, so
        that nothing is found in the cache.
    verbose : int, default=0
        1 shows a progress bar; 2 writes a line to stderr each half minute, for logs.

    Attributes
    ----------
    backbone_ : Backbone
        The network, a ``torch.nn.Module``. What you change in it is its own: other
        estimators keep theirs, and its features get entries of their own in the cache.
    preprocessing_ : Preprocessing
        How images are resized, cropped and normalised.
    n_features_out_ : int
        Number of features.
    n_features_in_ : int
        Number of columns of X in `fit`, where it had columns.
    feature_names_in_ : ndarray of str
        Names of the columns of X in `fit`, where they were strings.

    See Also
    --------
    make_feature_classifier : A pipeline of this, a scaler and an SVM.
    ImageClassifier : A new head trained on the backbone.
    sklearn_dl.datasets.load_features : Reads what `transform_to` wrote.

    References
    ----------
    .. [1] A. S. Razavian, H. Azizpour, J. Sullivan and S. Carlsson, "CNN features
       off-the-shelf: an astounding baseline for recognition", CVPR Workshops, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageFeatureExtractor
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 80, 64, 3), "uint8")
    >>> extractor = ImageFeatureExtractor(
    ...     "mobilenet_v3_small", weights="builtin", image_size=64
    ... )
    >>> extractor.fit_transform(images).shape
    (4, 1024)
    """

    _parameter_constraints = BACKBONE_CONSTRAINTS

    @refuse_removed
    def __init__(
        self,
        backbone="auto",
        *,
        weights="DEFAULT",
        layer="pre_logits",
        preprocessing=None,
        image_size=None,
        image_shape=None,
        tta=None,
        batch_size="auto",
        device="auto",
        precision="float32",
        cache="memory",
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.image_shape = image_shape
        self.tta = tta
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        """Declare that features are float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @with_callbacks
    def fit(self, X, y=None):
        """Load the backbone; images are read only for ``preprocessing="data"``.

        Parameters
        ----------
        X : images
            Any form that the library takes: arrays, tensors, rows of pixels, paths,
            PIL images, encoded bytes.
        y : None
            Ignored.

        Returns
        -------
        self : object
            Fitted extractor.

        Raises
        ------
        ValueError
            If a parameter or X is not valid, or weights don't fit the backbone.
        OSError
            If weights can't be downloaded.
        """
        self._validate_params()
        with self._fit_task(X, y):
            execution, source = self._execution(), self._fit_source(X)
            seed = draw_seed(self.random_state)
            self._backbone = self._load_backbone(source, seed, execution)
            self.preprocessing_ = self._backbone.preprocessing
            self.n_features_out_ = self._backbone.n_features
        return self

    def fit_transform(self, X, y=None):
        """Fit, and return the features of the same images.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.
        y : None
            Ignored.

        Returns
        -------
        ndarray of shape (n_images, n_features_out)
            As of `transform`.
        """
        self.fit(X, y)
        with warnings.catch_warnings():  # of X as a whole, which `fit` gave
            warnings.filterwarnings("ignore", "X has ", UserWarning)
            return self.transform(X)

    @property
    def backbone_(self) -> Backbone:
        """The network, a ``torch.nn.Module``.

        What you change in its layers is this extractor's own, and seen by its features.
        Once it was asked for, each call looks at all its weights, until the next fit.
        """
        check_is_fitted(self)
        return handed_out(self, "_backbone")

    def transform(self, X):
        """Return the features of images.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images, n_features_out)
            float32; float64 with ``precision="float64"``.

        Raises
        ------
        ValueError
            If X is not of a form that `fit` takes, or of another number of pixels.
        ImageDecodeError
            Naming the rows and paths of images that can't be decoded.
        NotFittedError
            If `fit` was not called.
        """
        source, views = self._new_source(X), None
        n_bytes = len(source) * self.n_features_out_ * np.dtype("float32").itemsize
        if n_bytes > _LARGE_BYTES:
            self._warn_if_large(len(source), n_bytes)
        if self.tta is not None:
            views = resolve_views(self.tta, self.preprocessing_)
        return run_frozen(
            self._backbone,
            source,
            self._execution(fall_back=True),
            cache=self.cache,
            views=views,
            description="features",
        )

    def transform_to(
        self,
        X,
        path,
        y=None,
        *,
        split=None,
        dtype="float32",
        shard=None,
        n_shards=None,
    ):
        """Write the features of images to a file, with memory for a few batches.

        What a process left that was killed is taken up where it ended, when the same
        call is made again: until all is there, the features stand in ``NAME.part``, and
        what is done in ``NAME.part.json``. `sklearn_dl.datasets.load_features` and
        `~sklearn_dl.datasets.iter_features` read the file.

        Inside ``joblib.parallel_config("dask")`` with `n_shards`, the parts are tasks
        of the cluster's workers, each of which reads its images and writes its part
        itself. A worker that dies costs some seconds of work in a folder, its part
        behind a URL.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.
        path : str or Path
            The file, replaced as a whole. ``.npy`` has a JSON beside it, ``NAME.json``,
            with paths, labels and what the features depend on; ``.parquet`` has all in
            it, in the columns ``path``, ``label``, ``split``, ``error`` and
            ``features`` (lists of one length), and needs pyarrow. Or a URL that fsspec
            has a driver for, such as ``s3://``: it is put there when it is whole.
        y : array-like of shape (n_images,) or (n_images, n_targets), default=None
            Labels or targets, kept beside the features.
        split : array-like of str of shape (n_images,), default=None
            The part of the data of each image, such as "train", kept beside them.
        dtype : {"float32", "float16"}, default="float32"
            Type of the numbers in the file. float16 takes half of the space, and has
            three digits, up to 65,504.
        shard : (int, int) or str, default=None
            ``(3, 16)`` or ``"3/16"`` writes the third of 16 parts of the rows. They
            begin at multiples of 32 rows, and may be empty where images are few;
            `load_features` takes the files of all.
        n_shards : int, default=None
            ``16`` writes all 16 parts: of ``photos.npy`` the files
            ``photos-01-of-16.npy`` to ``photos-16-of-16.npy``. Those that are there
            already, of the same features, images, labels and splits, are kept: delete
            one to have it written again. Images are told apart by their paths, or by
            the pixels of thirty-two; those of a dataset without paths can't be, and are
            all written again. On a cluster, take several parts for each worker.

        Returns
        -------
        DataFrame with columns "row", "path" and "reason"
            The images that couldn't be read, whose features are NaN; a warning says
            how many they are.

        Raises
        ------
        ValueError
            If X, `y`, `split`, `shard` or `n_shards` is not valid, a feature is beyond
            float16, or the unfinished file is of other features, as of another
            backbone.
        OSError
            If the file can't be written, or another process writes it too; after a
            full disk what is done is kept.
        NotFittedError
            If `fit` was not called.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from sklearn_dl import ImageFeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
        >>> extractor = ImageFeatureExtractor(
        ...     "mobilenet_v3_small", weights="builtin", image_size=32
        ... ).fit(images)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     failed = extractor.transform_to(images, f"{folder}/features.npy")
        ...     np.load(f"{folder}/features.npy").shape
        (4, 1024)
        """
        from sklearn_dl._saving import versions  # that few need

        source = self._new_source(X)
        part, target = check_shard(shard), check_features_path(path)
        n = None if n_shards is None else check_count("n_shards", n_shards)
        if part is not None and n is not None:
            raise ValueError(
                "shard is one of several parts, n_shards all: give either."
            )
        about = {
            "features": self.describe_features(),
            "dtype": check_features_dtype(dtype),
            "n_features": self.n_features_out_,
            "shard": part,
            "of_rows": len(source),
            "versions": versions(),
        }
        rows, table = shard_rows(len(source), part), FeaturesTable(source, y, split)
        if n is not None or part is not None:
            about["part_digests"] = table.part_digests(n or part[1])
        file = FeaturesFile(target, table, rows, about)
        views = resolve_views(self.tta, self.preprocessing_)
        execution = self._execution(fall_back=True)
        model = FrozenModel(self._backbone, execution, self.cache, views)
        if n is None:
            errors = write_file(model, file)
        else:
            errors = write_shards(model, file, n)
        failed = [(row, source.path(row), why) for row, why in errors.items()]
        if failed:
            warnings.warn(
                f"{len(failed)} of {len(rows)} images could not be read: their rows in "
                f"{path} are NaN.",
                UserWarning,
                stacklevel=2,
            )
        columns = ["row", "path", "reason"]
        return pd.DataFrame(failed, columns=columns, dtype=object).astype({"row": int})

    def describe_features(self):
        """Say what the features depend on, the images aside.

        Files of features hold it, so that those of another backbone are told apart.

        Returns
        -------
        dict
            The name of the ``backbone``, the digest (SHA-256) of its ``weights``, the
            ``layer``, the ``preprocessing`` and the views of ``tta``; and the
            ``channels`` that are taken of images, where `image_shape` names some.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        """
        check_is_fitted(self)
        backbone, views = self._backbone, resolve_views(self.tta, self.preprocessing_)
        layer, seen = backbone.layer, backbone.preprocessing
        plain = isinstance(seen, Preprocessing)
        shape = self.image_shape
        taken = Selection.of(shape).taken if isinstance(shape, Channels) else None
        return {
            "backbone": backbone.name,
            "weights": digest_weights(backbone.module),
            "layer": layer if isinstance(layer, str) else list(layer),
            "preprocessing": repr(seen) if plain else fingerprint_text(seen),
            "tta": None if views is None else fingerprint_text(views),
            **({} if taken is None else {"channels": list(taken)}),
        }

    def _warn_if_large(self, n_images, needed):
        """Warn where features and what a scaler makes of them don't fit in memory."""
        free = free_bytes(torch.device("cpu"))
        if 2 * needed > free:
            warnings.warn(
                f"The features of {n_images} images take {needed / 1e9:.1f} GB; "
                f"{free / 1e9:.1f} GB of memory are free. transform_to writes them to "
                "a file, and sklearn_dl.datasets.iter_features reads them in chunks "
                "for partial_fit.",
                UserWarning,
                stacklevel=3,
            )

    @property
    def _n_features_out(self):
        return self.n_features_out_

    def _pickled_state(self):
        state = super()._pickled_state()
        if "_backbone" in state:
            state = {**state, "_backbone": on_cpu(state["_backbone"])}
        return state


@refuse_removed
def make_feature_classifier(
    backbone="auto",
    *,
    classifier=None,
    weights="DEFAULT",
    layer="pre_logits",
    preprocessing=None,
    image_size=None,
    image_shape=None,
    tta=None,
    batch_size="auto",
    device="auto",
    precision="float32",
    cache="memory",
    probability=False,
    random_state=None,
    memory=None,
    verbose=0,
):
    """Build the pipeline of features, scaler and classifier.

    Features of a frozen backbone and a linear SVM are a strong first model where
    images are few. Of images whose features don't fit in memory, a few times over,
    write the features to a file (`ImageFeatureExtractor.transform_to`), and train with
    ``partial_fit`` on the chunks of `sklearn_dl.datasets.iter_features`.

    Parameters
    ----------
    backbone : str or callable, default="auto"
        As in `ImageFeatureExtractor`.
    classifier : classifier or None, default=None
        Any scikit-learn classifier. None takes `FeatureSVC`, a linear SVM.
    weights, layer, preprocessing, image_size, image_shape : object
        As in `ImageFeatureExtractor`.
    tta, batch_size, device, precision, cache : object
        As in `ImageFeatureExtractor`.
    probability : bool, default=False
        Whether to calibrate the classifier (Platt's sigmoid [1]_, 5 folds), so that
        the pipeline has ``predict_proba`` and soft voting takes it.
    random_state : int, RandomState instance or None, default=None
        Seed of random weights.
    memory : str, joblib.Memory or None, default=None
        As in scikit-learn's ``Pipeline``. It keys on the paths, not on the images;
        `cache` does better.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With steps ``"features"``, ``"scaler"`` (`FeatureScaler`) and ``"classifier"``.

    Raises
    ------
    TypeError
        If a classifier is given in place of the backbone.

    References
    ----------
    .. [1] J. Platt, "Probabilistic outputs for support vector machines and comparisons
       to regularized likelihood methods", 1999.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import make_feature_classifier
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 128, (8, 32, 32, 3), "uint8")
    >>> images[4:] += 100
    >>> model = make_feature_classifier(weights="builtin", image_size=32)
    >>> model.fit(images, ["dark"] * 4 + ["light"] * 4).predict(images[[0, 7]])
    array(['dark', 'light'], dtype='<U5')
    """
    # Who only wants features doesn't wait for these.
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import Pipeline

    from sklearn_dl._linear import FeatureScaler, FeatureSVC

    if classifier is None:
        classifier = FeatureSVC()
    if probability:
        classifier = CalibratedClassifierCV(classifier, ensemble=False)
    extractor = ImageFeatureExtractor(
        backbone,
        weights=weights,
        layer=layer,
        preprocessing=preprocessing,
        image_size=image_size,
        image_shape=image_shape,
        tta=tta,
        batch_size=batch_size,
        device=device,
        precision=precision,
        cache=cache,
        random_state=random_state,
        verbose=verbose,
    )
    steps = [
        ("features", extractor),
        ("scaler", FeatureScaler()),
        ("classifier", classifier),
    ]
    return Pipeline(steps, memory=memory)
