"""Checkpoints of a training, which goes on from them after a crash."""

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from skorch.callbacks import Callback, EpochScoring, PassthroughScoring

from sklearn_dl._files import remove_stale, replacing, writing
from sklearn_dl._runtime import fingerprint_text
from sklearn_dl.training._callbacks import check_count
from sklearn_dl.training._dataset import Rows

_FORMAT = "sklearn_dl checkpoint"
_VERSION = 1
# What a resumed run may do otherwise.
_FREE = ("cache", "callbacks", "device", "verbose")
_FREE_NET_PARAMS = ("num_workers", "pin_memory", "prefetch_factor")


@dataclass(repr=False, eq=False)
class Checkpoint(Callback):
    """Checkpoints after the epochs of a training, from which it goes on.

    When a fit is killed, the same fit in a new process loads the last checkpoint and
    trains the epochs that are left: on one machine's CPU the result is, bit for bit,
    that of an unbroken run.
    The file holds weights, optimizer, schedule, early stopping and every other
    callback with a ``state_dict`` (one without, as most of skorch's, begins anew);
    random numbers depend on `random_state` and the epoch alone.

    Files are named by the parameters, the data and the `random_state` of a fit, and
    by the callbacks that take part in training. So the fits of a grid search share a
    directory, and a changed parameter starts anew. Each file is replaced as a whole;
    loading one runs no code from it. A training that comes to its end removes its file;
    one that is interrupted leaves it.

    Parameters
    ----------
    directory : str or path-like
        Where the files go; created when it is missing.
    every : int, default=1
        Epochs from one file to the next.
    keep : bool, default=False
        Whether a training that came to its end keeps its file: the same fit then
        returns what is in it, without training.

    Attributes
    ----------
    path_ : pathlib.Path
        File of the fit.
    resumed_epoch_ : int
        Epochs that were done when this fit began; 0 where it began anew.

    Raises
    ------
    ValueError
        When training begins: if `random_state` isn't an int, so that no later run is
        the same; or if a newer version of sklearn_dl wrote the file.

    Warns
    -----
    UserWarning
        If a file can't be written, and training goes on without it; or if one isn't
        a whole checkpoint of this fit: it is renamed ``*.broken``, and training
        begins anew.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import Checkpoint
    >>> model = ImageClassifier(random_state=0, callbacks=[Checkpoint("runs")])
    """

    directory: str | os.PathLike
    _: KW_ONLY
    every: int = 1
    keep: bool = False

    writes: ClassVar[bool] = True  # of several processes one does

    def on_train_begin(self, net, **kwargs):
        """Go on from a checkpoint of the same fit, if there is one."""
        check_count("every", self.every)
        self.failed_ = False
        if net.fingerprint_ is None:
            raise ValueError(
                "Checkpoint can't find the files of a fit again that draws new random "
                "numbers each time: give the estimator an int, such as random_state=0."
            )
        self.fingerprint_ = f"{net.fingerprint_[:32]}-{_fingerprint(net)}"
        self.path_ = Path(self.directory) / f"{self.fingerprint_}.checkpoint"
        self.resumed_epoch_ = 0
        remove_stale(self.path_.parent, "*.checkpoint")
        state = self._read()
        if state is None:
            return
        done = len(net.history)
        net.load_training_state(state["training"])
        for name, callback in _scorings(net).items():
            callback.best_score_ = state["best_scores"].get(name, callback.best_score_)
        self.resumed_epoch_ = len(net.history) - done
        net.stop_ = state["ended"]
        net.stop_reason_ = state["reason"]

    def on_epoch_end(self, net, **kwargs):
        """Write the state."""
        if len(net.history) % self.every == 0:
            self._write(net, ended=bool(net.stop_))

    def on_train_end(self, net, **kwargs):
        """Remove the file of a training that came to its end, or complete it."""
        if net.interrupted_ or not self.writes:
            return
        if self.keep:
            self._write(net, ended=True)
            return
        try:
            self.path_.unlink(missing_ok=True)
        except OSError as error:
            if self.path_.exists():
                self._warn(f"can't be removed ({error}); delete it before the next fit")

    def _write(self, net, *, ended: bool) -> None:
        """Replace the file by one of the state now; warn where that fails."""
        if not self.writes:
            return
        best = {name: c.best_score_ for name, c in _scorings(net).items()}
        state = {"format": _FORMAT, "version": _VERSION, "ended": ended}
        state |= {"fingerprint": self.fingerprint_, "reason": net.stop_reason_}
        state["best_scores"] = _plain(best, "best")
        state["training"] = _plain(net.training_state(), "training state")
        try:
            with writing(self.path_):
                self.path_.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path_) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:  # torch raises both
            if not self.failed_:  # once, not after every epoch
                self._warn(f"can't be written ({error}); training goes on without it")
            self.failed_ = True

    def _read(self) -> dict[str, Any] | None:
        """Return what the file holds; None where there is none, or not a whole one."""
        if not self.path_.is_file():
            return None
        file = io.BytesIO(self.path_.read_bytes())  # an OSError says nothing of it
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file raises errors of many kinds
            self._move_aside(f"can't be read ({type(error).__name__})")
            return None
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            self._move_aside("is not a checkpoint of sklearn_dl")
            return None
        if state["version"] > _VERSION:
            raise ValueError(
                f"The checkpoint {self.path_} has format {state['version']}, from a "
                f"newer sklearn_dl; this one reads formats up to {_VERSION}. Update, "
                "or give Checkpoint another directory."
            )
        if state["fingerprint"] != self.fingerprint_:
            self._move_aside("is of another fit")
            return None
        return state

    def _move_aside(self, what: str) -> None:
        broken = self.path_.with_name(f"{self.path_.name}.broken")
        with suppress(OSError):
            self.path_.replace(broken)
            what += f", and is now {broken.name}"
        self._warn(f"{what}; training begins anew")

    def _warn(self, what: str) -> None:
        warnings.warn(f"The checkpoint {self.path_} {what}.", UserWarning, stacklevel=2)


