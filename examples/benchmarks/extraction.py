"""Features of images: against the bare network, a plain loop and other libraries.

    python examples/benchmarks/extraction.py --form arrays --backbones resnet18
    python examples/benchmarks/extraction.py --form files --data photographs

The contenders take turns, each in a process of its own, over the same images:

- ``sklearn_dl``: `ImageFeatureExtractor.transform`, without a cache.
- ``bare limit``: the tuned network (channels_last, kept allocator, inference mode) on
  tensors that are ready. It computes BatchNorm apart, and casts weights at each batch:
  sklearn_dl, which does neither, can be faster.
- ``decoding`` (files): decoding, resizing and cropping alone, by a thread on each core.
  With the bare limit it makes the floor of files.
- ``plain loop``: a DataLoader over torchvision's preset and the network as it comes,
  in float32.
- ``embetter``, ``img2vec``: those packages, where they are installed, in float32.

The ratio is the median over the rounds of the contender's seconds by those of
sklearn_dl: above 1, it is slower. Weights are random; speed doesn't depend on them.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import harness
import numpy as np
import torch
from PIL import Image

OURS, BARE, DECODING = "sklearn_dl", "bare limit", "decoding"
TIMM = {"mobilenet_v2": "mobilenetv2_100"}


def main() -> None:
    """Race the contenders for each backbone, and print the tables."""
    parser = harness.parser(__doc__)
    backbones = ["mobilenet_v2", "resnet18", "resnet50", "efficientnet_b0"]
    add_options(parser, backbones=backbones, batch_size=32)
    args = parser.parse_args()
    for_each_backbone(args, CONTENDERS, compare)


def add_options(parser, *, backbones: list[str], batch_size: int) -> None:
    """Add the options of what is raced over images."""
    parser.add_argument("--form", choices=["arrays", "files"], default="arrays")
    parser.add_argument("--backbones", nargs="+", default=backbones)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, help="folder of images to take as files")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="of the plain loaders"
    )
    parser.add_argument("--contenders", nargs="+", help="only these")
    parser.add_argument("--paths", type=Path, help=harness.argparse.SUPPRESS)


def for_each_backbone(args, contenders: dict, compare) -> None:
    """Be the contender that is asked for, or compare those of each backbone."""
    if args.contender:
        return harness.serve(contenders[args.contender](args))
    with tempfile.TemporaryDirectory() as folder:
        args.paths = Path(folder, "paths.txt")
        if args.form == "files":
            paths = files(args, Path(folder))
            args.images = len(paths)
            args.paths.write_text("\n".join(paths))
        for backbone in args.backbones:
            # The ratios are to ours.
            others = [n for n in args.contenders or contenders if n != OURS]
            compare(backbone, [OURS, *others], args)


def raced(script: str, backbone: str, names: list[str], args, *more: str):
    """Return the seconds of contenders that run with these options."""
    options = ["--backbones", backbone, *more]
    shared = "form", "paths", "precision", "images", "batch_size", "device", "workers"
    for name in shared:
        options += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return harness.race(script, names, options, args.rounds)


def files(args, folder: Path) -> list[str]:
    """Return the paths of the images: those of a folder, or some made for this."""
    if args.data is None:
        return harness.write_photographs(folder, args.images)
    found = sorted(p for p in args.data.rglob("*") if p.suffix in (".jpg", ".jpeg"))
    return [str(path.absolute()) for path in found[: args.images]]


def compare(backbone: str, names: list[str], args) -> None:
    """Print the table of one backbone."""
    if args.form != "files":
        names = [name for name in names if name != DECODING]
    took = raced(__file__, backbone, names, args)
    if DECODING in took and BARE in took:
        pairs = zip(took[DECODING], took[BARE], strict=True)
        took["floor: decoding + bare limit"] = [a + b for a, b in pairs]
    rows = [
        [
            name,
            f"{args.images / np.median(seconds):.0f}",
            f"{harness.ratio(seconds, took[OURS]):.2f}",
        ]
        for name, seconds in took.items()
        if not np.isnan(seconds).any()
    ]
    title = f"Extraction from {args.form}: {backbone}, {args.precision}"
    header = ["contender", "images/s", "seconds by those of sklearn_dl"]
    harness.table(title, header, rows, args.output)


def images_of(args):
    """Return what a contender is given: an array, or paths."""
    if args.form == "files":
        return args.paths.read_text().splitlines()
    return harness.random_arrays(args.images)


def opened(image) -> Image.Image:
    """Return an image of either form as Pillow has it."""
    if isinstance(image, str):
        return Image.open(image).convert("RGB")
    return Image.fromarray(image)


# -------------------------------------------------------------------- contenders


def sklearn_dl(args):
    """Time `ImageFeatureExtractor.transform`."""
    from sklearn_dl import ImageFeatureExtractor

    extractor = ImageFeatureExtractor(
        args.backbones[0],
        weights=None,
        preprocessing="IMAGENET1K_V1",
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        cache=None,
        random_state=0,
    )
    images = images_of(args)
    extractor.fit(images)
    return lambda: extractor.transform(images)


def bare_limit(args):
    """Time the network on batches that are ready on the device."""
    from torchvision.models import get_model

    harness.keep_blocks()
    device = harness.device_of(args)
    network = get_model(args.backbones[0]).eval().to(device)
    network = network.to(memory_format=torch.channels_last)
    side = harness.preset(args.backbones[0]).crop_size[0]
    batches = torch.randn(args.images, 3, side, side, device=device)
    batches = [
        part.contiguous(memory_format=torch.channels_last)
        for part in batches.split(args.batch_size)
    ]

    def work():
        with torch.inference_mode(), harness.half(args.precision, device):
            for batch in batches:
                network(batch)
        harness.synchronize(device)

    return work


def decoding(args):
    """Time decoding, resizing and cropping on all cores, and nothing else."""
    from torchvision.transforms import functional as F

    transform = harness.preset(args.backbones[0])
    paths = images_of(args)

    def one(path):
        image = F.resize(opened(path), transform.resize_size, transform.interpolation)
        return np.asarray(F.center_crop(image, transform.crop_size))

    def work():
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(one, paths):
                pass

    return work


def plain_loop(args):
    """Time a DataLoader over the preset, and the network as torchvision gives it."""
    from torchvision.models import get_model

    device = harness.device_of(args)
    network = get_model(args.backbones[0]).eval().to(device)
    loader = torch.utils.data.DataLoader(
        Transformed(images_of(args), harness.preset(args.backbones[0])),
        batch_size=args.batch_size,
        num_workers=args.workers,
    )

    def work():
        outputs = []
        with torch.no_grad():  # in float32, as torchvision gives the network
            for batch in loader:
                outputs.append(network(batch.to(device)).cpu())

    return work


class Transformed(torch.utils.data.Dataset):
    """Images through a transform, as a dataset for torch."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.transform(opened(self.images[i]))


