"""What the tests of the stores do in other processes."""

import hashlib
import os
import signal
import sqlite3
import time
import traceback
import warnings
from contextlib import closing, suppress

import numpy as np
from processes import CONTEXT

from sklearn_dl._extraction._directory import DirectoryStore
from sklearn_dl._extraction._store import new_owner

BIG = 10**9


def key(i):
    return hashlib.sha256(str(i).encode()).digest()


def row(i, length=1280):
    """Return the one value that belongs to a number, large enough for several pages."""
    return np.random.default_rng(i).standard_normal(length, dtype=np.float32)


def start(function, *args):
    """Begin a function in another process; return it and the end of a pipe."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_run, args=(theirs, function, args), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def result_of(process, pipe):
    """Return what a function in another process returned, and its warnings."""
    assert pipe.poll(60), "no answer"
    answer = pipe.recv()
    process.join()
    pipe.close()
    if isinstance(answer, str):
        raise AssertionError(answer)
    return answer


def in_process(function, *args):
    return result_of(*start(function, *args))


PIPE = None


def _run(pipe, function, args):
    global PIPE
    PIPE = pipe
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = function(*args)
        pipe.send((value, [str(w.message) for w in caught]))
    except BaseException:
        pipe.send(traceback.format_exc())


def become_nobody():
    """Give up the rights of root, which no file mode stops."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def limit_files(size):
    """Let no file grow further, as a full disk does."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def share_work(directory, numbers, seed):
    """Fill a cache beside three others; return the numbers computed here, in order."""
    store = DirectoryStore(directory, BIG)
    owner, computed = new_owner(), []
    numbers = np.random.default_rng(seed).permutation(numbers)
    (directory.parents[1] / f"ready {seed}").touch()
    deadline = time.monotonic() + 50
    while len([*directory.parents[1].glob("ready *")]) < 4:  # a busy machine is late
        assert time.monotonic() < deadline, "the others did not start"
        time.sleep(0.001)
    for part in np.array_split(numbers, 20):
        todo = {key(i): int(i) for i in part}
        while todo:
            for found, value in store.lookup(list(todo), (1280,), "f4").items():
                np.testing.assert_array_equal(value, row(todo.pop(found)))
            mine = store.claim(list(todo), owner)
            computed += [todo[k] for k in mine]
            if mine:
                time.sleep(0.02)  # a backbone takes longer than the store
                store.put({k: row(todo[k]) for k in mine}, owner)
            elif todo:
                store.wait(list(todo), 5.0)
    store.count(0, len(computed))
    return computed


def write_for_ever(directory, first):
    """Claim and store rows until killed."""
    store = DirectoryStore(directory, BIG)
    owner = new_owner()
    for start in range(first, first + 10**6, 20):
        store.claim([key(i) for i in range(start, start + 40)], owner)
        store.put({key(i): row(i) for i in range(start, start + 20)}, owner)


def claim_and_stay(directory, numbers):
    owner = new_owner()
    PIPE.send(DirectoryStore(directory, BIG).claim([key(i) for i in numbers], owner))
    time.sleep(600)


def put_and_stay(directory, number):
    store = DirectoryStore(directory, BIG)
    store.put({key(number): row(number)}, new_owner())
    PIPE.send("stored")
    time.sleep(600)


def use_without_rights(directory):
    """Use a store that can only be read, and say what comes of it."""
    become_nobody()
    with suppress(OSError):
        os.makedirs(directory)
    store = DirectoryStore(directory, BIG)
    return use(store)


def use(store):
    found = store.lookup([key(1), key(2)], (1280,), "f4")
    claimed = store.claim([key(2), key(3)], "me")
    store.put({key(3): row(3)}, "me")
    store.remember_files({"a.png": ((1, 2, 3, 4, 5), key(0))})
    store.count(5, 7)
    store.wait([key(3)], 5.0)
    store.release("me")
    return {
        "found": {k: v.copy() for k, v in found.items()},
        "claimed": claimed,
        "later": sorted(store.lookup([key(1), key(3)], (1280,), "f4")),
        "files": store.known_files(["a.png"]),
        "statistics": store.statistics(),
    }


def fill_the_disk(directory, headroom):
    """Store rows until no file may grow, then go on; the process stays alive."""
    store = DirectoryStore(directory, BIG)
    store.put({key(1): row(1)}, "before")
    store.close()
    size = max(entry.stat().st_size for entry in os.scandir(directory))
    limit_files(size + headroom)
    owner = new_owner()
    keys = [key(i) for i in range(100, 1100)]
    claimed = store.claim(keys, owner) == keys
    for first in range(100, 1100, 50):
        store.put({key(i): row(i) for i in range(first, first + 50)}, owner)
    stored = store.lookup(keys, (1280,), "f4")
    assert all(np.array_equal(v, row(keys.index(k) + 100)) for k, v in stored.items())
    again = store.claim(keys, new_owner()) == keys
    before = list(store.lookup([key(1)], (1280,), "f4"))
    with closing(sqlite3.connect(store._database.path)) as db:
        (claims,) = db.execute("SELECT COUNT(*) FROM claims").fetchone()
    return claimed and again, len(stored), claims, before


def wait_for(directory, number):
    """Wait for what another process computes; return what is stored of it then."""
    store = DirectoryStore(directory, BIG)
    assert store.claim([key(number)], new_owner()) == []
    PIPE.send("waiting")
    store.wait([key(number)], 60)
    return list(store.lookup([key(number)], (1280,), "f4"))


def look_up(directory, number, paths):
    store = DirectoryStore(directory, BIG)
    found = store.lookup([key(number)], (1280,), "f4")
    value = found[key(number)].tobytes() if found else None
    return value, store.statistics(), store.known_files(paths)
