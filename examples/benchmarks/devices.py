"""Two devices against one: the CPU twice, and a network that sleeps.

    python examples/benchmarks/devices.py --assets shared/assets
    MALLOC_ARENA_MAX=1 python examples/benchmarks/devices.py --assets shared/assets
    python examples/benchmarks/devices.py --assets shared/assets --backbone resnet18

Photographs of ants and bees go through mobilenet_v2 with its ImageNet weights at 224
pixels, without a cache, on `device="cpu"` and on `device=["cpu", "cpu"]`, which take
turns. Each network may use all of torch's threads. Two can't be faster here; the table
says what handing the batches over costs, by the clock and in seconds of the processor,
which others on the machine don't add to (threads that wait for another one sleep,
`OMP_WAIT_POLICY=passive`, where spinning would count). A network that sleeps stands for
devices that compute by themselves. The last columns are of one device that is called in
another thread than the main one, as in a web server: glibc keeps large blocks for the
main thread alone, unless it is told to have one arena.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
import numpy as np
import torch

from sklearn_dl import ImageFeatureExtractor

DEVICES = {"one": "cpu", "two": ["cpu", "cpu"], "thread": "cpu"}
CLOCKS = {"clock": time.perf_counter, "processor": time.process_time}


def main() -> None:
    """Compare on photographs and with sleep, or be a contender."""
    parser = harness.parser(__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenet_v2", help="others are random")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64, help="photographs in a turn")
    args = parser.parse_args()
    if args.contender:
        return harness.serve(turn(args, *args.contender.split()))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # of the contenders
    options = ["--assets", str(args.assets), "--backbone", args.backbone]
    options += ["--rows", str(args.rows), "--batch-size", str(args.batch_size)]
    compared = []
    for work in ("photographs", "sleep"):
        for clock in CLOCKS:
            names = {n: f"{work} {clock} {n}" for n in DEVICES}
            took = harness.race(__file__, names.values(), options, args.rounds)
            one, two, thread = (took[name] for name in names.values())
            row = [work, f"seconds of the {clock}", f"{np.median(one):.3f}"]
            for other in (two, thread):
                row += [f"{np.median(other):.3f}", f"{harness.ratio(other, one):.3f}"]
            compared.append(row)
    apart = np.abs(features(args, "one") - features(args, "two")).max()
    title = f"One device and two, both the CPU; features at most {apart:.1e} apart"
    header = ["", "", "one", "two", "two by one", "thread", "thread by one"]
    harness.table(title, header, compared, args.output)


def turn(args, work: str, clock: str, devices: str):
    """Return the work of a contender, which gives its seconds."""
    seconds = CLOCKS[clock]
    model, X = prepared(args, devices) if work == "photographs" else asleep(devices)

    def measured() -> float:
        begun = seconds()
        model.transform(X)
        return seconds() - begun

    pool = ThreadPoolExecutor(1)
    if devices == "thread":
        return lambda: pool.submit(measured).result()
    return measured


def prepared(args, devices: str):
    """Return an extractor, and photographs of ants and bees, in turn."""
    folder = args.assets / "hymenoptera_data/train"
    kinds = [sorted(folder.glob(f"{kind}/*.jpg")) for kind in ("ants", "bees")]
    X = [str(path) for pair in zip(*kinds, strict=False) for path in pair][: args.rows]
    file = args.assets / f"{args.backbone}_imagenet.pth"
    weights = file if file.exists() else None
    options = {"weights": weights, "random_state": 0, "cache": None}
    options["batch_size"] = args.batch_size
    model = ImageFeatureExtractor(args.backbone, **options, device=DEVICES[devices])
    return model.fit(X), X


def features(args, devices: str) -> np.ndarray:
    """Return the features of the photographs."""
    model, X = prepared(args, devices)
    return model.transform(X)


class Sleeping(torch.nn.Module):
    """A network whose device works for 20 ms on a batch."""

    def forward(self, x):
        """Return the mean of each channel."""
        time.sleep(0.02)
        return x.mean((2, 3))


def asleep(devices: str):
    """Return an extractor that sleeps, and images for 40 batches."""
    X = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), "uint8")
    options = {"image_size": 32, "batch_size": 4, "cache": None}
    model = ImageFeatureExtractor(Sleeping, **options, device=DEVICES[devices])
    return model.fit(X), X


if __name__ == "__main__":
    main()
