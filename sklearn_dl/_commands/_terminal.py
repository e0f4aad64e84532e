"""What the commands share: arguments, messages, outputs."""

import argparse
import ast
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from sklearn_dl._files import check_target


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=form, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def assignment(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``NAME=VALUE``."""
    name, _, given = text.partition("=")
    return name, value(given)


def value(text: str) -> Any:
    """Return a number or another literal, names with commas as a list, or a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text.split(",") if "," in text else text


def one_line(error: object) -> str:
    """Return what an error says, in one line."""
    text = str(error) or type(error).__name__
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def write_error(line: str) -> None:
    """Write a line to stderr, if somebody reads it."""
    settle(sys.stderr, f"{line}\n")


def say(line: str) -> None:
    """Write a line to stdout; what is being done is worth more than its reader."""
    error = settle(sys.stdout, f"{line}\n")
    if error is not None and not isinstance(error, BrokenPipeError):
        write_error(f"stdout can't be written: {one_line(error)}")


def settle(stream: Any, text: str = "") -> OSError | None:
    """Write and flush, or give up what a stream holds: at exit it would fail again."""
    try:
        if stream is not None:  # the process was started without it
            stream.write(text)
            stream.flush()
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        return error
    return None


def on_terminal(stream: Any) -> bool:
    """Whether somebody watches a stream."""
    return bool(stream is not None and stream.isatty())


def checked_output(path: str | os.PathLike, *inputs: str | None) -> Path:
    """Return the path of a file that can be written, before there is much to lose."""
    target = check_target(path)
    read = {os.path.realpath(os.path.expanduser(i)) for i in inputs if i is not None}
    if target.exists() and str(target) in read:
        raise ValueError(f"{path} is also read; give another name for the output.")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        reason = f"{error.strerror or error} ({target.parent})"
        raise ValueError(f"{path} can't be written: {reason}.") from error
    return Path(path).expanduser()


def size_of(*paths: str | os.PathLike) -> str:
    """Return the size of files, for people."""
    return f"{sum(map(os.path.getsize, paths)) / 1e6:.1f} MB"
