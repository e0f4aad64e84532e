"""Regression on images: a new head on a pretrained backbone."""

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array

from sklearn_dl._neural import NeuralImageEstimator


class ImageRegressor(RegressorMixin, NeuralImageEstimator):
    """Regressor of images: a linear head trained on a pretrained backbone.

    The loss is the squared error of the targets, scaled to mean 0 and deviation 1.
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
    early_stopping : bool, default=False
        Whether to end training when the validation rows stop improving, and put the
        best weights back.
    validation_fraction : float, default=0.1
        Share of the training rows held back for early stopping, unless `X_val` is
        given to `fit`.
    n_iter_no_change : int, default=5
        Epochs in a row without improvement after which early stopping ends training.
    tol : float, default=1e-4
        An improvement is larger than this, against the best epoch so far.
    scoring : str, callable or None, default=None
        The metric that early stopping watches on the validation rows; None watches
        their loss. ``history_`` records it as ``valid_score`` (R2 with None).
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
    n_targets_ : int
        Number of targets.
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
    ImageClassifier : The same for classes.

    References
    ----------
    .. [1] J. Yosinski, J. Clune, Y. Bengio and H. Lipson, "How transferable are
       features in deep neural networks?", NIPS, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageRegressor
    >>> brightness = np.linspace(0, 200, 16)
    >>> noise = np.random.default_rng(0).integers(0, 56, (16, 32, 32, 3))
    >>> images = (noise + brightness[:, None, None, None]).astype("uint8")
    >>> model = ImageRegressor(
    ...     "squeezenet1_1", weights=None, image_size=32, random_state=0
    ... )
    >>> bool(model.fit(images, brightness).score(images, brightness) > 0.8)
    True
    """

    _criterion = torch.nn.MSELoss

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

    def __sklearn_tags__(self):
        """Declare that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit_target(self, y, weight) -> tuple[torch.Tensor, int]:
        y = self._checked_target(y)
        self._single = y.ndim == 1
        y = y.reshape(len(y), -1)
        if not (self.warm_start and hasattr(self, "net_")):
            self._target_scaler = StandardScaler().fit(y, sample_weight=weight)
            self.n_targets_ = y.shape[1]
        elif y.shape[1] != self.n_targets_:
            raise ValueError(
                f"warm_start=True goes on with {self.n_targets_} outputs, but y has "
                f"{y.shape[1]}."
            )
        return self._scaled(y), self.n_targets_

    def _guessing_loss(self, n_outputs: int) -> float:
        return 1.0  # the variance of scaled targets

    def _new_target(self, y) -> torch.Tensor:
        y = self._checked_target(y)
        y = y.reshape(len(y), -1)
        if y.shape[1] != self.n_targets_:
            raise ValueError(
                f"y_val has {y.shape[1]} targets, but y has {self.n_targets_}."
            )
        return self._scaled(y)

    def _checked_target(self, y) -> np.ndarray:
        """Return y as float64, (n,) or (n, n_targets)."""
        return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")

    def _scaled(self, y: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._target_scaler.transform(y))

    def _decode_target(self, target: torch.Tensor) -> np.ndarray:
        return self._unscaled(target.numpy())

    def _unscaled(self, outputs: np.ndarray) -> np.ndarray:
        if self._single:
            return self._target_scaler.inverse_transform(outputs)[:, 0]
        return self._target_scaler.inverse_transform(outputs.astype(np.float64))

    def predict(self, X):
        """Return the targets of each image.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_targets)
            float64 for several targets, as scikit-learn asks; float32 for one, so
            with 7 significant digits.

        Raises
        ------
        ValueError
            If X is not of a form that `fit` takes, or of another number of pixels.
        ImageDecodeError
            Naming the rows and paths of images that can't be decoded.
        NotFittedError
            If `fit` was not called.
        """
        return self._unscaled(self._outputs(X))
