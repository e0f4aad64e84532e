"""An epoch of fine-tuning, and the training of a head: against loops written by hand.

    python examples/benchmarks/training.py --backbones resnet18
    python examples/benchmarks/training.py --form files --data photographs
    python examples/benchmarks/training.py --part head

Fine-tuning is of all weights, by SGD with momentum; the contenders take turns, each in
a process of its own, over the same images, and time the second of two epochs:

- ``sklearn_dl``: `ImageClassifier` with ``trainable="all"``.
- ``tuned loop``: a loop in torch with channels_last, the kept allocator and, with
  ``--precision``, autocast. Arrays are cropped and normalised batch by batch; files are
  decoded by a thread on each core, ahead of the steps.
- ``skorch``: a net over a dataset of torchvision's preset, as its tutorial has it.
- ``plain loop``: the same as PyTorch's transfer-learning tutorial writes it.

``--part head`` trains a linear head on a frozen backbone for 10 epochs: ``sklearn_dl``,
without a cache, takes each image through the backbone once; ``skorch`` in each epoch;
``bare limit`` is one pass of the tuned network over tensors that are ready.
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import harness
import numpy as np
import torch
from extraction import (
    Transformed,
    add_options,
    bare_limit,
    for_each_backbone,
    images_of,
    opened,
    raced,
)

OURS, RATE, MOMENTUM, DECAY = "sklearn_dl", 1e-4, 0.9, 1e-4
HEAD_EPOCHS = 10


def main() -> None:
    """Race the contenders for each backbone, and print the tables."""
    parser = harness.parser(__doc__)
    parser.add_argument("--part", choices=["all", "head"], default="all")
    add_options(parser, backbones=["mobilenet_v2", "resnet18"], batch_size=16)
    args = parser.parse_args()
    for_each_backbone(args, FINE_TUNING if args.part == "all" else HEAD, compare)


def compare(backbone: str, names: list[str], args) -> None:
    """Print the table of one backbone."""
    took = raced(__file__, backbone, names, args, "--part", args.part)
    rows = [
        [
            name,
            f"{np.median(seconds):.2f}",
            f"{args.images / np.median(seconds):.0f}",
            f"{harness.ratio(seconds, took[OURS]):.2f}",
        ]
        for name, seconds in took.items()
        if not np.isnan(seconds).any()
    ]
    what = "An epoch of fine-tuning" if args.part == "all" else "Training a head"
    header = ["contender", "seconds", "images/s", "seconds by those of sklearn_dl"]
    title = f"{what}, {args.form}: {backbone}, {args.precision}"
    harness.table(title, header, rows, args.output)


def targets(n: int) -> np.ndarray:
    """Return two classes in turn."""
    return np.arange(n) % 2


# ------------------------------------------------------------- an epoch of all


def sklearn_dl(args):
    """Time the second epoch of `ImageClassifier`."""
    from sklearn_dl import ImageClassifier
    from sklearn_dl.training import Optimizer, Trainable

    model = ImageClassifier(
        args.backbones[0],
        weights=None,
        preprocessing="IMAGENET1K_V1",
        trainable=Trainable("all", freeze_batch_norm=False),
        optimizer=Optimizer("momentum", weight_decay=DECAY),
        lr=RATE,
        max_epochs=2,
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        random_state=0,
    )
    images = images_of(args)

    def work():
        model.fit(images, targets(len(images)))
        return float(model.history_["dur"].iloc[1])

    return work


def tuned_loop(args):
    """Time a loop in torch by somebody who knows."""
    harness.keep_blocks()
    device = harness.device_of(args)
    network = two_classes(args).train().to(device, memory_format=torch.channels_last)
    loss_of = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=RATE,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        fused=device.type in ("cpu", "cuda"),
    )
    images = images_of(args)
    batches_of = arrays_ahead if args.form == "arrays" else files_ahead
    classes = torch.from_numpy(targets(len(images)))

    def work():
        order = torch.randperm(len(images))
        for rows, pixels in batches_of(images, order.split(args.batch_size), args):
            with harness.half(args.precision, device):
                x = pixels.to(device, non_blocking=True)
                loss = loss_of(network(normalized(x)), classes[rows].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        harness.synchronize(device)

    return work


def normalized(pixels):
    """Return uint8 pixels as the networks of ImageNet want them."""
    n, _, height, width = pixels.shape
    x = torch.empty((n, height, width, 3), device=pixels.device)
    x.copy_(pixels.permute(0, 2, 3, 1)).div_(255)
    mean, std = lines(width, x.device)
    x.flatten(2).sub_(mean).div_(std)
    return x.permute(0, 3, 1, 2)


@lru_cache
def lines(width: int, device):
    """Return mean and deviation of a line of pixels: long loops are fast ones."""
    values = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return [torch.tensor(v, device=device).repeat(width) for v in values]


def arrays_ahead(images, batches, args):
    """Yield rows and their cropped pixels."""
    side = harness.preset(args.backbones[0]).crop_size[0]
    top = (images.shape[1] - side) // 2
    cropped = images[:, top : top + side, top : top + side]
    for rows in batches:
        pixels = torch.from_numpy(cropped[rows.numpy()])
        yield rows, pixels.permute(0, 3, 1, 2)


def files_ahead(paths, batches, args):
    """Yield rows and their pixels, decoded two batches ahead."""
    from torchvision.transforms import functional as F

    transform = harness.preset(args.backbones[0])

    def one(row):
        image = opened(paths[row])
        image = F.resize(image, transform.resize_size, transform.interpolation)
        return torch.from_numpy(np.array(F.center_crop(image, transform.crop_size)))

    pending: deque = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows in [*batches, None, None]:
            if rows is not None:
                pending.append((rows, [pool.submit(one, int(row)) for row in rows]))
            if len(pending) > 2 or (rows is None and pending):
                ready, futures = pending.popleft()
                pixels = torch.stack([future.result() for future in futures])
                yield ready, pixels.permute(0, 3, 1, 2)


def skorch(args):
    """Time the second epoch of a net of skorch."""
    net, images = net_of_skorch(args, lr=RATE, max_epochs=2)
    return lambda: float(net.fit(images, None).history[1, "dur"])


def net_of_skorch(args, **options):
    """Return a net of skorch, and the dataset it is to be trained on."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        two_classes(args),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=MOMENTUM,
        batch_size=args.batch_size,
        train_split=None,
        device=str(harness.device_of(args)),
        iterator_train__shuffle=True,
        iterator_train__num_workers=args.workers,
        verbose=0,
        **options,
    )
    return net, labelled(args)


