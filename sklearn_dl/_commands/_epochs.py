"""Progress of training in plain lines."""

from sklearn_dl._commands._terminal import write_error
from sklearn_dl.training import EpochProgress


class EpochLines(EpochProgress):
    """Writes a line after each epoch, where no bar can be drawn."""

    def on_train_begin(self, net, **kwargs):
        self.total_ = None

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        if self.total_ is None:
            self.total_ = len(net.history) - 1 + net.epochs_left_

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        names = [n for n in ("train_loss", "valid_loss", "valid_score") if n in row]
        shown = ", ".join(f"{name} {row[name]:.4g}" for name in names)
        write_error(f"epoch {len(net.history)} of {self.total_}: {shown}")

    def on_batch_end(self, net, **kwargs):
        pass

    def on_train_end(self, net, **kwargs):
        pass
