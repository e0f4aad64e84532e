"""What the classifier and the regressor share: training a head on a backbone."""

import copy
from abc import abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from sklearn_dl._base import ImageEstimatorMixin, with_callbacks
from sklearn_dl._extraction import OnFeatures
from sklearn_dl._parameters import (
    BACKBONE_CONSTRAINTS,
    NETWORK_PARAMETERS,
    TRAINING_CONSTRAINTS,
    NestedParameters,
    differing,
)
from sklearn_dl._runtime import (
    draw_seed,
    keep_large_blocks,
    keyed_generator,
    release_memory,
    resolve_device,
    resolve_precision,
    seeded,
)
from sklearn_dl._targets import Targets
from sklearn_dl.augmentation import resolve_views
from sklearn_dl.training import (
    BackboneWithHead,
    EarlyStopping,
    EstimatorNet,
    Head,
    Inputs,
    Optimizer,
    Regime,
    Rows,
    TaskContexts,
    TrainingRows,
    build_callbacks,
    build_net,
    check_net_params,
    continue_training,
    digest_of_run,
    guessing_loss,
    history_frame,
    hold_back,
    noted,
    resolve_loss,
    resolve_schedule,
    warn_of_divergence,
)


class NeuralImageEstimator(NestedParameters, ImageEstimatorMixin, BaseEstimator):
    """Base of `ImageClassifier` and `ImageRegressor`."""

    _parameter_constraints: ClassVar[dict] = {
        **BACKBONE_CONSTRAINTS,
        **TRAINING_CONSTRAINTS,
    }
    _targets: Targets
    _origin: dict[str, Any]

    @abstractmethod
    def _new_targets(self, y, weight, classes=None) -> Targets:
        """Return what y holds, for a network that begins with it."""

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Train on images.

        Parameters
        ----------
        X : images
            Arrays of shape (n, H, W) or (n, H, W, C), rows of pixels, tensors, paths,
            PIL images or encoded bytes.
        y : array-like of shape (n,) or (n, n_outputs)
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
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together.")
        validation = None if X_val is None else (X_val, y_val)
        return self._fit(X, y, sample_weight, validation)

    def _fit(self, X, y, weight, validation=None, *, partial=False, classes=None):
        """Train a new network, or go on from the one before."""
        self._validate_params()
        go_on = partial or self.warm_start
        previous = getattr(self, "net_", None) if go_on else None
        max_epochs = 1 if partial else self.max_epochs
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        weighted = {} if weight is None else {"sample_weight": weight}
        with self._fit_task(X, y, max_epochs, **weighted) as task:
            source = self._fit_source(X)
            check_consistent_length(source, y)
            weight = _check_sample_weight(
                weight, np.empty((len(source), 0)), ensure_non_negative=True
            )
            if previous is None:
                self._targets = self._new_targets(y, weight, classes)
            else:
                if not partial:
                    self._targets.check_same(self._new_targets(y, weight))
                # A copy: if this fit fails, the estimator is as it was.
                self._targets = copy.copy(self._targets)
            target = self._targets.encode(y)
            self._targets.weigh(target, weight, getattr(self, "class_weight", None))
            training = Rows(source, target, weight * self._targets.row_weight(target))
            held_back = None
            if validation is not None:
                with noted("This is about X_val and y_val."):
                    val_source = self._checked_source(validation[0])
                    check_consistent_length(val_source, validation[1])
                    target = self._targets.encode(validation[1], "y_val")
                held_back = Rows(val_source, target, self._targets.row_weight(target))
            net = self._trained(training, held_back, previous, partial, task)
            self._finish(net, keep_optimizer=go_on)
        if self.net_.interrupted_:
            # The estimator is usable; a search over it must still stop.
            raise KeyboardInterrupt
        return self

    def _partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train one epoch, going on from what was learned before."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        if hasattr(self, "net_"):
            self._new_source(X)  # of as many pixels as before
        return self._fit(X, y, sample_weight, partial=True, classes=classes)

    def _trained(
        self, training, validation, previous, partial: bool, task
    ) -> EstimatorNet:
        """Build the network and the rows, and return the net after training."""
        device = resolve_device(self.device)
        seed = draw_seed(self.random_state)
        training = training.weighted()
        if validation is not None:
            validation = validation.weighted()
        elif self.early_stopping:
            strata = self._targets.strata(training.target)
            parts = hold_back(len(training), self.validation_fraction, strata, seed)
            training, validation = (training.take(p).weighted() for p in parts)
        # What is wrong with them shall be known before the images are read.
        criterion, net_params = self._loss(), self.net_params or {}
        check_net_params(net_params, len(training), self._step_size)
        keep_large_blocks()
        with seeded(seed, device), ExitStack() as stack:
            network = self._network(training, previous, seed)
            regime = self._regime(network, previous, partial)
            inputs = Inputs(
                network,
                regime,
                device,
                stack,
                lambda rows: self._features(network.backbone, rows, device),
            )
            rows = inputs.changing(
                training,
                augment=self.augment,
                mix=self.mix,
                mix_alpha=self.mix_alpha,
                pairs=self._targets.kind != "targets",
                seed=seed,
            )
            held_back = None
            if validation is not None:
                note = "" if validation.source is training.source else "A row of X_val."
                with noted(note):
                    held_back = inputs.plain(validation)
                held_back.note = note
            net = build_net(
                network,
                criterion=criterion,
                optimizer=Optimizer.of(self.optimizer),
                regime=regime,
                weight_decay=self.weight_decay,
                kind=self._targets.kind,
                batch_size=self._step_size,
                n_samples=len(rows),
                max_epochs=1 if partial else self.max_epochs,
                validation=held_back,
                callbacks=self._net_callbacks(held_back, task, partial),
                device=device,
                dtype=resolve_precision(self.precision, device),
                seed=seed,
                resumable=isinstance(self.random_state, int | np.integer),
                run_id=lambda: digest_of_run(self, training, validation, previous),
                random_rows=rows.random or regime.warmup_epochs > 0,
                net_params=net_params,
            )
            if previous is not None:
                continue_training(net, previous)
            net.partial_fit(rows, None)
        if network.trains_backbone:
            release_memory()
        return net

    def _network(self, training: Rows, previous, seed: int) -> BackboneWithHead:
        """Return a new network, or a copy of the one a warm start goes on with."""
        origin = {name: getattr(self, name) for name in NETWORK_PARAMETERS}
        origin["head"] = clone(self.head, safe=False)  # set_params reaches inside it
        if previous is None:
            backbone = self._load_backbone(training.source, seed, training.rows)
            head = Head() if self.head is None else self.head
            layers = head.build(backbone.n_features, self._targets.n_outputs)
            if head.needs_data:
                # Rows often come class by class: a batch is drawn among all.
                rng = keyed_generator(seed)
                index = rng.permutation(len(training))[: max(self._step_size, 32)]
                some = training.take(np.sort(index))
                features = self._features(backbone, some, resolve_device(self.device))
                head.fit_init(layers, torch.from_numpy(features))
            network = BackboneWithHead(backbone, layers)
        elif changed := differing(origin, self._origin):
            raise ValueError(
                f"warm_start=True and partial_fit go on with the network of the fit "
                f"before, but {', '.join(changed)} changed since; fit with "
                "warm_start=False."
            )
        else:
            # A copy: if this fit fails, the estimator is as it was.
            network = copy.deepcopy(previous.module_)
        self._origin = origin
        return network

    def _features(self, backbone, rows: Rows, device) -> np.ndarray:
        """Return what a backbone gives for rows, before it is trained."""
        return self._run_frozen(
            backbone, rows.source, device, description="features", rows=rows.rows
        )

    def _regime(self, network: BackboneWithHead, previous, partial: bool) -> Regime:
        """Return what is trained when, and at which rates."""
        lr = self.lr
        # A head that was trained before is warm; partial_fit has no second epoch.
        cold = previous is None and not partial
        return Regime.of(
            network,
            trainable=self.trainable,
            lr=Optimizer.of(self.optimizer).default_lr if lr is None else lr,
            backbone_lr=self.backbone_lr,
            freeze_batch_norm=self.freeze_batch_norm,
            warmup_epochs=self.warmup_epochs if cold else 0,
            warmup_lr=resolve_schedule(self.schedule).warmup_lr,
            max_epochs=self.max_epochs,
        )

    def _loss(self) -> torch.nn.Module:
        return resolve_loss(
            self.loss,
            kind=self._targets.kind,
            n_outputs=self._targets.n_outputs,
            label_smoothing=getattr(self, "label_smoothing", 0.0),
            label_weight=self._targets.label_weight,
        )

    def _net_callbacks(self, held_back: TrainingRows | None, task, partial) -> list:
        score = None
        if held_back is not None:
            target = held_back.target
            y_val = self._targets.decode(target)

            def score(outputs: np.ndarray) -> dict[str, float]:
                scores = {"valid_score": self._score(outputs, y_val)}
                return {**scores, **self._targets.accuracies(outputs, target)}

        stopping = None
        if self.early_stopping:
            stopping = EarlyStopping(
                "valid_loss" if self.scoring is None else "valid_score",
                lower_is_better=self.scoring is None,
                n_iter_no_change=self.n_iter_no_change,
                tol=self.tol,
            )
        report = None
        if task is not None:
            context, data = task
            report = TaskContexts(context, self, data, self._so_far)
        return build_callbacks(
            self.callbacks or (),
            # A stream has no end that a schedule could lead to.
            schedule=resolve_schedule("constant" if partial else self.schedule),
            score=score,
            count_right=self._targets.kind == "classes",
            early_stopping=stopping,
            progress=bool(self.verbose),
            report=report,
        )

    def _score(self, outputs: np.ndarray, y_val: np.ndarray) -> float:
        """Score outputs of the validation rows, as the fitted estimator would."""
        if not np.isfinite(outputs).all():
            return np.nan  # training diverged
        predictor = object.__new__(type(self))
        values = torch.from_numpy(outputs)
        predictor.__dict__.update(
            self.__dict__,
            _outputs=lambda X, activated=True: (
                self._activation(activated)(values).to(values).numpy()
            ),
        )
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

    def _finish(self, net: EstimatorNet, *, keep_optimizer: bool) -> None:
        self.__dict__.pop("best_epoch_", None)
        stopping = dict(net.callbacks_).get("early_stopping")
        if isinstance(stopping, EarlyStopping) and stopping.best_epoch_:
            self.best_epoch_ = stopping.best_epoch_
        guess = guessing_loss(
            self.loss, kind=net.kind, n_outputs=self._targets.n_outputs
        )
        if guess is not None and len(net.history):
            kept = getattr(self, "best_epoch_", len(net.history))
            warn_of_divergence(net, kept, guess * self._targets.largest_weight)
        net.forget_training(keep_optimizer=keep_optimizer)
        net.module_.backbone.settle()
        self.__dict__.update(self._so_far(net))

    def __getstate__(self):
        state = super().__getstate__()
        if "net_" in state:
            state = {**state, "net_": state["net_"].on_cpu()}
        return state

    def _outputs(self, X, *, activated: bool = True) -> np.ndarray:
        """Return what the network gives for images, averaged over their views.

        Probabilities where the targets are classes and `activated` is set.
        """
        source = self._new_source(X)
        activate = self._activation(activated)
        device = resolve_device(self.device, fall_back=True)
        views = resolve_views(self.tta, self.preprocessing_, self.augment)
        options: dict[str, Any] = {"description": "predictions", "views": views}
        network = self.net_.module_

        def finish(outputs: torch.Tensor) -> torch.Tensor:
            values = activate(outputs)
            return (values if views is None else values.mean(1)).to(outputs)

        if network.trains_backbone:
            options["combine"] = finish
            return self._run(network, source, self.preprocessing_, device, **options)
        head = OnFeatures(network.head, device, self.precision)
        options["combine"] = lambda features: finish(head(features))
        return self._run_frozen(network.backbone, source, device, **options)

    def _activation(self, activated: bool):
        # In float64, so that the rows of float32 sum to 1 as nearly as they can.
        if not activated:
            return torch.Tensor.double
        return lambda values: self._targets.activate(values.double())
