"""What the classifier and the regressor share: training a head on a backbone."""

import copy
import warnings
from abc import abstractmethod
from contextlib import ExitStack
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from sklearn_dl._base import (
    BACKBONE_CONSTRAINTS,
    ImageEstimatorMixin,
    with_callbacks,
)
from sklearn_dl.extraction import PixelReader
from sklearn_dl.runtime import (
    draw_seed,
    keep_large_blocks,
    release_memory,
    resolve_device,
    resolve_precision,
    seeded,
)
from sklearn_dl.training import (
    OPTIMIZERS,
    BackboneWithHead,
    EarlyStopping,
    EpochProgress,
    EstimatorNet,
    Rows,
    TaskContexts,
    TrainingRows,
    ValidationScore,
    build_net,
    check_callbacks,
    continue_training,
    default_lr,
    history_frame,
    hold_back,
    noted,
)

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")

TRAINING_CONSTRAINTS: dict[str, list] = {
    "trainable": [str, Interval(Integral, 0, None, closed="left"), list, tuple],
    "freeze_batch_norm": ["boolean", StrOptions({"auto"})],
    "max_epochs": [_COUNT],
    "lr": [_POSITIVE, None],
    "backbone_lr": [_POSITIVE, None],
    "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
    "weight_decay": [_NOT_NEGATIVE],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [_COUNT],
    "tol": [_NOT_NEGATIVE],
    "scoring": [StrOptions(set(get_scorer_names())), callable, None],
    "warm_start": ["boolean"],
    "callbacks": [list, tuple, None],
    "net_params": [dict, None],
}


# What a network is built from: a warm start can't change it.
_NETWORK_PARAMETERS = (
    "backbone",
    "weights",
    "layer",
    "pooling",
    "preprocessing",
    "image_size",
    "normalize",
)


def _same(one, other) -> bool:
    # Arrays and networks have no plain equality.
    return one is other or repr(one) == repr(other)


