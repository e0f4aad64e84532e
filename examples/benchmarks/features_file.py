"""Features to a file: seconds, memory, kills, shards, and training from the file.

    python examples/benchmarks/features_file.py write --rows 20000
    python examples/benchmarks/features_file.py memory --rows 200000
    python examples/benchmarks/features_file.py memory --rows 1000000 --mean
    python examples/benchmarks/features_file.py kill --rows 100000
    python examples/benchmarks/features_file.py shards --rows 20000
    python examples/benchmarks/features_file.py sgd --rows 1000000

2,000 PNG files of 32 x 32 pixels are named as often as there are rows, and go through
mobilenet_v3_small without a cache, by one thread. Seconds are the processor's, which
others on the machine don't add to. ``write`` has `transform` and writing take turns.
``memory`` writes 10,000 rows and all, each in a process of its own: the peak of its
unshared memory (Linux's RssAnon), and the seconds; with ``--mean`` the mean of the
pixels takes the place of the network. ``kill`` kills a process that writes three times,
starts it again, and compares the features with those of an unbroken run, bit for bit;
``shards`` does so with 16 shards in 4 processes at once. ``sgd`` writes random float16
features of 1,280 columns, and fits a `SGDClassifier` for one epoch.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import harness
import numpy as np
from PIL import Image

N_FILES = 2000
SUFFIX = {"npy": ".npy", "parquet": ".parquet"}


def main() -> None:
    """Run a part, or be a process of one."""
    parser = harness.parser(__doc__)
    parts = {"write": write, "memory": memory, "kill": kill, "shards": shards}
    parts["sgd"] = sgd
    parser.add_argument("part", choices=[*parts, "one"])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--folder", type=Path, help="of images and features, kept")
    parser.add_argument("--clock", action="store_true", help="for write, if idle")
    parser.add_argument("--mean", action="store_true", help="no network, for memory")
    parser.add_argument("--shard", help=harness.argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "one":
        return one(args)
    if args.contender and args.part == "write":
        return harness.serve(turn(args.contender, args.folder, args.rows, args.clock))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        if args.part != "sgd" and not args.contender:
            write_images(Path(folder))
        parts[args.part](args, Path(folder))


def write_images(folder: Path) -> None:
    """Write small distinct images."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for k in range(N_FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8"))
        coarse.resize((32, 32)).save(folder / "images" / f"{k:04}.png")


