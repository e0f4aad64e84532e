"""What importing the library costs, against the packages it stands on.

    python examples/benchmarks/startup.py

Each turn is a fresh Python that imports and ends:

- ``torch, torchvision, skorch``: those, as a script that trains by hand would.
- ``sklearn_dl``: the package alone.
- ``first use``: the package and its estimators.
"""

import statistics
import subprocess
import sys
import time

import harness

BASE = "torch, torchvision, skorch"
STATEMENTS = {
    "nothing": "pass",
    BASE: "import torch, torchvision, skorch",
    "sklearn_dl": "import sklearn_dl",
    "first use": "from sklearn_dl import ImageClassifier, ImageFeatureExtractor",
}


def main() -> None:
    """Start the Pythons in turn, and print the table."""
    args = harness.parser(__doc__).parse_args()
    took: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for k in range(args.rounds + 1):
        for name in list(STATEMENTS)[:: 1 if k % 2 else -1]:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", STATEMENTS[name]], check=True)
            if k:  # the first round reads the files from the disk
                took[name].append(time.perf_counter() - start)
    rows = [
        [
            name,
            f"{statistics.median(seconds):.2f}",
            f"{harness.ratio(seconds, took[BASE]):.2f}",
        ]
        for name, seconds in took.items()
    ]
    header = ["import", "seconds", f"by those of {BASE}"]
    harness.table("Start of Python", header, rows, args.output)


if __name__ == "__main__":
    main()
