"""What the commands share: arguments, messages, results, progress."""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from sklearn_dl._files import check_target


class CommandError(Exception):
    """The command can't be done as it was given."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        command = self.prog.rpartition(" ")[2]
        where = "" if command.startswith("sklearn") else f"{command}: "
        raise CommandError(f"{where}{message} (see --help)")


def one_line(error: object) -> str:
    """Return what an error says, in one line."""
    text = str(error) or type(error).__name__
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def write_error(line: str) -> None:
    """Write a line to stderr, if somebody reads it."""
    _write(sys.stderr, line)


def say(line: str) -> None:
    """Write a line to stdout; what is being done is worth more than its reader."""
    _write(sys.stdout, line)


def _write(stream: Any, line: str) -> None:
    if stream is None:  # the process was started without it
        return
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except OSError as error:
        silence(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            write_error(f"stdout can't be written: {one_line(error)}")


def silence(*streams: Any) -> None:
    """Send what is still written to streams nowhere, so that no flush fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def flush_what_can_be() -> None:
    """Flush stdout, or give up what it holds: at exit a failure would be shown."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


@contextmanager
def warnings_in_one_line(name: str) -> Iterator[None]:
    """Show warnings without the source line that they came from."""

    def show(message, category, filename, lineno, file=None, line=None):
        write_error(f"{name}: warning: {one_line(message)}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def on_terminal(stream: Any) -> bool:
    """Whether somebody watches a stream."""
    return bool(stream is not None and stream.isatty())


def checked_output(path: str | os.PathLike, *inputs: str | os.PathLike) -> Path:
    """Return the path of a file that can be written, before there is much to lose.

    Raises
    ------
    OSError
        See `check_target`.
    CommandError
        If it can't be written, or is one of the inputs.
    """
    target = check_target(path)
    if target.exists() and os.fspath(target) in {
        os.path.realpath(os.path.expanduser(source)) for source in inputs
    }:
        raise CommandError(f"{path} is also read; give another name for the output.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise CommandError(
            f"{path} can't be written: {error.strerror or error} ({target.parent})."
        ) from error
    return Path(path).expanduser()


def size_of(path: str | os.PathLike) -> str:
    """Return the size of a file, for people."""
    return f"{os.path.getsize(path) / 1e6:.1f} MB"


def positive(text: str) -> int:
    """Return a number of 1 or more, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return number