def embetter(args):
    """Time the encoder of embetter over timm, image by image."""
    import timm
    from embetter.vision import TimmEncoder

    def unweighted(name, pretrained=True, **options):
        return timm_create(name, pretrained=False, **options)

    timm_create = timm.create_model
    with mock.patch.object(timm, "create_model", unweighted):
        name = args.backbones[0]
        encoder = TimmEncoder(TIMM.get(name, name))
    encoder.model.eval()
    images = images_of(args)
    return lambda: encoder.transform([opened(image) for image in images])


def img2vec(args):
    """Time img2vec-pytorch, in lists as long as a batch; it has no mobilenet_v2."""
    from img2vec_pytorch import img_to_vec
    from torchvision.models import get_model

    name, on_gpu = args.backbones[0], harness.device_of(args).type == "cuda"
    with mock.patch.object(img_to_vec, name, return_value=get_model(name)):
        encoder = img_to_vec.Img2Vec(model=name, cuda=on_gpu)
    images, size = images_of(args), args.batch_size

    def work():
        for start in range(0, len(images), size):
            part = [opened(image) for image in images[start : start + size]]
            encoder.get_vec(part)

    return work


CONTENDERS = {
    OURS: sklearn_dl,
    BARE: bare_limit,
    DECODING: decoding,
    "plain loop": plain_loop,
    "embetter": embetter,
    "img2vec": img2vec,
}

if __name__ == "__main__":
    main()
