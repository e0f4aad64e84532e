"""`predict_proba` of one image, against the bare network and the preset's own time.

    python examples/benchmarks/latency.py --backbones mobilenet_v2

- ``sklearn_dl``: `ImageClassifier.predict_proba` of one uint8 array of 256 x 256, of an
  estimator that was fitted before, without a cache.
- ``bare forward``: the tuned network (channels_last, kept allocator, inference mode) on
  a batch of one that is ready.
- ``preset``: torchvision's transform of the same image from Pillow, resize, crop and
  normalisation.
- ``skorch``: `predict_proba` of a net of skorch, on the pixels that are ready.

The bar is the median over the rounds of sklearn_dl by the sum of forward and preset.
"""

import harness
import numpy as np
import torch
from extraction import bare_limit
from PIL import Image

OURS, BARE, PRESET, SKORCH = "sklearn_dl", "bare forward", "preset", "skorch"


def main() -> None:
    """Race the contenders for each backbone, and print a table."""
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=["mobilenet_v2", "resnet18", "resnet50", "efficientnet_b0"],
    )
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--calls", type=int, default=20, help="in one turn")
    args = parser.parse_args()
    if args.contender:
        work = CONTENDERS[args.contender](args)
        return harness.serve(lambda: [work() for _ in range(args.calls)])
    rows = []
    for backbone in args.backbones:
        options = ["--backbones", backbone, "--precision", args.precision]
        options += ["--device", args.device, "--calls", str(args.calls)]
        took = harness.race(__file__, CONTENDERS, options, args.rounds)
        least = [a + b for a, b in zip(took[BARE], took[PRESET], strict=True)]
        times = [1000 * np.median(took[name]) / args.calls for name in CONTENDERS]
        bar = harness.ratio(took[OURS], least)
        rows.append([backbone, *(f"{ms:.1f}" for ms in times), f"{bar:.2f}"])
    title = f"`predict_proba` of one image, {args.precision}: milliseconds"
    header = ["backbone", *CONTENDERS, "sklearn_dl / (forward + preset)"]
    harness.table(title, header, rows, args.output)


def sklearn_dl(args):
    """Time `ImageClassifier.predict_proba`."""
    from sklearn_dl import ImageClassifier

    images = harness.random_arrays(8)
    model = ImageClassifier(
        args.backbones[0],
        weights=None,
        preprocessing="IMAGENET1K_V1",
        max_epochs=1,
        device=args.device,
        precision=args.precision,
        cache=None,
        random_state=0,
    ).fit(images, [0, 1] * 4)
    return lambda: model.predict_proba(images[:1])


def bare_forward(args):
    """Time the network on a batch of one."""
    args.images = args.batch_size = 1
    return bare_limit(args)


def preset(args):
    """Time the transform alone."""
    transform = harness.preset(args.backbones[0])
    image = harness.random_arrays(1)[0]
    return lambda: transform(Image.fromarray(image))


def skorch(args):
    """Time a net of skorch that predicts on ready pixels."""
    from skorch import NeuralNetClassifier
    from torchvision.models import get_model

    side = harness.preset(args.backbones[0]).crop_size[0]
    pixels = np.random.default_rng(0).random((1, 3, side, side), "float32")
    net = NeuralNetClassifier(
        get_model(args.backbones[0]),
        criterion=torch.nn.CrossEntropyLoss,
        device=str(harness.device_of(args)),
    ).initialize()
    return lambda: net.predict_proba(pixels)


CONTENDERS = {
    OURS: sklearn_dl,
    BARE: bare_forward,
    PRESET: preset,
    SKORCH: skorch,
}

if __name__ == "__main__":
    main()