def _scorings(net) -> dict[str, Any]:
    """Return skorch's callbacks that mark the best epochs; they have no state_dict."""
    kinds = (EpochScoring, PassthroughScoring)
    return {name: c for name, c in net.callbacks_ if isinstance(c, kinds)}


def _plain(value: Any, where: str) -> Any:
    """Return a state as tensors and plain containers, which load without code."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.tensor(value)
    if isinstance(value, Mapping):
        return {key: _plain(v, f"{where}[{key!r}]") for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(
        f"{where} is of {type(value).__name__}: a checkpoint holds tensors, numbers, "
        "strings, lists and dicts. Look at the state_dict of callbacks and optimizer."
    )


def _fingerprint(net) -> str:
    """Return a fingerprint of the callbacks that take part and of a warm start."""
    digest = hashlib.sha256()
    for name, callback in net.callbacks_:
        if hasattr(callback, "state_dict") or hasattr(callback, "loss_term"):
            settings = sorted(
                (key, value)
                for key, value in callback.get_params().items()
                if value is None or isinstance(value, bool | int | float | str)
            )
            digest.update(f"{name} {type(callback).__name__} {settings};".encode())
    if len(net.history):
        for tensor in net.module_.state_dict().values():
            values = tensor.cpu().contiguous().view(-1)
            digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def run_fingerprint(
    name: str,
    params: Mapping[str, Any],
    training: Rows,
    validation: Rows | None,
    *,
    epochs_before: int = 0,
) -> str:
    """Return a fingerprint of an estimator's class, parameters and rows."""
    digest = hashlib.sha256()
    for key in sorted(params):
        if key.split("__")[0] not in _FREE:
            text = fingerprint_text(params[key], skip=_FREE_NET_PARAMS)
            digest.update(f"{key}={text};".encode())
    digest.update(f"{name} after {epochs_before};".encode())
    for rows in (training, validation):
        if rows is not None:
            _add_rows(digest, rows)
    return digest.hexdigest()


def _add_rows(digest, rows: Rows) -> None:
    """Add files by their paths, other images by their pixels."""
    source = rows.source
    positions = np.arange(len(rows)) if rows.rows is None else rows.rows
    digest.update(f"{source.kind} {len(source)} {source.image_shape};".encode())
    digest.update(np.ascontiguousarray(positions, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(rows.weight).tobytes())
    digest.update(np.ascontiguousarray(rows.target.numpy()).tobytes())
    for row in map(int, positions):
        path = source.path(row)
        digest.update(repr(path).encode())
        if path is None:
            digest.update(np.asarray(source[row]).tobytes())
