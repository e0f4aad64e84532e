"""Classification of images: a new head on a pretrained backbone."""

from typing import ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import column_or_1d, compute_class_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets

from sklearn_dl._neural import NeuralImageEstimator


class ImageClassifier(ClassifierMixin, NeuralImageEstimator):
    """Classifier of images: a linear head trained on a pretrained backbone.

    With the backbone frozen (``trainable="head"``, the default) each image passes
    through it once per fit, and the head is trained on the features.

    Parameters
    ----------
    backbone : str or callable, default="mobilenet_v2"
        Name of a torchvision classification model (see `list_backbones`), or a
        callable that returns a ``torch.nn.Module`` from images to features.
    weights : str, path, enum member or None, default="DEFAULT"
        ``"DEFAULT"`` or the name of an entry such as ``"IMAGENET1K_V1"``: torchvision's
        weights, downloaded on first use. A path to a state dict (``.pth``, ``.pt`` or
        ``.safetensors``). None for random weights.
    layer : str, default="pre_logits"
        Where the head starts: ``"pre_logits"``, in place of the backbone's last layer;
        ``"pooled"``, after the pooled output of its last stage; or any submodule by
        name (see `sklearn_dl.backbones.find_layers`).
    pooling : {"avg", "max", "flatten", "cls"} or None, default=None
        How a layer's map or tokens become one row; None takes the layer's own way.
    preprocessing : str, enum member, Preprocessing, preset, callable or None, \
            default=None
        Overrides the weights' own preprocessing: an entry of weights, by name or as
        enum member, whose preprocessing is taken; a `Preprocessing`; a preset of
        torchvision; or a callable from a PIL image to a normalised tensor.
    image_size : int, tuple of int or None, default=None
        Input size of the network in pixels. An int keeps the proportions of the
        weights' resize and crop; (height, width) resizes straight to that size. None
        takes the weights' size.
    image_shape : tuple of int or None, default=None
        (height, width) or (height, width, channels) of rows of pixels; None infers
        it where images are square.
    normalize : {"weights", "data"} or (mean, std), default="weights"
        Mean and deviation of the three channels, on the scale 0 to 1: those of the
        weights, those of the training rows, or these.
    trainable : {"head", "all"}, int, str or list of str, default="head"
        What is trained: the new head alone, everything, the head and the last k
        stages, or the head and the stages named (see the backbone's ``stages``).
    freeze_batch_norm : bool or "auto", default="auto"
        Whether the BatchNorm statistics of trained stages keep still; ``"auto"``: of
        pretrained weights yes, of random ones no. What isn't trained never moves.
    max_epochs : int, default=20
        Passes over the training rows.
    lr : float or None, default=None
        Learning rate of the head. None takes one that suits the optimiser: 1e-2 for
        SGD and its kin and Adagrad, 1e-3 for the others.
    backbone_lr : float or None, default=None
        Learning rate of the trained stages of the backbone. None takes ``lr / 100``
        for pretrained weights, ``lr`` for random ones.
    batch_size : int, default=32
        Images in one step, and in one pass of prediction.
    optimizer : {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"} \
            or class, default="momentum"
        By name, or a class of torch. ``"momentum"`` is SGD with momentum 0.9.
    weight_decay : float, default=1e-4
        Torch's ``weight_decay``, for weights; biases and norms don't decay.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss.
    early_stopping : bool, default=False
        Whether to end training when the validation rows stop improving, and put the
        best weights back.
    validation_fraction : float, default=0.1
        Share of the training rows held back for early stopping, unless `X_val` is
        given to `fit`. Classes keep their proportions.
    n_iter_no_change : int, default=5
        Epochs in a row without improvement after which early stopping ends training.
    tol : float, default=1e-4
        An improvement is larger than this, against the best epoch so far.
    scoring : str, callable or None, default=None
        The metric that early stopping watches on the validation rows; None watches
        their loss. ``history_`` records it as ``valid_score`` (accuracy with None).
    warm_start : bool, default=False
        Whether `fit` goes on from the network of the fit before.
    random_state : int, RandomState instance or None, default=None
        Of the head's initial weights, random weights of the backbone, the order of
        the rows and the validation split.
    device : str or torch.device, default="auto"
        ``"auto"`` takes a GPU when there is one.
    precision : {"auto", "bfloat16", "float16", "float32", "float64"}, \
            default="float32"
        Of the arithmetic; ``"auto"`` is the fastest that the hardware has natively.
    verbose : int, default=0
        1 shows progress bars.
    callbacks : list or None, default=None
        Callbacks of skorch.
    net_params : dict or None, default=None
        Anything else that skorch's ``NeuralNet`` takes, such as
        ``{"iterator_train__num_workers": 2}``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    net_ : skorch net
        With the network in ``net_.module_``.
    preprocessing_ : Preprocessing
        How images are resized, cropped and normalised.
    history_ : pandas.DataFrame
        One row per epoch: ``epoch`` (from 1), ``dur`` (seconds), ``train_loss`` and,
        where there are validation rows, ``valid_loss`` and ``valid_score``.
    n_iter_ : int
        Epochs trained.
    best_epoch_ : int
        The epoch whose weights were kept, where early stopping chose one.
    n_features_in_ : int
        Number of columns of X in `fit`, where it had columns.
    feature_names_in_ : ndarray of str
        Names of the columns of X in `fit`, where they were strings.

    See Also
    --------
    ImageRegressor : The same for continuous targets.
    make_feature_classifier : Features of the backbone and an SVM.

    References
    ----------
    .. [1] J. Yosinski, J. Clune, Y. Bengio and H. Lipson, "How transferable are
       features in deep neural networks?", NIPS, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 128, (8, 32, 32, 3), "uint8")
    >>> images[4:] += 100
    >>> model = ImageClassifier(
    ...     "squeezenet1_1", weights=None, image_size=32, random_state=0
    ... )
    >>> model.fit(images, ["dark"] * 4 + ["light"] * 4).predict(images[[0, 7]])
    array(['dark', 'light'], dtype='<U5')
    """

    _parameter_constraints: ClassVar[dict] = {
        **NeuralImageEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }
    classes_: np.ndarray
    _criterion = torch.nn.CrossEntropyLoss

    def __init__(
        self,
        backbone="mobilenet_v2",
        *,
        weights="DEFAULT",
        layer="pre_logits",
        pooling=None,
        preprocessing=None,
        image_size=None,
        image_shape=None,
        normalize="weights",
        trainable="head",
        freeze_batch_norm="auto",
        max_epochs=20,
        lr=None,
        backbone_lr=None,
        batch_size=32,
        optimizer="momentum",
        weight_decay=1e-4,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-4,
        scoring=None,
        warm_start=False,
        random_state=None,
        device="auto",
        precision="float32",
        verbose=0,
        callbacks=None,
        net_params=None,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.image_shape = image_shape
        self.normalize = normalize
        self.trainable = trainable
        self.freeze_batch_norm = freeze_batch_norm
        self.max_epochs = max_epochs
        self.lr = lr
        self.backbone_lr = backbone_lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.scoring = scoring
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.verbose = verbose
        self.callbacks = callbacks
        self.net_params = net_params

    def _fit_target(self, y, weight) -> tuple[torch.Tensor, int]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        classes = encoder.classes_
        if len(classes) < 2:
            raise ValueError(
                f"y has one class, {classes.tolist()[0]!r}; a classifier needs at "
                "least 2 classes."
            )
        if self.warm_start and hasattr(self, "net_"):
            if not np.array_equal(classes, self.classes_):
                raise ValueError(
                    f"warm_start=True goes on with the classes {self.classes_!r}, "
                    f"but y has {classes!r}."
                )
        self.classes_ = classes
        return torch.from_numpy(encoder.transform(y)).long(), len(classes)

    def _new_target(self, y) -> torch.Tensor:
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y_val has classes that y has not: {unknown.tolist()[:10]!r}."
            )
        return torch.from_numpy(np.searchsorted(self.classes_, y)).long()

    def _decode_target(self, target: torch.Tensor) -> np.ndarray:
        return self.classes_[target.numpy()]

    def _target_weight(self, target: torch.Tensor, weight: np.ndarray):
        if isinstance(self.class_weight, str):
            totals = np.bincount(target, weights=weight, minlength=len(self.classes_))
            per_class = weight.sum() / np.where(totals > 0, totals, np.inf)
        else:
            per_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_
            )
        if not (np.isfinite(per_class) & (per_class >= 0)).all():
            raise ValueError(
                f"class_weight={self.class_weight!r} must hold finite weights of at "
                "least 0."
            )
        return lambda target: per_class[target.numpy()]

    def _guessing_loss(self, n_outputs: int) -> float:
        return float(np.log(n_outputs))

    def _strata(self, target: torch.Tensor) -> np.ndarray:
        return target.numpy()

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images, n_classes)
            float32, in the order of ``classes_``.

        Raises
        ------
        ValueError
            If X is not of a form that `fit` takes, or of another number of pixels.
        ImageDecodeError
            Naming the rows and paths of images that can't be decoded.
        NotFittedError
            If `fit` was not called.
        """
        outputs = self._outputs(X)
        # In float64, so that the rows of float32 sum to 1 as nearly as they can.
        probabilities = torch.softmax(torch.from_numpy(outputs).double(), dim=1)
        return probabilities.numpy().astype(outputs.dtype, copy=False)

    def predict(self, X):
        """Return the most probable class of each image.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images,)
            Labels.

        Raises
        ------
        ValueError
            If X is not of a form that `fit` takes, or of another number of pixels.
        ImageDecodeError
            Naming the rows and paths of images that can't be decoded.
        NotFittedError
            If `fit` was not called.
        """
        most_probable = self._outputs(X).argmax(axis=1)
        return self.classes_[most_probable]