def names(folder: Path, n: int) -> list[str]:
    """Return the paths, as often as there are rows."""
    paths = sorted(map(str, (folder / "images").iterdir()))
    return (paths * -(-n // len(paths)))[:n]


def extractor(X, mean: bool = False):
    """Return a fitted extractor."""
    import torch

    from sklearn_dl import ImageFeatureExtractor

    torch.set_num_threads(1)
    network = mean_of_pixels if mean else "mobilenet_v3_small"
    options = {} if mean else {"weights": "builtin"}
    model = ImageFeatureExtractor(network, **options, image_size=32, cache=None)
    return model.fit(X)


def mean_of_pixels():
    """Return a network that gives the mean of the pixels 1,024 times."""
    import torch

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None].repeat(1, 1024)

    return Mean()


def turn(name: str, folder: Path, n: int, clock: bool):
    """Return the work of a contender."""
    seconds = time.perf_counter if clock else time.process_time
    X = names(folder, n)
    model = extractor(X)
    form, _, dtype = name.partition(" ")
    path = folder / f"{form}-{dtype}{SUFFIX.get(form)}"

    def work() -> float:
        begun = seconds()
        if name == "transform":
            model.transform(X)
        else:
            model.transform_to(X, path, dtype=dtype)
        return seconds() - begun

    return work


def write(args, folder: Path) -> None:
    """Let transform and the writers take turns."""
    forms = ["npy float16", "npy float32", "parquet float16", "parquet float32"]
    options = ["write", "--rows", str(args.rows), "--folder", str(folder)]
    options += ["--clock"] * args.clock
    took = harness.race(__file__, ["transform", *forms], options, args.rounds)
    plain = took["transform"]
    rows = [["transform", f"{np.median(plain) / args.rows * 1e6:.0f}", "1.000"]]
    for name in forms:
        a_row = np.median(took[name]) / args.rows * 1e6
        rows.append([name, f"{a_row:.0f}", f"{harness.ratio(took[name], plain):.3f}"])
    header = ["", f"us of the {'clock' if args.clock else 'processor'} a row"]
    header += ["by transform"]
    harness.table(f"Writing {args.rows} rows", header, rows, args.output)


class Peak:
    """The most unshared memory of this process, in MB, looked at each 20 ms."""

    def __init__(self):
        self.mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.mb = max(self.mb, unshared())

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._ended.set()
        self._thread.join()


def unshared() -> float:
    """Return the unshared memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1000


def one(args) -> None:
    """Write features once; print the peak and the seconds."""
    X = names(args.folder, args.rows)
    y = np.arange(len(X)) % 10
    name = f"{args.contender}.npy"
    model = extractor(X, args.mean)
    model.transform(X[:64])
    with Peak() as peak:
        begun = time.process_time()
        path = args.folder / name
        model.transform_to(X, path, y, dtype="float16", shard=args.shard)
        seconds = time.process_time() - begun
    print(json.dumps({"peak": peak.mb, "seconds": seconds}))


def command(name: str, folder: Path, rows: int, *more: str) -> list[str]:
    """Return the command of a process that writes features once."""
    start = [sys.executable, __file__, "one", "--contender", name]
    return [*start, "--folder", str(folder), "--rows", str(rows), *more]


def memory(args, folder: Path) -> None:
    """Write few rows and many, each in a process."""
    rows = []
    more = ["--mean"] if args.mean else []
    for n in (10000, args.rows):
        output = subprocess.check_output(command(f"{n}", folder, n, *more), text=True)
        found = json.loads(output)
        a_row = found["seconds"] / n * 1e6
        rows.append([n, f"{found['peak']:.0f}", f"{found['seconds']:.1f}"])
        rows[-1].append(f"{a_row:.0f}")
        (folder / f"{n}.npy").unlink()
    header = ["rows", "peak unshared MB", "seconds of the processor", "us a row"]
    harness.table("Memory and time of transform_to", header, rows, args.output)


def kill(args, folder: Path) -> None:
    """Kill a writing process at each quarter, and compare the files."""
    subprocess.check_output(command("whole", folder, args.rows))
    state, at = folder / "killed.npy.part.json", []
    for quarter in (1, 2, 3):
        process = subprocess.Popen(command("killed", folder, args.rows))
        done = 0
        while done < quarter * args.rows // 4 and process.poll() is None:
            time.sleep(0.2)
            with suppress(FileNotFoundError):
                done = json.loads(state.read_bytes())["done"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        at.append(json.loads(state.read_bytes())["done"])
    subprocess.check_output(command("killed", folder, args.rows))
    rows = [[args.rows, ", ".join(map(str, at)), same(folder, ["killed.npy"])]]
    header = ["rows", "killed with so many on disk", "equal to the unbroken run"]
    harness.table("Killed three times", header, rows, args.output)


def shards(args, folder: Path) -> None:
    """Write 16 shards by 4 processes at once, and compare them, joined."""
    subprocess.check_output(command("whole", folder, args.rows))
    script = "import subprocess, sys, json\nfor c in json.loads(sys.argv[1]):\n"
    script += "    subprocess.check_output(c)"
    work = []
    for first in range(1, 5):
        todo = [
            command(f"shard-{k}", folder, args.rows, "--shard", f"{k}/16")
            for k in range(first, 17, 4)
        ]
        call = [sys.executable, "-c", script, json.dumps(todo)]
        work.append(subprocess.Popen(call))
    assert [process.wait() for process in work] == [0] * 4
    found = same(folder, [f"shard-{k}.npy" for k in range(16, 0, -1)])
    header = ["rows", "equal to one run"]
    harness.table("16 shards", header, [[args.rows, found]], args.output)


def same(folder: Path, files: list[str]) -> bool:
    """Tell whether features, names and labels are those of the whole, bit for bit."""
    from sklearn_dl.datasets import load_features

    whole = load_features(folder / "whole.npy")
    other = load_features([folder / name for name in files])
    return (
        np.array_equal(whole.data, other.data)
        and np.array_equal(whole.filenames, other.filenames)
        and np.array_equal(whole.target, other.target)
    )


def sgd(args, folder: Path) -> None:
    """Fit SGDClassifier for one epoch, in a process of its own."""
    if args.contender is None:
        call = [sys.executable, __file__, "sgd", "--rows", str(args.rows)]
        call += ["--contender", "sgd", "--folder", str(folder)]
        random_features(folder / "random.npy", args.rows)
        found = json.loads(subprocess.check_output(call, text=True))
        row = [args.rows, *(f"{found[k]:.0f}" for k in ("peak", "seconds"))]
        header = ["rows", "peak unshared MB", "seconds of the processor"]
        title = "An epoch of SGDClassifier over float16 features of 1,280 columns"
        return harness.table(title, header, [row], args.output)
    from sklearn.linear_model import SGDClassifier

    from sklearn_dl.datasets import iter_features, load_features

    path = args.folder / "random.npy"
    with Peak() as peak:
        begun = time.process_time()
        bunch = load_features(path)
        classifier = SGDClassifier(random_state=0)
        for X, y in iter_features(path, shuffle=True, random_state=0):
            classifier.partial_fit(X, y, classes=bunch.target_names)
        seconds = time.process_time() - begun
    print(json.dumps({"peak": peak.mb, "seconds": seconds}))


def random_features(path: Path, n: int) -> None:
    """Write random features of ten classes, class by class, as transform_to would."""
    from sklearn_dl import datasets
    from sklearn_dl._images import as_source

    rng = np.random.default_rng(0)
    means = rng.standard_normal((10, 1280), dtype=np.float32) * 0.1
    y = np.arange(n) * 10 // n
    source = as_source([f"photos/{k:07}.jpg" for k in range(n)])
    table = datasets.FeaturesTable(source, [f"class {k}" for k in y])
    about = {"features": {}, "dtype": "float16", "n_features": 1280}
    about |= {"shard": None, "of_rows": n, "versions": {}}
    with datasets.FeaturesWriter(path, table, range(n), about) as writer:
        for start in range(0, n, 4096):
            rows = np.arange(start, min(start + 4096, n))
            noise = rng.standard_normal((len(rows), 1280), dtype=np.float32)
            writer.put(rows, noise + means[y[rows]])
        writer.finish()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
