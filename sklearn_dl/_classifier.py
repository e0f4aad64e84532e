"""Classification of images: a new head on a pretrained backbone."""

from typing import ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl._parameters import refuse_removed
from sklearn_dl._targets import class_targets
from sklearn_dl.training import gives_margins


class ImageClassifier(ClassifierMixin, NeuralImageEstimator):
    """Classifier of images: a new head trained on a pretrained backbone.

    With a frozen backbone (``trainable="head"``, the default) and no `augment`, each
    image passes through it once, and the head is trained on the features.

    Parameters go in groups: the backbone and its images (`backbone` to `image_shape`),
    the head and the loss (`head` to `class_weight`), the regime (`trainable` to
    `backbone_lr`), changes of images (`augment` to `tta`), optimisation (`max_epochs`
    to `schedule`), stopping (`early_stopping` to `scoring`), and how it runs.

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
        Where the head starts: ``"pre_logits"``, in place of the backbone's last layer;
        ``"pooled"``, after the pooled output of its last stage; or any submodule by
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
    head : Head or None, default=None
        Layers of the head: hidden layers, dropout, initialisation (see
        `sklearn_dl.training.Head`). None is one linear layer on scaled
        features. A grid reaches in: ``head__dropout``.
    loss : {"log_loss", "hinge"}, LogLoss or torch module, default="log_loss"
        What training minimises. ``"hinge"`` gives `decision_function` in place of
        `predict_proba`; ``LogLoss(label_smoothing=0.1)`` spreads a share of each
        target over all classes [2]_. A grid reaches in: ``loss__label_smoothing``.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes; for indicators, of 0 and 1 of each label.
    trainable : {"head", "all"}, int, str, list of str or Trainable, default="head"
        What is trained: the new head alone, everything, the head and the last k
        stages, or the head and the stages named (see the backbone's ``stages``); early
        stages transfer best [1]_. ``Trainable("all", freeze_batch_norm=False)`` lets
        the BatchNorm statistics of trained stages move; by default those of pretrained
        weights keep still. What isn't trained never moves.
    warmup_epochs : int, default=0
        Epochs, among `max_epochs`, in which the head is trained alone, before the rest
        is unfrozen with a fresh optimiser. Not in a warm start or `partial_fit`.
    lr : float or None, default=None
        Learning rate of the head. None suits the optimiser: 1e-2 for SGD and its kin
        and Adagrad, 1e-3 for others.
    backbone_lr : float, (float, float) or None, default=None
        Learning rate of the trained stages; or of the first and the last of them, with
        a geometric scale between. None takes ``lr / 100`` for pretrained weights, else
        ``lr``.
    augment : str, list, callable, Augment or None, default=None
        Random changes of the training images: ``"light"``, ``"standard"``,
        ``"strong"``, ``"trivial"``, ``"rand"``, a list of names such as ``["flip",
        "rotation"]``, a transform of torchvision or Albumentations (see
        `sklearn_dl.augmentation`). ``"mixup"`` among them blends pairs of training
        images [3]_, ``"cutmix"`` patches them together [4]_. With
        ``Augment(..., views=4)`` epochs come back to four views of each image, which a
        frozen backbone sees once each.
    tta : {"flip", "five_crop", "ten_crop"}, int, callable or None, default=None
        Views of an image over which predictions are averaged; an int adds random ones
        of `augment` (or "light") to the plain one; a callable maps a PIL image to
        several.
    max_epochs : int, default=20
        Passes over the training rows.
    batch_size : int or "auto", default=32
        Images in one step, and in one pass of prediction; ``"auto"`` takes 32 in a
        step, and predicts on as many as the device's memory has room for.
    optimizer : str, class or Optimizer, default="momentum"
        One of "sgd", "momentum" (SGD with momentum 0.9), "nesterov", "adagrad",
        "rmsprop", "adam", "adamw". `sklearn_dl.training.Optimizer` has weight decay
        (1e-4 by default), the L1 penalty and gradient clipping.
    schedule : str, callable or Schedule, default="constant"
        How the rates change after the warm-up of the head: "constant", "step",
        "exponential", "cosine", "one_cycle", "plateau" (see
        `sklearn_dl.training.Schedule`); a callable maps (step, number of steps) to a
        factor.
    early_stopping : bool, default=False
        Whether to end training when the validation rows stop improving, and put the
        best weights back.
    validation_fraction : float, default=0.1
        Fraction of the rows taken for validation with early stopping, unless `X_val`
        is given to `fit`. Classes keep their proportions.
    n_iter_no_change : int, default=5
        Epochs in a row without improvement after which early stopping ends training.
    tol : float, default=1e-4
        An improvement is larger than this, against the best epoch so far.
    scoring : str, callable or None, default=None
        What early stopping watches; None watches the validation loss. ``history_`` has
        it as ``valid_score`` (accuracy with None).
    warm_start : bool, default=False
        Whether `fit` goes on from the network of the fit before.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, order of rows, augmentation and validation split.
    device : str, torch.device or list of them, default="auto"
        ``"auto"`` takes a GPU when there is one, ``"all"`` takes all GPUs. Of several
        the first trains; features of a frozen backbone and predictions are shared out,
        each batch to the first that is free.
    precision : str, default="float32"
        Precision of the arithmetic: "bfloat16", "float16", "float32", "float64", or
        "auto", the fastest that the hardware has natively.
    cache : "memory", str, path, FeatureCache or None, default="memory"
        Where features of a frozen backbone are kept (see `FeatureCache`).
    verbose : int, default=0
        1 shows progress bars.
    callbacks : list or None, default=None
        Callbacks of skorch, or of `sklearn_dl.training`: `Checkpoint`,
        `StoppingRules`, `TensorBoard`, `WeightAveraging` and others.
    net_params : dict or None, default=None
        Anything else that skorch's ``NeuralNet`` takes, such as
        ``{"iterator_train__num_workers": 2}``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; for indicators, the positions of their columns.
    module_ : torch.nn.Module
        The network: its ``backbone`` and its ``head``. What you change in it is this
        estimator's own.
    preprocessing_ : Preprocessing
        How images are resized, cropped and normalised.
    history_ : pandas.DataFrame
        One row per epoch: ``epoch`` (from 1), ``dur`` (seconds), ``lr``,
        ``train_loss``, ``train_top1`` and, where there are validation rows,
        ``valid_loss``, ``valid_score``, ``valid_top1``; above 5 classes top 5 too.
    n_iter_, best_epoch_ : int
        Epochs trained; the one whose weights were kept, if early stopping chose one.
    stop_reason_ : str
        Why training ended before `max_epochs`; empty where it didn't.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Number and names of the columns of X in `fit`, where it had them.

    See Also
    --------
    ImageRegressor : The same for continuous targets.
    make_feature_classifier : Features of the backbone and an SVM.

    References
    ----------
    .. [1] J. Yosinski, J. Clune, Y. Bengio and H. Lipson, "How transferable are
       features in deep neural networks?", NIPS, 2014.
    .. [2] C. Szegedy et al., "Rethinking the Inception architecture for computer
       vision", CVPR, 2016.
    .. [3] H. Zhang, M. Cisse, Y. Dauphin and D. Lopez-Paz, "mixup: beyond empirical
       risk minimization", ICLR, 2018.
    .. [4] S. Yun et al., "CutMix: regularization strategy to train strong classifiers
       with localizable features", ICCV, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 128, (8, 32, 32, 3), "uint8")
    >>> images[4:] += 100
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, random_state=0
    ... )
    >>> model.fit(images, ["dark"] * 4 + ["light"] * 4).predict(images[[0, 7]])
    array(['dark', 'light'], dtype='<U5')
    """

    _parameter_constraints: ClassVar[dict] = {
        **NeuralImageEstimator._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

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
        head=None,
        loss="log_loss",
        class_weight=None,
        trainable="head",
        warmup_epochs=0,
        lr=None,
        backbone_lr=None,
        augment=None,
        tta=None,
        max_epochs=20,
        batch_size=32,
        optimizer="momentum",
        schedule="constant",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-4,
        scoring=None,
        warm_start=False,
        random_state=None,
        device="auto",
        precision="float32",
        cache="memory",
        verbose=0,
        callbacks=None,
        net_params=None,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.image_shape = image_shape
        self.head = head
        self.loss = loss
        self.class_weight = class_weight
        self.trainable = trainable
        self.warmup_epochs = warmup_epochs
        self.lr = lr
        self.backbone_lr = backbone_lr
        self.augment = augment
        self.tta = tta
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.scoring = scoring
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.cache = cache
        self.verbose = verbose
        self.callbacks = callbacks
        self.net_params = net_params

    def __getattr__(self, name):
        # Also asked where a method isn't there with this loss.
        if name in ("predict_proba", "predict_log_proba"):
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r} with "
                f"loss={vars(self).get('loss')!r}: loss='log_loss' has it."
            )
        return super().__getattribute__(name)  # which says what is missing

    def __sklearn_tags__(self):
        """Declare that images may have several labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _new_targets(self, y, weight, classes=None):
        targets = class_targets(y, classes)
        self.classes_ = targets.classes
        return targets

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train one epoch at constant rates, going on from what was learned.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.
        y : array-like of shape (n,) or indicators of shape (n, n_labels)
            Classes.
        classes : array-like of shape (n_classes,), default=None
            All classes that will come, in the first call. None takes those in `y`.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`, if y has a class that the first call didn't know, and with
            ``early_stopping=True``.
        """
        return self._partial_fit(X, y, sample_weight, classes)

    @available_if(lambda self: not gives_margins(self.loss))
    def predict_proba(self, X):
        """Return the probability of each class, or of each label.

        With `tta`, the mean over the views. Not there with ``loss="hinge"``.

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
        ValueError, ImageDecodeError, NotFittedError
            As in `predict`.
        """
        return self._outputs(X)

    @available_if(lambda self: not gives_margins(self.loss))
    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class, or of each label.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images, n_classes)
            float32, the logarithm of what `predict_proba` gives.

        Raises
        ------
        ValueError, ImageDecodeError, NotFittedError
            As in `predict`.
        """
        with np.errstate(divide="ignore"):  # a probability may be 0
            return np.log(self.predict_proba(X))

    @available_if(lambda self: gives_margins(self.loss))
    def decision_function(self, X):
        """Return the score of each class; there with ``loss="hinge"``.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_classes)
            float32; of two classes the score of the second one.

        Raises
        ------
        ValueError, ImageDecodeError, NotFittedError
            As in `predict`.
        """
        scores = self._outputs(X, activated=False)
        return self._targets.margins(scores)

    def predict(self, X):
        """Return the most probable class of each image, or its labels.

        Parameters
        ----------
        X : images
            Any form that `fit` takes.

        Returns
        -------
        ndarray of shape (n_images,) or (n_images, n_labels)
            Classes; or 1 where a label is more probable than not, else 0.

        Raises
        ------
        ValueError
            If X is not of a form that `fit` takes, or of another number of pixels.
        ImageDecodeError
            Naming the rows and paths of images that can't be decoded.
        NotFittedError
            If `fit` was not called.
        """
        margins = gives_margins(self.loss)
        scores = self._outputs(X, activated=not margins)
        return self._targets.predictions(scores, margins)
