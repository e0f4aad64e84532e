"""Training of a head on a backbone: what the classifier and the regressor share."""

import copy
from abc import abstractmethod
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import cache as remembered
from functools import partial as bound
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
)
from torch import distributed

from sklearn_dl._base import ImageEstimatorMixin, on_cpu, with_callbacks
from sklearn_dl._extraction import (
    KeptMaps,
    OnFeatures,
    OnMaps,
    PixelReader,
    has_room,
    run_frozen,
    run_network,
)
from sklearn_dl._labels import refuse_missing
from sklearn_dl._parameters import (
    BACKBONE_CONSTRAINTS,
    NETWORK_PARAMETERS,
    TRAINING_CONSTRAINTS,
    NestedParameters,
)
from sklearn_dl._plain import PlainParameters
from sklearn_dl._runtime import (
    Execution,
    draw_seed,
    keep_large_blocks,
    keyed_generator,
    others_meanwhile,
    release_memory,
    seeded,
)
from sklearn_dl._targets import Targets, ValidationScorer
from sklearn_dl.augmentation import Augment, resolve_augment, resolve_views
from sklearn_dl.backbones import Backbone, handed_out, place
from sklearn_dl.training import (
    AugmentedView,
    BackboneWithHead,
    EarlyStopping,
    EpochProgress,
    EstimatorNet,
    Head,
    LearningRates,
    Optimizer,
    Recipe,
    Regime,
    Rows,
    Schedule,
    TaskContexts,
    TrainingAccuracy,
    TrainingRows,
    ValidationScore,
    build_net,
    chance_loss,
    check_net_params,
    fitted_attributes,
    gives_margins,
    is_checkpoint,
    is_ours,
    joined_group,
    leaves_alone,
    noted,
    ordered_callbacks,
    plain_parameters,
    resolve_loss,
    resolve_schedule,
    rows_digests,
    run_fingerprint,
    start_head,
    takes_maps,
    warn_of_divergence,
)

_LOADERS = "train", "valid"


