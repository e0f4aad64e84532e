"""Progress of training in plain lines."""

from sklearn_dl._commands._terminal import write_error
from sklearn_dl.training import EpochProgress


class EpochLines(EpochProgress):
    """Writes a line after each epoch, where no bar can be drawn."""

    def on_train_begin(self, net, **kwargs):
        """Begin."""
        self.total_ = None

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Count the epochs that are to come."""
        if self.total_ is None:
            self.total_ = len(net.history) - 1 + net.epochs_left_

    def on_batch_end(self, net, *, batch=None, training=False, **kwargs):
        """Write nothing."""

    def on_epoch_end(self, net, **kwargs):
        """Write the losses."""
        row = net.history[-1]
        shown = [
            f"{name} {row[name]:.4g}"
            for name in ("train_loss", "valid_loss", "valid_score")
            if name in row
        ]
        write_error(f"epoch {len(net.history)} of {self.total_}: {', '.join(shown)}")

    def on_train_end(self, net, **kwargs):
        """End."""