class NeuralImageEstimator(ImageEstimatorMixin, BaseEstimator):
    """Base of `ImageClassifier` and `ImageRegressor`."""

    _parameter_constraints: ClassVar[dict] = {
        **BACKBONE_CONSTRAINTS,
        **TRAINING_CONSTRAINTS,
    }
    _criterion: type[torch.nn.Module]
    _origin: dict[str, Any]

    # What a subclass says of its targets.

    @abstractmethod
    def _fit_target(self, y, weight) -> tuple[torch.Tensor, int]:
        """Check the y of a fit; return it for the loss, and the number of outputs."""

    @abstractmethod
    def _new_target(self, y) -> torch.Tensor:
        """Return the y of validation rows for the loss."""

    @abstractmethod
    def _decode_target(self, target: torch.Tensor) -> np.ndarray:
        """Return y as the user gave it."""

    @abstractmethod
    def _guessing_loss(self, n_outputs: int) -> float:
        """Return the loss of a prediction that doesn't look at the image."""

    def _target_weight(self, target: torch.Tensor, weight: np.ndarray):
        """Return a function from targets to their weights."""
        return lambda target: np.ones(len(target))

    def _strata(self, target: torch.Tensor) -> np.ndarray | None:
        """Return the classes that a validation split is balanced over."""
        return None

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Train on images.

        Parameters
        ----------
        X : images
            Arrays of shape (n, H, W) or (n, H, W, C), rows of pixels, tensors, paths,
            PIL images or encoded bytes.
        y : array-like of shape (n,) or (n, n_targets)
            Targets.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows, in the loss. Rows of weight zero are left out.
        X_val, y_val : images and targets, default=None
            Validation rows, in place of a fraction of the training rows.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, X or y is not valid, or weights don't fit the backbone.
        ImageDecodeError
            Naming the rows and paths of images that can't be decoded.
        OSError
            If weights can't be downloaded.
        KeyboardInterrupt
            After Ctrl-C during training: the estimator keeps what it learned so far
            and is fitted.
        """
        self._validate_params()
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together.")
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        with self._fit_task(X, y, self.max_epochs, **weighted) as task:
            source = self._fit_source(X)
            check_consistent_length(source, y)
            weight = _check_sample_weight(
                sample_weight, np.empty((len(source), 0)), ensure_non_negative=True
            )
            target, n_outputs = self._fit_target(y, weight)
            target_weight = self._target_weight(target, weight)
            training = Rows(source, target, weight * target_weight(target))
            validation = None
            if X_val is not None:
                with noted("This is about X_val and y_val."):
                    val_source = self._checked_source(X_val)
                    check_consistent_length(val_source, y_val)
                    val_target = self._new_target(y_val)
                validation = Rows(val_source, val_target, target_weight(val_target))
            self._train(training, validation, n_outputs, task)
        if self.net_.interrupted_:
            # The estimator is usable; a search over it must still stop.
            raise KeyboardInterrupt
        return self

    def _train(self, training, validation, n_outputs: int, task) -> None:
        """Build the network and the rows, run the net, and keep what it learned."""
        device = resolve_device(self.device)
        seed = draw_seed(self.random_state)
        previous = getattr(self, "net_", None) if self.warm_start else None
        training = training.weighted()
        if validation is not None:
            validation = validation.weighted()
        elif self.early_stopping:
            strata = self._strata(training.target)
            parts = hold_back(len(training), self.validation_fraction, strata, seed)
            training, validation = (training.take(p).weighted() for p in parts)
        keep_large_blocks()
        with seeded(seed, device), ExitStack() as stack:
            network = self._network(training, n_outputs, previous)
            train_rows = self._inputs(training, network.backbone, device, stack)
            held_back = None
            if validation is not None:
                note = "" if validation.source is training.source else "A row of X_val."
                with noted(note):
                    held_back = self._inputs(
                        validation, network.backbone, device, stack
                    )
                held_back.note = note
            net = self._build_net(network, train_rows, held_back, device, task)
            if previous is not None:
                continue_training(net, previous)
            net.partial_fit(train_rows, None)
        self._finish(net, self._guessing_loss(n_outputs))
        release_memory()

    def _network(self, training, n_outputs: int, previous) -> BackboneWithHead:
        """Return a new network, or a copy of the one a warm start goes on with."""
        origin = {name: getattr(self, name) for name in _NETWORK_PARAMETERS}
        if previous is None:
            backbone = self._load_backbone(training.source, training.rows)
            head = torch.nn.Linear(backbone.n_features, n_outputs)
            network = BackboneWithHead(backbone, head)
        elif changed := [n for n in origin if not _same(origin[n], self._origin[n])]:
            raise ValueError(
                f"warm_start=True goes on with the network of the fit before, but "
                f"{', '.join(changed)} changed since; use warm_start=False."
            )
        else:
            # A copy: if this fit fails, the estimator is as it was.
            network = copy.deepcopy(previous.module_)
        self._origin = origin
        # Small batches spoil the statistics of good weights; random ones need theirs.
        keep_statistics = self.freeze_batch_norm
        if keep_statistics == "auto":
            keep_statistics = network.backbone.pretrained
        network.backbone.freeze(self.trainable, freeze_batch_norm=keep_statistics)
        return network

    def _inputs(self, rows, backbone, device, stack) -> TrainingRows:
        """Return rows of pixels, or of the features of a frozen backbone.

        Such features are the same in every epoch: one pass gives them.
        """
        weight = torch.from_numpy(rows.weight)
        preprocessing = backbone.preprocessing
        if any(parameter.requires_grad for parameter in backbone.parameters()):
            reader = PixelReader(rows.source, preprocessing, device, rows.rows)
            return TrainingRows(stack.enter_context(reader), rows.target, weight)
        features = self._run(
            backbone, rows.source, preprocessing, device, "features", rows.rows
        )
        return TrainingRows(torch.from_numpy(features), rows.target, weight)

    def _build_net(self, network, rows, held_back, device, task) -> EstimatorNet:
        lr = default_lr(self.optimizer) if self.lr is None else self.lr
        backbone_lr = self.backbone_lr
        if backbone_lr is None:
            backbone_lr = lr / 100 if network.backbone.pretrained else lr
        return build_net(
            network,
            criterion=self._criterion,
            optimizer=self.optimizer,
            lr=lr,
            backbone_lr=backbone_lr,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            n_samples=len(rows),
            max_epochs=self.max_epochs,
            validation=held_back,
            callbacks=self._net_callbacks(held_back, task),
            device=device,
            dtype=resolve_precision(self.precision, device),
            net_params=self.net_params or {},
        )

    def _net_callbacks(self, held_back: TrainingRows | None, task) -> list:
        """Return the callbacks of the net.

        The user's come last: one that ends training hides nothing from the others.
        """
        callbacks: list[Any] = []
        if held_back is not None:
            y_val = self._decode_target(held_back.target)
            score = ValidationScore(lambda outputs: self._score(outputs, y_val))
            callbacks.append(("valid_score", score))
        if self.early_stopping:
            watched = "valid_loss" if self.scoring is None else "valid_score"
            stopping = EarlyStopping(
                watched,
                lower_is_better=self.scoring is None,
                n_iter_no_change=self.n_iter_no_change,
                tol=self.tol,
            )
            callbacks.append(("early_stopping", stopping))
        if self.verbose:
            callbacks.append(("progress", EpochProgress()))
        if task is not None:
            context, data = task
            report = TaskContexts(context, self, data, self._so_far)
            callbacks.append(("task_contexts", report))
        return [*callbacks, *check_callbacks(self.callbacks or ())]

    def _score(self, outputs: np.ndarray, y_val: np.ndarray) -> float:
        """Score outputs of the validation rows, as the fitted estimator would."""
        predictor = object.__new__(type(self))
        predictor.__dict__.update(self.__dict__, _outputs=lambda X: outputs)
        scorer = check_scoring(predictor, self.scoring)
        try:
            return float(scorer(predictor, np.empty((len(outputs), 1)), y_val))
        except ValueError as error:
            raise ValueError(
                f"scoring={self.scoring!r} can't score the {len(y_val)} validation "
                f"rows: {error} Choose them with X_val and y_val."
            ) from error

    def _so_far(self, net: EstimatorNet) -> dict[str, Any]:
        """Return the attributes of the estimator if training ended now."""
        return {
            "net_": net,
            "preprocessing_": net.module_.backbone.preprocessing,
            "n_iter_": len(net.history),
            "history_": history_frame(net),
        }

    def _finish(self, net: EstimatorNet, guessing_loss: float) -> None:
        self.__dict__.pop("best_epoch_", None)
        stopping = dict(net.callbacks_).get("early_stopping")
        if isinstance(stopping, EarlyStopping):
            self.best_epoch_ = stopping.best_epoch_
        loss = net.history[-1, "train_loss"] if len(net.history) else 0.0
        if not loss <= 10 * guessing_loss:
            warnings.warn(
                f"Training diverged: the loss is {loss:.3g} after {len(net.history)} "
                f"epochs, against {guessing_loss:.3g} of guessing. Lower lr, or check "
                "the pixels.",
                ConvergenceWarning,
                stacklevel=5,
            )
        net.forget_training(keep_optimizer=self.warm_start)
        self.__dict__.update(self._so_far(net))

    def __getstate__(self):
        state = super().__getstate__()
        if "net_" in state:
            state = {**state, "net_": state["net_"].on_cpu()}
        return state

    def _outputs(self, X) -> np.ndarray:
        """Return the outputs of the head for images."""
        source = self._new_source(X)
        device = resolve_device(self.device, fall_back=True)
        return self._run(
            self.net_.module_, source, self.preprocessing_, device, "predictions"
        )
