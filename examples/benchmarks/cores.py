"""Extraction on one core, on two, and so on to all of them.

    python examples/benchmarks/cores.py --backbone resnet18

`OMP_NUM_THREADS` sets the number of threads of sklearn_dl and of the bare limit, which
take turns over the same images. A speed-up of n on n cores is the most there can be.
"""

import os

import extraction
import harness
import numpy as np


def main() -> None:
    """Race with each number of threads, and print the table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=powers())
    args = parser.parse_args()
    options = ["--backbones", args.backbone, "--images", str(args.images)]
    options += ["--precision", args.precision]
    names = [extraction.OURS, extraction.BARE]
    rows, first = [], None
    for threads in args.threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        took = harness.race(extraction.__file__, names, options, args.rounds)
        medians = [float(np.median(took[name])) for name in names]
        first = first or medians
        speeds = [f"{args.images / seconds:.0f}" for seconds in medians]
        gains = [f"{a / b:.2f}" for a, b in zip(first, medians, strict=True)]
        of_limit = f"{harness.ratio(took[names[1]], took[names[0]]):.2f}"
        rows.append([threads, *speeds, *gains, of_limit])
    header = ["threads", *(f"{name}, images/s" for name in names)]
    header += [*(f"{name}, speed-up" for name in names), "of the limit"]
    title = f"Cores: extraction from arrays, {args.backbone}, {args.precision}"
    harness.table(title, header, rows, args.output)


def powers() -> list[int]:
    """Return the powers of two up to the number of cores, and that number."""
    cores = os.cpu_count() or 1
    below = [2**k for k in range(cores.bit_length()) if 2**k < cores]
    return [*below, cores]


if __name__ == "__main__":
    main()
