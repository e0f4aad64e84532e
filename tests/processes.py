"""Other processes that begin at once: forks of one that has imported torch.

For tests that say "another process". It has another hash seed and other addresses than
the tests, shares no thread, file or variable with them, and may be killed. Tests of
what an import loads or costs take a fresh Python instead. Where there is no fork, each
of these is a fresh Python too.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from multiprocessing import reduction
from types import ModuleType

HAS_FORK = hasattr(os, "fork")
PRELOADED = [
    *("numpy.random", "sklearn_dl._extraction._directory", "sklearn_dl._features"),
    *("sklearn_dl._classifier", "sklearn_dl._regressor"),
    *("sklearn_dl.model_selection._experiments", "sklearn_dl.persistence._save"),
]
CONTEXT = multiprocessing.get_context("forkserver" if HAS_FORK else "spawn")
if HAS_FORK:
    CONTEXT.set_forkserver_preload(PRELOADED)


class Fork:
    """A process that runs code, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, code, arguments, environment, files):
        given = code, arguments, environment, sys.path, os.getcwd()
        duplicates = [reduction.DupFd(file.fileno()) for file in files]
        # By its name the library tells a worker process from others.
        self._process = CONTEXT.Process(
            target=_become, args=(given, duplicates), name="MainProcess"
        )
        self._process.start()

    def poll(self):
        """Return the exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout=120):
        """Return the exit code when it has ended."""
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            raise TimeoutError(f"it still ran after {timeout} s")
        return self.poll()

    def send_signal(self, number):
        os.kill(self._process.pid, number)


def start(code, *arguments, env=None):
    """Begin Python code in another process, with pipes for what it reads and writes."""
    environment, arguments = env or dict(os.environ), [*map(str, arguments)]
    if not HAS_FORK:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
        )
    ends = [os.pipe() for _ in range(3)]
    theirs = [open(ends[0][0], "rb"), open(ends[1][1], "wb"), open(ends[2][1], "wb")]
    begun = Fork(code, arguments, environment, theirs)
    for file in theirs:
        file.close()
    begun.stdin = open(ends[0][1], "wb")
    begun.stdout, begun.stderr = open(ends[1][0], "rb"), open(ends[2][0], "rb")
    return begun


def run(code, *arguments, env=None, given=b"", check=True, text=True):
    """Run Python code in another process, and return its end as `subprocess.run` does.

    `given` is what it reads.

    Raises
    ------
    AssertionError
        With what it wrote to stderr, if it fails and `check` holds.
    """
    environment, arguments = env or dict(os.environ), [*map(str, arguments)]
    files = [tempfile.TemporaryFile() for _ in range(3)]
    files[0].write(given)
    files[0].seek(0)
    if HAS_FORK:
        code = Fork(code, arguments, environment, files).wait()
    else:
        code = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            **dict(zip(("stdin", "stdout", "stderr"), files, strict=True)),
        ).returncode
    written = []
    for file in files:
        file.seek(0)
        written.append(file.read())
        file.close()
    assert not check or code == 0, written[2].decode()
    if text:
        written = [content.decode() for content in written]
    return subprocess.CompletedProcess(arguments, code, *written[1:])


def _become(given, duplicates):
    """Become what ``python -c`` would be, and end."""
    code, arguments, environment, path, folder = given
    for number, duplicate in enumerate(duplicates):
        os.dup2(duplicate.detach(), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:], sys.argv[:] = path, ["-c", *arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(code, "<string>", "exec"), main.__dict__)
        threading._shutdown()
        status = 0
    except SystemExit as error:
        status = error.code or 0
        if not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = 120
    os._exit(status)