def labelled(args):
    """Return the images through torchvision's preset, with their classes."""
    images = images_of(args)
    dataset = Transformed(images, harness.preset(args.backbones[0]))
    return Labelled(dataset, targets(len(images)))


def plain_loop(args):
    """Time an epoch as PyTorch's tutorial writes it."""
    device = harness.device_of(args)
    network = two_classes(args).train().to(device)
    loss_of = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    loader = torch.utils.data.DataLoader(
        labelled(args),
        batch_size=args.batch_size,
        shuffle=True,
        num_workers=args.workers,
    )

    def work():
        total = 0.0
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss = loss_of(network(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)

    return work


class Labelled(torch.utils.data.Dataset):
    """A dataset of images with their classes."""

    def __init__(self, images, classes: np.ndarray):
        self.images, self.classes = images, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.images[i], int(self.classes[i])


def two_classes(args):
    """Return a torchvision network for two classes, with random weights."""
    from torchvision.models import get_model

    return get_model(args.backbones[0], num_classes=2)


# ---------------------------------------------------------------------- a head


def sklearn_dl_head(args):
    """Time `ImageClassifier` on a frozen backbone."""
    from sklearn_dl import ImageClassifier

    model = ImageClassifier(
        args.backbones[0],
        weights=None,
        preprocessing="IMAGENET1K_V1",
        max_epochs=HEAD_EPOCHS,
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        cache=None,
        random_state=0,
    )
    images = images_of(args)
    return lambda: model.fit(images, targets(len(images)))


def skorch_head(args):
    """Time a frozen network and a head, both of which skorch runs in each epoch."""
    from skorch.callbacks import Freezer

    last = list(dict(two_classes(args).named_modules()))[-1]
    freezer = Freezer(lambda name: not name.startswith(last))
    net, images = net_of_skorch(args, max_epochs=HEAD_EPOCHS, callbacks=[freezer])
    return lambda: net.fit(images, None)


FINE_TUNING = {
    OURS: sklearn_dl,
    "tuned loop": tuned_loop,
    "skorch": skorch,
    "plain loop": plain_loop,
}
HEAD = {OURS: sklearn_dl_head, "bare limit": bare_limit, "skorch": skorch_head}

if __name__ == "__main__":
    main()
