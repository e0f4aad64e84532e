"""TensorBoard records of a training."""

import itertools
import os
import time
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skorch.callbacks
import torch
from skorch.callbacks import Callback
from torchvision.utils import make_grid

from sklearn_dl.backbones import CallablePreprocessing
from sklearn_dl.training._callbacks import check_count


@dataclass(repr=False, eq=False)
class TensorBoard(Callback):
    """Records for TensorBoard: curves, images as trained on, histograms.

    ================  ================================================================
    tag               what
    ================  ================================================================
    ``loss/``         ``train`` and ``valid``, of each epoch
    ``score/``        ``train_top1``, ``valid_score`` and the like
    ``lr/``           the rate of each group of the optimiser, at the epoch's last step
    ``gradients/``    what a `GradientMonitor` recorded, if it stands before this
                      callback in the list
    ``history/``      the other columns of ``history_``
    ``images/train``  images of the epoch's first batch, as the network sees them:
                      resized, augmented and mixed, but not normalised
    ``weights/``      histograms of the trained parameters, at the epoch's end
    ``grads/``        histograms of their gradients in the epoch's last batch, before
                      clipping
    ================  ================================================================

    Steps are epochs. Each `fit`, a resumed one too, writes into a folder of its own
    below `log_dir`, named by time and process: ``tensorboard --logdir LOG_DIR`` shows
    the candidates of a grid search side by side.

    Parameters
    ----------
    log_dir : str or Path
        Folder of the runs; made if there is none.
    n_images : int, default=16
        Images in the grid, at most a batch. 0 for no grid. A frozen backbone, whose
        features are trained on, has none.
    histograms : bool, default=True
        Whether to write histograms: a second for ten million trained parameters.
    every : int, default=1
        Images and histograms are written in the first of each `every` epochs.

    Attributes
    ----------
    run_dir_ : str
        Folder of the last `fit`.

    Raises
    ------
    ImportError
        At the start of `fit`, if tensorboard is not installed.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import GradientMonitor, TensorBoard
    >>> model = ImageClassifier(callbacks=[GradientMonitor(), TensorBoard("runs")])
    """

    log_dir: str | os.PathLike
    _: KW_ONLY
    n_images: int = 16
    histograms: bool = True
    every: int = 1

    @property
    def needs_pixels(self) -> bool:
        """Whether images are shown, so that a training isn't on maps."""
        return self.n_images > 0

    def initialize(self):
        """Check the parameters, and that tensorboard is there, before any work."""
        if not isinstance(self.log_dir, str | os.PathLike):
            raise ValueError(f"log_dir={self.log_dir!r} must be a str or a Path.")
        check_count("n_images", self.n_images, least=0)
        check_count("every", self.every)
        if not isinstance(self.histograms, bool | np.bool_):
            raise ValueError(f"histograms={self.histograms!r} must be True or False.")
        _summary_writer()
        self._close()
        return self

    def on_train_begin(self, net, **kwargs):
        """Open the writer of this run."""
        self._close()  # of a fit that an error ended
        self.run_dir_ = str(_own_folder(Path(self.log_dir)))
        self.writer_: Any = _summary_writer()(self.run_dir_)
        # The rates come from the optimiser: there may be more than two of them.
        self.curves_: Any = skorch.callbacks.TensorBoard(
            self.writer_, keys_ignored=["lr", "backbone_lr"], key_mapper=_tag
        ).initialize()

    def on_epoch_begin(self, net, **kwargs):
        """Count the batches to come, and choose what is written of this epoch."""
        epoch = net.history[-1, "epoch"]
        chosen = (epoch - 1) % self.every == 0
        self.shows_images_ = chosen and self.n_images > 0
        self.shows_histograms_ = chosen and self.histograms
        self.left_ = net.steps_per_epoch_

    def on_batch_begin(self, net, *, batch=None, training=False, **kwargs):
        """Show the images of the first training batch."""
        self.awaited_ = training
        if not training:
            return
        self.left_ -= 1
        inputs = batch[0]
        if self.shows_images_ and "x" in inputs:
            grid = _grid(inputs["x"][: self.n_images], net.preprocessing)
            self.writer_.add_image("images/train", grid, net.history[-1, "epoch"])
        self.shows_images_ = False

    def on_grad_computed(self, net, **kwargs):
        """Write the gradients and the rates of the last batch."""
        if not self.awaited_ or self.left_:
            return
        self.awaited_ = False  # some optimisers ask for several gradients
        epoch = net.history[-1, "epoch"]
        groups = enumerate(net.optimizer_.param_groups)
        # Several groups of one name have one rate.
        rates = {g.get("name", f"group{i}"): g["lr"] for i, g in groups}
        for name, rate in rates.items():
            self.writer_.add_scalar(f"lr/{name}", float(rate), epoch)
        if self.shows_histograms_:
            for name, parameter in net.module_.named_parameters():
                self._histogram(f"grads/{name}", parameter.grad, epoch)

    def on_epoch_end(self, net, **kwargs):
        """Write the curves and the weights, and what is still in memory."""
        self.curves_.on_epoch_end(net)
        if self.shows_histograms_:
            epoch = net.history[-1, "epoch"]
            for name, parameter in net.module_.named_parameters():
                if parameter.requires_grad:
                    self._histogram(f"weights/{name}", parameter.detach(), epoch)
        self.writer_.flush()

    def on_train_end(self, net, **kwargs):
        """Close the writer."""
        self._close()

    def _histogram(self, tag: str, values: torch.Tensor | None, epoch: int) -> None:
        if values is None:
            return
        finite = values[values.isfinite()]  # NaN has no place in a histogram
        if finite.numel():
            self.writer_.add_histogram(tag, finite.float().cpu().numpy(), epoch)

    def _close(self) -> None:
        if getattr(self, "writer_", None) is not None:
            self.writer_.close()
        self.writer_ = self.curves_ = None

    def __getstate__(self) -> dict[str, Any]:
        # A writer has a thread and an open file: neither travels.
        return {**self.__dict__, "writer_": None, "curves_": None}


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "The callback TensorBoard needs tensorboard: "
            "pip install 'sklearn_dl[tensorboard]'"
        ) from error
    return SummaryWriter


def _own_folder(parent: Path) -> Path:
    """Make a folder that no other run has, also of processes that start together."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = parent / name
    for count in itertools.count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = parent / f"{name}-{count}"
    return folder


def _tag(column: str) -> str:
    """Return the tag of a column of the history; a prefix makes a group of charts."""
    if column.endswith("_loss"):
        return f"loss/{column.removesuffix('_loss')}"
    if column.startswith("grad_") or column == "valid_grad_norm":
        return f"gradients/{column}"
    if column.startswith(("train_", "valid_")):
        return f"score/{column}"
    return f"history/{column}"


def _grid(pixels: torch.Tensor, preprocessing) -> torch.Tensor:
    """Return images side by side, as floats in [0, 1] of shape (3, height, width)."""
    images = pixels.detach().cpu()
    images = images.float() / (1 if images.is_floating_point() else 255)
    if images.shape[1] not in (1, 3):  # as a picture: in colour, or their mean
        mean = images.mean(1, keepdim=True)
        images = images[:, :3] if preprocessing.rgb else mean
    # A function has normalised its images itself, nobody knows how.
    stretched = isinstance(preprocessing, CallablePreprocessing)
    columns = int(np.ceil(np.sqrt(len(images))))
    grid = make_grid(images, nrow=columns, normalize=stretched, scale_each=True)
    return grid.clamp(0, 1)