class NeuralImageEstimator(
    NestedParameters, ImageEstimatorMixin, PlainParameters, BaseEstimator
):
    """Base of `ImageClassifier` and `ImageRegressor`."""

    _parameter_constraints: ClassVar[dict] = {
        **BACKBONE_CONSTRAINTS,
        **TRAINING_CONSTRAINTS,
    }
    # Where a splitter has groups by metadata routing, `fit` has them too.
    __metadata_request__fit: ClassVar[dict] = {"groups": True}
    _targets: Targets
    _network: BackboneWithHead
    _origin: dict[str, Any]

    @abstractmethod
    def _new_targets(self, y, weight, classes=None) -> Targets:
        """Return what y holds, for a network that begins with it."""

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, groups=None):
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
        groups : array-like of shape (n,), default=None
            The group of each row, such as the patient that an image is of. With
            `early_stopping`, validation rows are whole groups then, and each class has
            about `validation_fraction` of its rows among them.

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
        return self._fit(X, y, sample_weight, validation, groups=groups)

    def _partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train one epoch, going on from what was learned before."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        return self._fit(X, y, sample_weight, partial=True, classes=classes)

    def _fit(
        self, X, y, weight, validation=None, *, partial=False, classes=None, groups=None
    ):
        """Train a new network, or go on from the one before."""
        self._validate_params()
        goes_on = partial or self.warm_start
        previous = getattr(self, "_network", None) if goes_on else None
        max_epochs = 1 if partial else self.max_epochs
        weighted = {} if weight is None else {"sample_weight": weight}
        with self._fit_task(X, y, max_epochs, **weighted) as task, ExitStack() as stack:
            execution, group = self._execution(), None
            if distributed.is_available() and distributed.is_initialized():
                group = joined_group(execution.device)
            if group is not None:
                stack.enter_context(group.together())
                execution = replace(execution, group=group)
                group.check_same(**plain_parameters(self.get_params()))
            if y is None:
                raise ValueError(
                    f"{type(self).__name__} requires y to be passed, but the target y "
                    "is None."
                )
            if partial and previous is not None:
                self._new_source(X)  # of as many pixels as before
            source = self._fit_source(X, goes_on=previous is not None)
            if groups is not None:
                check_consistent_length(source, groups)
                refuse_missing(groups, "groups")
            rows = self._training_rows(source, y, weight, previous, partial, classes)
            seed = draw_seed(self.random_state)
            seed = seed if group is None else group.of_the_first(seed)
            rows, held_out = rows.weighted(), None
            if validation is not None or self.early_stopping:
                rows, held_out = self._split(rows, validation, groups, seed)
            if group is not None:
                validating = rows_digests(held_out, " for validation")
                group.check_same(**rows_digests(rows), **validating)
            # What is wrong with these is said before images are read.
            targets, net_params = self._targets, self.net_params or {}
            loss = resolve_loss(
                self.loss, kind=targets.kind, label_weight=targets.label_weight
            )
            if net_params:
                check_net_params(net_params, len(rows), execution.step_size)
            keep_large_blocks()
            stack.enter_context(seeded(seed, execution.device))
            network = self._new_network(rows, execution, seed, previous)
            frozen = network.backbone  # features come from it; what trains is a copy
            optimizer = Optimizer.of(self.optimizer)
            schedule = resolve_schedule(self.schedule)
            regime = Regime.of(
                network,
                self.trainable,
                lr=optimizer.default_lr if self.lr is None else self.lr,
                backbone_lr=self.backbone_lr,
                # A head that was trained is warm; partial_fit has no second epoch.
                warmup_epochs=0 if partial or previous else self.warmup_epochs,
                warmup_lr=schedule.warmup_lr,
                max_epochs=self.max_epochs,
            )
            recipe = Recipe(
                regime, optimizer, execution, targets.kind, seed, max_epochs
            )
            if any(map(is_checkpoint, self.callbacks or ())):
                found_by = self._fingerprint(rows, held_out, previous)
                recipe = replace(recipe, fingerprint=found_by)
            read = bound(self._dataset, network, frozen, recipe, stack)
            training = read(rows, augmented=True)
            if previous is None:
                self._start_head(network, frozen, rows, training, recipe, partial)
            validating = None
            if held_out is not None:
                validating = read(held_out, beside=training.maps)
            if network.backbone.shared and not all(map(is_ours, self.callbacks or ())):
                network.backbone = copy.deepcopy(network.backbone)  # to write to
            callbacks = self._net_callbacks(held_out, task, schedule, partial)
            options = {"callbacks": callbacks, "net_params": net_params}
            net = build_net(network, loss, recipe, training, validating, **options)
            if previous is not None:
                net.continue_from(self.history_, getattr(self, "_net", None))
            net.partial_fit(training, None)
            self._finish(net, goes_on)
            if training.maps is not None:
                network.backbone.trained_on = training.maps.halves
        if network.backbone.trains:
            release_memory()
        if net.interrupted_:
            # The estimator is usable; a search over it must still stop.
            raise KeyboardInterrupt
        return self

    def _training_rows(self, source, y, weight, previous, partial, classes) -> Rows:
        """Return the rows of a fit, their targets encoded."""
        check_consistent_length(source, y)
        if not (isinstance(y, np.ndarray) and y.dtype.kind in "biu"):
            refuse_missing(y)
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
        return Rows(source, target, weight * self._targets.row_weight(target))

    def _split(
        self, rows: Rows, validation: tuple[Any, Any] | None, groups, seed: int
    ) -> tuple[Rows, Rows]:
        """Return the rows to train on, and the validation rows."""
        if validation is not None:
            X, y = validation
            with noted("This is about X_val and y_val."):
                source = self._checked_source(X)
                check_consistent_length(source, y)
                refuse_missing(y, "y_val")
                target = self._targets.encode(y, "y_val")
            weight, note = self._targets.row_weight(target), "A row of X_val."
            return rows, Rows(source, target, weight, note=note).weighted()
        strata = self._targets.strata(rows.target)
        if groups is not None:  # of all rows, also of those of weight zero
            groups = column_or_1d(groups)[rows.rows]
        return rows.split(self.validation_fraction, strata, seed, groups)

    def _new_network(
        self, rows: Rows, execution: Execution, seed: int, previous
    ) -> BackboneWithHead:
        """Return a new network, or what a warm start goes on with.

        A backbone that stays frozen is the one that all estimators share.
        """
        origin = {name: getattr(self, name) for name in NETWORK_PARAMETERS}
        origin["head"] = copy.deepcopy(self.head)  # set_params reaches inside it
        if previous is not None:
            pairs = [(name, new, self._origin[name]) for name, new in origin.items()]
            # Arrays and networks have no plain equality.
            changed = [n for n, a, b in pairs if a is not b and repr(a) != repr(b)]
            if changed:
                raise ValueError(
                    f"warm_start=True and partial_fit go on with the network of the "
                    f"fit before, but {', '.join(changed)} changed since; fit with "
                    "warm_start=False."
                )
            asked, n = rows.source.channels, previous.backbone.preprocessing.n_channels
            if n != (asked.n if asked else 3) and (asked or n != 1):
                found = f"{asked.n} channels" if asked else "RGB or grey"
                raise ValueError(
                    f"X has images of {found}, but the network of the fit before is "
                    f"for {n} channels; fit with warm_start=False."
                )
            # Copies: if this fit fails, the estimator is as it was.
            backbone, layers = previous.backbone, copy.deepcopy(previous.head)
            if not backbone.shared:
                backbone = copy.deepcopy(backbone)
        else:
            backbone = self._load_backbone(rows.source, seed, execution, rows.rows)
            head = Head() if self.head is None else self.head
            layers = head.build(backbone.n_features, self._targets.n_outputs)
        self._origin = origin
        return BackboneWithHead(backbone, layers)

    def _dataset(
        self, network, frozen, recipe: Recipe, stack, rows, augmented=False, beside=None
    ) -> TrainingRows:
        """Return rows of pixels, or of what the frozen part of the network gives.

        That is the same in every epoch: one pass gives it. So it is with each of the
        views that come back.
        """
        preprocessing, trains = network.backbone.preprocessing, network.backbone.trains
        augmenter = mixing = view = maps = features = by_epoch = pixels = limit = None
        if augmented and self.augment is not None:
            augmenter, mixing = resolve_augment(self.augment, preprocessing)
            limit = Augment.of(self.augment).views
        if limit is not None and mixing is not None and not trains:
            raise ValueError(
                f"views={limit} with a frozen backbone keeps the features of each "
                "view, but mixed images are new in each epoch, so nothing would come "
                "back: leave out the mixing or views, or train stages of the backbone "
                "(trainable=1)."
            )
        if augmenter is not None:
            view = AugmentedView(augmenter, recipe.seed, limit)
        changing = view is not None or mixing is not None
        if trains and not changing:
            maps = self._maps(network, frozen, rows, recipe, beside)
        if recipe.regime.warmup_epochs or not trains:
            if not changing:
                features = self._features(frozen, rows, recipe.execution)
            elif view is not None and limit is not None and mixing is None:
                by_epoch = self._by_epoch(frozen, rows, recipe.execution, view)
        if trains or (features is None and by_epoch is None):
            device, index = recipe.execution.device, rows.rows
            reader = PixelReader(rows.source, preprocessing, device, index, view)
            pixels = stack.enter_context(reader)
        return TrainingRows(
            rows,
            pixels=pixels,
            features=features,
            by_epoch=by_epoch,
            maps=maps,
            mixing=mixing,
            pairs=recipe.kind != "continuous",
            seed=recipe.seed,
        )

    def _start_head(
        self, network, frozen, rows: Rows, training: TrainingRows, recipe, partial
    ) -> None:
        """Fit what of a new head depends on features."""
        head = Head() if self.head is None else self.head
        changes = network.backbone.trains and not recipe.regime.warmup_epochs
        if changes and head.init != "lsuv":
            return
        # Rows often come class by class: those taken are drawn among all.
        index = keyed_generator(recipe.seed).permutation(len(rows))
        index = np.sort(index[:4096])
        some = rows.take(index)
        if training.by_epoch is not None:
            training.start_epoch(1)  # whose features are needed in any case
        if training.features is None:
            features = self._features(frozen, some, recipe.execution)
        else:
            features = training.features[torch.from_numpy(index)].numpy()
        options = {"loss": self.loss, "n_rows": len(rows), "stream": partial}
        start_head(head, network.head, features, some, recipe, **options)

    def _by_epoch(self, frozen: Backbone, rows: Rows, execution, view: AugmentedView):
        """Return a function that gives the features of rows as an epoch views them."""
        features = remembered(
            lambda number: self._features(frozen, rows, execution, view.fixed(number))
        )
        return lambda epoch: features(view.number(epoch))

    def _features(
        self, backbone: Backbone, rows: Rows, execution, view=None
    ) -> np.ndarray:
        """Return what a frozen backbone gives for rows, as they are or in a view."""
        cache, same_seed = self.cache, isinstance(self.random_state, int | np.integer)
        # A view of another seed is never found again, and of steps of other libraries
        # (which aren't thread-safe) a key would have to tell the versions.
        if view is not None and not (same_seed and view.thread_safe):
            cache = None
        options = {"cache": cache, "views": view, "description": "features"}
        run = bound(run_frozen, backbone, rows.source, execution, **options)
        index = np.arange(len(rows)) if rows.rows is None else rows.rows
        with noted(rows.note), _apart(rows):
            if execution.group is None:
                return run(rows=index)
            return execution.group.gathered(
                len(rows), lambda some: run(rows=index[some])
            )

    def _maps(
        self, network, frozen: Backbone, rows: Rows, recipe: Recipe, beside
    ) -> KeptMaps | None:
        """Return the maps of rows that enter the first trained stage.

        None where the network runs as a whole.
        """
        regime, callbacks = recipe.regime, self.callbacks or ()
        once = recipe.max_epochs - regime.warmup_epochs < 2  # as for a stream
        # A dataset may draw its items anew each time, by transforms of its own.
        if once or rows.source.digest_reads or not all(map(takes_maps, callbacks)):
            return None
        halves = frozen.halves(regime.trainable)
        if isinstance(halves, str):
            return None
        maps = KeptMaps(
            halves,
            rows.source,
            recipe.execution,
            self.cache,
            rows.rows,
            beside,
        )
        net_params = self.net_params or {}
        workers = any(net_params.get(f"iterator_{i}__num_workers") for i in _LOADERS)
        if workers and maps.n_held < len(maps):  # they have no network
            return None
        maps.warn_of_bound()
        network.entry = halves.entry
        with noted(rows.note), _apart(rows):
            return maps.fill()

    def _fingerprint(self, rows: Rows, held_out: Rows | None, previous) -> str | None:
        """Return what finds the checkpoints of a fit again."""
        if not isinstance(self.random_state, int | np.integer):
            return None  # no later fit has the same seed
        before = 0 if previous is None else len(self.history_)
        name, params = type(self).__name__, self.get_params(deep=True)
        return run_fingerprint(name, params, rows, held_out, epochs_before=before)

    def _net_callbacks(self, held_out: Rows | None, task, schedule, partial) -> list:
        ours: dict[str, Any] = {}
        if held_out is not None:
            margins = gives_margins(self.loss)
            ours["valid_score"] = ValidationScore(
                ValidationScorer(self._targets, held_out.target, self.scoring, margins)
            )
        if self._targets.kind == "multiclass":
            ours["train_top1"] = TrainingAccuracy()
        # A stream has no end that a schedule could lead to.
        schedule = Schedule("constant") if partial else schedule
        ours["learning_rates"] = LearningRates(schedule)
        if self.early_stopping:
            ours["early_stopping"] = EarlyStopping(
                "valid_loss" if self.scoring is None else "valid_score",
                lower_is_better=self.scoring is None,
                n_iter_no_change=self.n_iter_no_change,
                tol=self.tol,
            )
        if self.verbose:
            ours["progress"] = EpochProgress()
        if task is not None:
            context, data = task
            ours["task_contexts"] = TaskContexts(context, self, data)
        return ordered_callbacks(ours, self.callbacks or ())

    def _finish(self, net: EstimatorNet, goes_on: bool) -> None:
        """Take over what was trained; the net only where a fit goes on with it."""
        for name in ("best_epoch_", "_net"):
            self.__dict__.pop(name, None)
        stopping = dict(net.callbacks_).get("early_stopping")
        if isinstance(stopping, EarlyStopping) and stopping.best_epoch_:
            self.best_epoch_ = stopping.best_epoch_
        kind, n_outputs = self._targets.kind, self._targets.n_outputs
        chance = chance_loss(self.loss, kind=kind, n_outputs=n_outputs)
        if chance is not None and len(net.history):
            kept = getattr(self, "best_epoch_", len(net.history))
            if self._targets.label_weight is not None:
                chance *= float(self._targets.label_weight.max())
            warn_of_divergence(net, kept, chance)
        self.__dict__.update(fitted_attributes(net))
        interrupted = "interrupted by the user" if net.interrupted_ else ""
        self.stop_reason_ = interrupted or net.stop_reason_
        backbone = self._network.eval().backbone
        if not backbone.shared:
            backbone.unsettle()
        if all(map(leaves_alone, self.callbacks or ())):
            backbone.settle()
        net.optimizer_.zero_grad(set_to_none=True)
        if goes_on:
            net.forget_training()
            self._net = net

    @property
    def module_(self) -> BackboneWithHead:
        """The network, a ``torch.nn.Module``.

        What you change in its layers is this estimator's own, and seen by its
        predictions; they call ``backbone`` and ``head`` apart. Once it was asked for,
        each call looks at all its weights, until the next fit.
        """
        check_is_fitted(self)
        handed_out(self._network, "backbone")
        return self._network

    def _pickled_state(self):
        state = super()._pickled_state()
        if "_net" in state:  # which holds the network
            state = {**state, "_net": state["_net"].on_cpu()}
            del state["_network"]
        elif "_network" in state:
            state = {**state, "_network": on_cpu(state["_network"])}
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if "_net" in state:
            self._network = self._net.module_

    def _outputs(self, X, *, activated: bool = True) -> np.ndarray:
        """Return what the network gives for images, averaged over their views.

        Probabilities where the targets are classes and `activated` is set.
        """
        source = self._new_source(X)
        execution, network = self._execution(fall_back=True), self._network
        views = None
        if self.tta is not None:
            views = resolve_views(self.tta, self.preprocessing_, self.augment)
        targets = self._targets

        def finish(outputs: torch.Tensor) -> torch.Tensor:
            values = targets.activate(outputs) if activated else outputs.double()
            return (values if views is None else values.mean(1)).to(outputs)

        options: dict[str, Any] = {"description": "predictions", "views": views}
        halves = network.backbone.trained_on
        if halves is not None and has_room(
            halves.prefix, source, execution, self.cache, views
        ):
            placed = place(network, execution.device, execution.module_dtype)
            after: Any = OnMaps(placed.on_maps, halves, execution, execution.step_size)
            frozen = halves.prefix
        elif network.backbone.trains:
            whole, options["combine"] = network.as_it_is(), finish
            return run_network(whole, source, self.preprocessing_, execution, **options)
        else:
            after, frozen = OnFeatures(network.head, execution), network.backbone
        options |= {"cache": self.cache, "combine": lambda rows: finish(after(rows))}
        return run_frozen(frozen, source, execution, **options)


def _apart(rows: Rows) -> AbstractContextManager:
    """Return a block in which others may train, unless a dataset draws its items."""
    return others_meanwhile() if rows.source.thread_safe else nullcontext()
