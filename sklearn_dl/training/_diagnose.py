"""Diagnosis of a training from its history."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from sklearn_dl.training._losses import chance_loss
from sklearn_dl.training._optimizers import Optimizer
from sklearn_dl.training._regime import Trainable

# In units of the chance loss, unless said otherwise.
_DIVERGED = 1.2  # loss at the end
_SPIKE = 2.0  # worst loss of a training that ends no better than chance
_BURST = 10.0  # worst loss of any training
_RISES = 0.3  # sum of all rises of the training loss
_NEAR_CHANCE = 0.8  # loss at the end
_STILL_FALLING = 0.02  # fall per epoch at the end
_LEARNED = 0.1  # loss below which a training has learned its rows
_STANDS = 0.03  # range of a loss that doesn't move; of that loss where it is higher
_BARELY = 0.05  # range of a loss that barely moves, of the same
_VALID_RISE = 0.05  # rise of the validation loss from its best

_SCORE_GAP = 0.15  # training accuracy above validation accuracy
_VANISHED = 1e-4  # norm of the first layer's gradient, in that of the last layer
_EXPLODED = 1e3  # norm of the gradient
_GROWTH = 100.0  # the same, in that of its first epoch
_NOISE = 10.0  # variance of the gradients, in the square of their mean


def diagnose(estimator) -> pd.DataFrame:
    """Say what went wrong in a training, and which parameters answer it.

    Reads ``history_`` and the parameters, trains nothing. These are rules of thumb,
    on a few dozen numbers: they point to what to try, they prove nothing.

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        Fitted; best with validation rows (`early_stopping`, or `X_val` in `fit`), and
        with a `GradientMonitor` among its callbacks, without which nothing is said of
        gradients.

    Returns
    -------
    pandas.DataFrame
        One row per finding, the gravest first; a single row "nothing found" where
        there is none. Strings:

        ``finding``
            "no epoch", "learning rate too high", "exploding gradients", "vanishing
            gradients", "learning rate too low", "overfitting", "underfitting", "noisy
            gradients" or "no validation rows".
        ``evidence``
            The numbers it rests on.
        ``parameters``
            Values of the estimator's parameters that answer it, as in Python, the
            first to try first; they need not all be set.

    Raises
    ------
    NotFittedError
        If `fit` was not called.
    TypeError
        If it is another kind of estimator.

    Notes
    -----
    Losses are compared with the chance loss, that of a prediction that doesn't look at
    the image: ``log(n_classes)`` of a classifier, 1 of a regressor, whose targets have
    variance 1. Where the head was warmed up, the epochs after it are looked at. The
    rules:

    - rate too high: the training loss is no number, is ten times the chance loss in
      some epoch, ends above it without falling evenly, or rises a lot on its way;
    - rate too low: it stands near the chance loss, or falls by the same small step
      each epoch. Ten times the rate is the answer only where it barely moved, by less
      than 5 % of the chance loss in all; else three times;
    - underfitting: it ends near the chance loss, or still falls;
    - overfitting: the validation loss rises from its best while the training loss
      falls, or the training accuracy is far above the validation accuracy, in the epoch
      whose weights were kept;
    - vanishing: the gradient of the first layer is less than 1e-4 of the last layer's;
    - exploding: the gradient's norm is above 1e3, or has grown a hundredfold;
    - noise: the gradients of batches vary by more than ten times the square of their
      mean, with a training loss that no longer falls.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import diagnose
    >>> images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), "uint8")
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=1,
    ...     random_state=0,
    ... ).fit(images, [0, 1] * 4)
    >>> diagnose(model)["finding"].tolist()
    ['underfitting', 'no validation rows']
    >>> diagnose(model)["parameters"].tolist()
    ["max_epochs=3, trainable='all', lr=0.03", 'early_stopping=True']
    """
    run = TrainingRun.of(estimator)
    rows = findings(run) or [("nothing found", run.summary(), "")]
    return pd.DataFrame(rows, columns=["finding", "evidence", "parameters"])


@dataclass
class TrainingRun:
    """History of one training, beside the parameters it had."""

    estimator: Any
    params: dict[str, Any]
    history: pd.DataFrame
    chance: float

    @classmethod
    def of(cls, estimator) -> "TrainingRun":
        params = estimator.get_params() if hasattr(estimator, "get_params") else {}
        if not {"lr", "max_epochs", "optimizer"} <= params.keys():
            raise TypeError(
                "diagnose takes a fitted ImageClassifier or ImageRegressor, got "
                f"{type(estimator).__name__}; of a search give best_estimator_, of a "
                "pipeline its last step."
            )
        if not hasattr(estimator, "history_"):
            name = type(estimator).__name__
            raise NotFittedError(f"This {name} is not fitted: call fit first.")
        history = estimator.history_
        if "backbone_lr" in history:  # 0 while the head is trained alone
            trained = history[history["backbone_lr"] > 0]
            history = trained if len(trained) else history
        classifies = hasattr(estimator, "classes_")
        targets = getattr(estimator, "_targets", None)
        chance = chance_loss(
            params.get("loss", "log_loss" if classifies else "squared_error"),
            kind=getattr(targets, "kind", "multiclass"),
            n_outputs=len(estimator.classes_) if classifies else 1,
        )
        if chance is None:  # a loss of the user's own: training starts near it
            chance = history["train_loss"].iloc[0] if len(history) else 1.0
        return cls(estimator, params, history, float(chance))

    def column(self, name: str) -> np.ndarray:
        """Return a column as floats; empty where the history has none."""
        if name not in self.history:
            return np.empty(0)
        return self.history[name].to_numpy(dtype=float)

    @property
    def kept(self) -> int:
        """Position of the epoch whose weights the estimator has."""
        best = getattr(self.estimator, "best_epoch_", None)
        found = np.flatnonzero(self.column("epoch") == best)
        return int(found[0]) if best and len(found) else len(self.history) - 1

    def summary(self) -> str:
        """Describe the end of training in a line."""
        said = [f"{len(self.history)} epochs", f"chance loss {self.chance:.3g}"]
        for name in ("train_loss", "valid_loss", "train_top1", "valid_top1"):
            values = self.column(name)
            if len(values):
                said.append(f"{name} {values[self.kept]:.3g}")
        return ", ".join(said)

    def when(self, position: int) -> str:
        """Name the epoch at a position."""
        numbers = self.column("epoch")
        return f"in epoch {int(numbers[position]) if len(numbers) else position + 1}"

    # Answers: each returns the parameters to set, empty where they are set already.

    def rate(self, factor: float) -> list[str]:
        """Return the rates times a factor, rounded to one digit."""
        lr = self.params["lr"]
        if lr is None:
            lr = Optimizer.of(self.params["optimizer"]).default_lr
        answers = [f"lr={_rounded(lr * factor)}"]
        backbone_lr = self.params.get("backbone_lr")
        if backbone_lr is not None:
            pair = isinstance(backbone_lr, tuple | list)
            rates = backbone_lr if pair else [backbone_lr]
            scaled = ", ".join(_rounded(rate * factor) for rate in rates)
            answers.append(f"backbone_lr={f'({scaled})' if pair else scaled}")
        return answers

    def set(self, name: str, value: Any, *, where: Any = True) -> list[str]:
        """Return one parameter, if the estimator has it and `where` holds."""
        there = name in self.params and self.params[name] != value
        return [f"{name}={value!r}"] if there and where else []

    def part(self, name: str, kind: str, **settings) -> list[str]:
        """Return settings of a part such as the head, of a new part if need be."""
        if name not in self.params:
            return []
        part = self.params[name]
        if hasattr(part, "get_params") and not isinstance(part, type):
            new = {k: v for k, v in settings.items() if getattr(part, k, None) != v}
            return [f"{name}__{k}={v!r}" for k, v in new.items()]
        first = [] if part is None else [getattr(part, "__name__", repr(part))]
        arguments = [*first, *(f"{k}={v!r}" for k, v in settings.items())]
        return [f"{name}={kind}({', '.join(arguments)})"]

    def train(self, stages: str, *, where: bool) -> list[str]:
        """Return `trainable` with other stages."""
        trainable = self.params.get("trainable")
        if trainable is None or Trainable.of(trainable).stages == stages or not where:
            return []
        inside = "__stages" if isinstance(trainable, Trainable) else ""
        return [f"trainable{inside}={stages!r}"]

    def augment(self) -> list[str]:
        """Return a stronger augmentation, with mixing for a classifier."""
        augment: Any = self.params.get("augment")
        mixing = ["mixup"] if hasattr(self.estimator, "classes_") else []
        if hasattr(augment, "get_params"):
            names = np.atleast_1d(np.asarray(augment.transforms, dtype=object))
            mixed = augment.mix or {"mixup", "cutmix"} & {*map(str, names)}
            # New draws in each epoch are more; a frozen backbone takes no mixed views.
            more = {} if mixed or not mixing else {"mix": "mixup"}
            return self.part("augment", "Augment", **more, views=None)
        items = list(augment) if isinstance(augment, list | tuple) else [augment]
        named = all(isinstance(item, str | None) for item in items)
        if "augment" not in self.params or not named:  # somebody's own transforms
            return []
        stronger = {None: "standard", "light": "standard", "standard": "strong"}
        new = [stronger.get(item, item) for item in items]
        new += [] if {"mixup", "cutmix"} & set(new) else mixing
        return [] if new == items else [f"augment={new if new[1:] else new[0]!r}"]


def _rounded(value: float) -> str:
    return repr(float(f"{value:.1g}"))


def findings(run: TrainingRun) -> list[tuple[str, str, str]]:
    """Return (finding, evidence, parameters), the gravest first."""
    if not len(run.history):
        evidence = "history_ has no epoch: training was interrupted in the first one"
        return [("no epoch", evidence, "")]
    found = [_rate_too_high(run), _exploding(run), _vanishing(run)]
    too_low = None if any(found) else _rate_too_low(run)
    if found[0] is None:
        # One answer at a time: a rate too low looks like underfitting too.
        found.append(too_low or _overfitting(run) or _underfitting(run))
        found.append(_noisy(run))
    if not len(run.column("valid_loss")):
        evidence = "history_ has no valid_loss, so overfitting can't be seen: use "
        evidence += "early_stopping=True, or give X_val and y_val to fit"
        answers = run.set("early_stopping", True)
        found.append(("no validation rows", evidence, answers))
    return [
        (finding, evidence, ", ".join(dict.fromkeys(answers)))
        for finding, evidence, answers in filter(None, found)
    ]


_Finding = tuple[str, str, list[str]] | None


def _rate_too_high(run: TrainingRun) -> _Finding:
    loss, chance = run.column("train_loss"), run.chance
    end, worst = loss[-1], loss.max()
    changes = np.diff(loss)
    rises = changes[changes > 0].sum()
    factor = 0.1
    if not np.isfinite(loss).all():
        epoch = int(np.isfinite(loss).argmin())
        evidence = f"train_loss is {loss[epoch]} {run.when(epoch)}"
    elif worst > _BURST * chance or (
        worst > _SPIKE * chance and end > 0.9 * chance and not _is_calm(loss, chance)
    ):
        evidence = (
            f"train_loss was {worst:.3g} {run.when(int(loss.argmax()))} and ends at "
            f"{end:.3g}, the chance loss is {chance:.3g}"
        )
    elif end > _DIVERGED * chance and not _is_calm(loss, chance):
        evidence = f"train_loss ends at {end:.3g}, the chance loss is {chance:.3g}"
    elif rises > _RISES * chance and rises > 0.3 * np.abs(changes).sum():
        evidence = (
            f"train_loss rises in {(changes > 0).sum()} of {len(changes)} epochs, by "
            f"{rises:.3g} together; the chance loss is {chance:.3g}"
        )
        factor = 0.3
    else:
        return None
    return "learning rate too high", evidence, run.rate(factor)


def _is_calm(loss: np.ndarray, chance: float) -> bool:
    """Tell whether a loss stands or falls evenly, though it may start high."""
    if _stands(loss, chance):
        return True
    falls = -np.diff(loss)
    if len(falls) == 1:
        return bool(0 < falls[0] < 0.5 * loss[0])
    early, late = np.array_split(falls, 2)
    return bool((falls > 0).all() and late.mean() > 0.3 * early.mean())


def _stands(loss: np.ndarray, chance: float) -> bool:
    return bool(np.ptp(loss) < _STANDS * max(chance, loss.min()))


def _exploding(run: TrainingRun) -> _Finding:
    norm, steps = run.column("grad_norm"), run.column("grad_steps")
    norm = norm[steps > 0] if len(steps) else norm  # float16 skips what overflows
    if not len(norm):
        return None
    usual = norm[np.isfinite(norm) & (norm <= _EXPLODED)]
    limit = float(f"{usual.min():.1g}") if len(usual) and usual.min() > 0 else 1.0
    worst = int(norm.argmax())  # the first that is no number, if there is one
    if not np.isfinite(norm).all() or norm[worst] > _EXPLODED:
        evidence = f"grad_norm is {norm[worst]:.3g} {run.when(worst)}"
    elif norm[worst] > max(_GROWTH * norm[0], 1.0):
        evidence = f"grad_norm grows from {norm[0]:.3g} to {norm[worst]:.3g}"
        evidence += f" {run.when(worst)}"
    else:
        return None
    answers = run.part("optimizer", "Optimizer", max_grad_norm=limit) + run.rate(0.1)
    return "exploding gradients", evidence, answers


def _vanishing(run: TrainingRun) -> _Finding:
    norms = run.column("grad_norm_first"), run.column("grad_norm_last")
    if not len(norms[0]) or np.isnan(norms).all(axis=1).any():
        return None
    first, last = (float(np.nanmedian(values)) for values in norms)
    if not first < _VANISHED * last:
        return None
    layers = f"{first:.2g} in the first trained layer and {last:.2g} in the last"
    evidence = f"the gradient's norm is {layers}"
    answers = run.set("weights", "DEFAULT", where=run.params.get("weights") is None)
    answers += run.part("trainable", "Trainable", freeze_batch_norm=False)
    activation = getattr(run.params.get("head"), "activation", "relu")
    if activation in ("sigmoid", "tanh", "softplus"):
        answers += run.part("head", "Head", activation="relu")
    return "vanishing gradients", evidence, answers


def _rate_too_low(run: TrainingRun) -> _Finding:
    loss, chance = run.column("train_loss"), run.chance
    if len(loss) < 3 or loss[-1] < 0.5 * chance or _has_learned(run, 0.7):
        return None
    falls = -np.diff(loss)
    early, late = np.array_split(falls, 2)
    steady = np.mean(falls > 0) >= 0.8 and late.mean() > 0.5 * early.mean()
    if _stands(loss, chance) and not (falls < 0).all():  # a larger rate raises it more
        told = f"stands between {loss.min():.4g} and {loss.max():.4g}"
    elif steady and falls.mean() <= 0.05 * chance:
        told = (
            f"falls from {loss[0]:.3g} to {loss[-1]:.3g} in {len(loss)} epochs, by "
            f"{early.mean():.2g} per epoch at first and {late.mean():.2g} at last"
        )
    else:
        return None
    moved = np.ptp(loss) / max(chance, loss.min())
    barely, factor = ("barely ", "ten") if moved < _BARELY else ("", "three")
    evidence = (
        f"train_loss {told}; the chance loss is {chance:.4g}. It {barely}moved, by "
        f"{moved:.1%} of {'itself' if loss.min() > chance else 'that'}, so the rate to "
        f"try is {factor} times this one"
    )
    return "learning rate too low", evidence, run.rate(10 if barely else 3)


def _overfitting(run: TrainingRun) -> _Finding:
    train, valid = run.column("train_loss"), run.column("valid_loss")
    if not len(valid) or not np.isfinite(valid).all():
        return None
    kept, best = run.kept, int(valid.argmin())
    rise = valid[kept] - valid[best]
    top1 = run.column("train_top1"), run.column("valid_top1")
    rises = rise > max(_VALID_RISE * run.chance, 0.1 * valid[best])
    told = []
    if best < kept and rises and train[kept] < train[best]:
        told.append(
            f"valid_loss rises from {valid[best]:.3g} {run.when(best)} to "
            f"{valid[kept]:.3g}, train_loss falls to {train[kept]:.3g}"
        )
    if len(top1[0]) and len(top1[1]):
        # Early on, running statistics of BatchNorm lag behind the weights.
        ours, theirs = (values[kept] for values in top1)
        if kept >= 2 and ours - theirs > _SCORE_GAP:
            told.append(f"train_top1 is {ours:.3g}, valid_top1 {theirs:.3g}")
    elif train[kept] < 0.3 * run.chance and valid[kept] > 0.8 * run.chance:
        told.append(f"train_loss is {train[kept]:.3g}, valid_loss {valid[kept]:.3g}")
    if not told:
        return None
    answers = run.set("early_stopping", True) if best < kept else []
    answers += run.augment()
    if (getattr(run.params.get("head"), "dropout", None) or 0) < 0.5:
        answers += run.part("head", "Head", dropout=0.5)
    decay = Optimizer.of(run.params["optimizer"]).weight_decay or 1e-4
    stronger = float(_rounded(10 * decay))
    answers += run.part("optimizer", "Optimizer", weight_decay=stronger)
    answers += run.train("head", where=run.params.get("weights") is not None)
    return "overfitting", "; ".join(told), answers


def _underfitting(run: TrainingRun) -> _Finding:
    loss, chance = run.column("train_loss"), run.chance
    end = loss[run.kept]
    valid = run.column("valid_loss")
    finished = len(valid) > 0 and len(run.history) - 1 - int(np.nanargmin(valid)) >= 3
    fall = _fall_at_the_end(loss)
    falls = len(loss) == 1 or fall > _STILL_FALLING * chance
    falling = falls and end > _LEARNED * chance and not finished
    if end > _NEAR_CHANCE * chance and not _has_learned(run, 0.7):
        evidence = f"train_loss ends at {end:.3g}, the chance loss is {chance:.3g}"
    elif falling and not _has_learned(run, 0.95):
        tail = f"and still falls by {fall:.2g} per epoch"
        evidence = f"train_loss is {end:.3g} {tail if fall else 'after one epoch'}"
    else:
        return None
    more = run.set("max_epochs", 3 * run.params["max_epochs"])
    head_only = Trainable.of(run.params.get("trainable", "all")).stages == "head"
    other = run.train("all", where=head_only)
    if len(loss) == 1 or loss[-1] < loss[0]:  # no larger rate for a loss that rose
        other += run.rate(3)
    lighter = run.set("augment", None)
    if getattr(run.params.get("head"), "dropout", None):
        lighter += run.part("head", "Head", dropout=0.0)
    goes_on = falling or len(run.history) < 5
    answers = more + other if goes_on else other + more
    return "underfitting", evidence, answers + lighter


def _noisy(run: TrainingRun) -> _Finding:
    noise, ratio = run.column("grad_noise"), run.column("grad_noise_ratio")
    loss = run.column("train_loss")
    if len(run.history) < 3 or not len(ratio) or loss[-1] < _LEARNED * run.chance:
        return None
    steps = run.column("grad_steps")
    with np.errstate(divide="ignore", invalid="ignore"):
        # A mean over few batches holds some of their noise itself: take that out.
        variance = noise * steps / (steps - 1)
        square = np.maximum(noise / ratio - variance / steps, 0)
        ratios = variance / square
    level = float(np.median(ratios[-max(1, len(run.history) // 3) :]))
    if not level > _NOISE or _fall_at_the_end(loss) > _STILL_FALLING * run.chance:
        return None
    evidence = (
        f"the gradients of batches vary by {level:.3g} times the square of their mean, "
        f"and train_loss stays at {loss[-1]:.3g}"
    )
    size = run.params.get("batch_size")
    larger = [f"batch_size={4 * size}"] if isinstance(size, int) else []
    return "noisy gradients", evidence, larger + run.rate(0.3)


def _has_learned(run: TrainingRun, part: float) -> bool:
    """Tell whether the accuracy is that far on the way from chance to 1."""
    for name in ("valid_top1", "train_top1"):
        values = run.column(name)
        if len(values):
            chance = 1 / max(len(run.estimator.classes_), 2)
            return (values[run.kept] - chance) / (1 - chance) > part
    return False


def _fall_at_the_end(loss: np.ndarray) -> float:
    """Return the mean fall per epoch in the last third, below the best before it."""
    if len(loss) < 2:
        return 0.0
    span = max(1, (len(loss) - 1) // 3)
    return float(loss[:-span].min() - loss[-1]) / span
