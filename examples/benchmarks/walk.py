"""How many hands an image passes through: functions, files and depth of four calls.

    python examples/benchmarks/walk.py
    python examples/benchmarks/walk.py --package ../before --list

16 images go through mobilenet_v3_small with its built-in weights at 64 pixels: arrays,
and files for `transform`. For each call, this prints how many distinct functions of the
package ran, in how many of its files, and the most of its frames that were on the stack
of one thread. Comprehensions, lambdas and the bodies of modules are no functions, but
frames. The backbone is loaded before, and `transform` has been called on the files;
calls that find everything in the cache are made once before they are traced.
"""

import argparse
import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
from PIL import Image

CACHED = ("predict_proba, everything in the cache", "transform, directory cache")


def main() -> None:
    """Trace the four calls, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, help="the folder that holds sklearn_dl")
    parser.add_argument("--list", action="store_true", help="print the functions too")
    args = parser.parse_args()
    if args.package is not None:
        sys.path.insert(0, str(args.package.resolve()))
    import sklearn_dl

    home = os.path.dirname(os.path.abspath(sklearn_dl.__file__)) + os.sep
    print(f"{'call':<44}{'functions':>10}{'files':>7}{'depth':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name, call in calls(Path(folder)).items():
            if name in CACHED:
                call()
            trace = Trace(home)
            trace.run(call)
            files = trace.by_file()
            n_functions = sum(map(len, files.values()))
            print(f"{name:<44}{n_functions:>10}{len(files):>7}{trace.depth:>7}")
            if args.list:
                for file, functions in sorted(files.items()):
                    print(f"    {file}: {', '.join(sorted(functions))}")


def calls(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what is traced, in this order."""
    from sklearn_dl import ImageClassifier, ImageFeatureExtractor

    y = np.arange(16) % 2
    X = np.random.default_rng(0).integers(0, 156, (16, 80, 96, 3), "uint8")
    X[y == 1] += 100
    files = [str(folder / f"{i}.png") for i in range(len(X))]
    for file, pixels in zip(files, X, strict=True):
        Image.fromarray(pixels).save(file)
    options = {"weights": "builtin", "image_size": 64, "random_state": 0}
    name = "mobilenet_v3_small"
    head = ImageClassifier(name, trainable="head", max_epochs=2, **options)
    whole = ImageClassifier(
        name, trainable="all", augment="light", max_epochs=2, **options
    )
    extractor = ImageFeatureExtractor(name, cache=folder / "cache", **options)
    extractor.fit(files).transform(files)
    return {
        'ImageClassifier(trainable="head").fit': lambda: head.fit(X, y),
        CACHED[0]: lambda: head.predict_proba(X),
        'ImageClassifier(trainable="all", "light").fit': lambda: whole.fit(X, y),
        CACHED[1]: lambda: extractor.transform(files),
    }


class Trace:
    """The package's functions that a call runs.

    Parameters
    ----------
    home : str
        The folder of the package.
    """

    def __init__(self, home: str):
        self.home = home
        self.seen: set[CodeType] = set()
        self.depth = 0

    def run(self, call: Callable[[], object]) -> None:
        """Trace a call, in all threads that it starts."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def by_file(self) -> dict[str, set[str]]:
        """Return the names of the functions, by the path of their file."""
        files: dict[str, set[str]] = defaultdict(set)
        for code in self.seen:
            files[code.co_filename.removeprefix(self.home)].add(code.co_qualname)
        return files

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not self._is_own(frame.f_code):
            return
        if frame.f_code.co_name[0] != "<":  # as those of comprehensions
            self.seen.add(frame.f_code)
        depth, above = 0, frame
        while above is not None:
            depth += self._is_own(above.f_code)
            above = above.f_back
        self.depth = max(self.depth, depth)

    def _is_own(self, code: CodeType) -> bool:
        return code.co_filename.startswith(self.home)


if __name__ == "__main__":
    main()
