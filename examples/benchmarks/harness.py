"""What the benchmarks share: contenders that take turns, tables, the machine's name.

Each contender runs in a process of its own, so that what one sets for its process (the
allocator, threads, precision) doesn't reach another. Only one works at a time.
"""

import argparse
import ctypes
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    made.add_argument("--output", type=Path, help="Markdown file to append tables to")
    made.add_argument("--contender", help=argparse.SUPPRESS)
    return made


# ------------------------------------------------------------------------- turns


def serve(work: Callable[[], object]) -> None:
    """Be a contender: work once for each line that comes, and print the seconds.

    Work that measures itself returns its seconds, as a float.
    """
    for _ in range(2):
        work()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        measured = work()
        seconds = time.perf_counter() - start
        print(measured if isinstance(measured, float) else seconds, flush=True)


class Contender:
    """A contender's process, seen from the one that calls the turns."""

    def __init__(self, script: str, name: str, options: Iterable[str]):
        command = [sys.executable, script, "--contender", name, *options]
        self._process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ready = self._line() == "ready"

    def turn(self) -> float:
        """Let it work once; return the seconds, nan where it can't."""
        if not self.ready:
            return float("nan")
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line() or "nan")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *exc_info) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def race(
    script: str, names: Iterable[str], options: Iterable[str], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each contender's turns; nan where it can't run here."""
    options = list(options)
    with ExitStack() as stack:
        field = {
            name: stack.enter_context(Contender(script, name, options))
            for name in names
        }
        took: dict[str, list[float]] = {name: [] for name in field}
        for k in range(rounds):
            for name in list(field)[:: 1 if k % 2 else -1]:
                took[name].append(field[name].turn())
    return took


def ratio(slower: list[float], faster: list[float]) -> float:
    """Return the median over the rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


# ------------------------------------------------------------------------ tables


def table(title: str, header: list[str], rows: list[list], output: Path | None) -> None:
    """Print a Markdown table under its command and machine, and append it to a file."""
    command = shlex.join(["python", Path(sys.argv[0]).name, *_shown(sys.argv[1:])])
    lines = [f"### {title}", "", f"`{command}`; {machine()}", ""]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in [header, *rows]]
    lines.insert(5, "|" + "---|" * len(header))
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    if output is not None:
        with output.open("a", encoding="utf-8") as file:
            file.write("\n" + text)


def _shown(arguments: list[str]) -> list[str]:
    """Leave out where the table goes."""
    if "--output" not in arguments:
        return arguments
    k = arguments.index("--output")
    return arguments[:k] + arguments[k + 2 :]


def machine() -> str:
    """Name the machine, the packages and the day."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f"{pages / 2**30:.0f} GiB, "
    except (AttributeError, ValueError):  # Windows
        memory = ""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    names = "torch", "torchvision", "skorch", "scikit-learn", "pillow"
    packages = ", ".join(f"{n} {v}" for n in names if (v := _version(n)))
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory}{gpu}; Python "
        f"{platform.python_version()}, {packages}; {datetime.now(UTC):%Y-%m-%d}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# ------------------------------------------------------------ images, bare networks


def random_arrays(n: int, side: int = 256) -> np.ndarray:
    """Return n uint8 images of noise."""
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), "uint8")


def write_photographs(folder: Path, n: int, size=(500, 375)) -> list[str]:
    """Write n distinct JPEG files that decode about as slowly as photographs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), "uint8"))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        grain = rng.normal(0, 8, smooth.shape).astype(np.int16)
        paths.append(str(folder / f"{i:06}.jpg"))
        pixels = (smooth + grain).clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def keep_blocks() -> None:
    """Tell glibc to keep freed blocks, as who tunes a loop by hand would."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def preset(backbone: str):
    """Return torchvision's own transform for a backbone's first weights."""
    from torchvision.models import get_model_weights

    return get_model_weights(backbone)["IMAGENET1K_V1"].transforms()


def device_of(args: argparse.Namespace):
    """Return the torch device of `--device`."""
    if args.device != "auto":
        return torch.device(args.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize(device) -> None:
    """Wait for the device to have done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def half(precision: str, device):
    """Return the context of a precision: autocast where it is a half one."""
    dtype = getattr(torch, precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
