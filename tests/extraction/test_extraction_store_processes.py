"""A store in a directory and the processes that share it."""

import os
import sqlite3
import threading
import time
import warnings
from contextlib import closing

import _store_processes as processes
import numpy as np
from _store_processes import BIG, in_process, key, row

from sklearn_dl._extraction import _sqlite
from sklearn_dl._extraction._directory import DirectoryStore
from sklearn_dl._extraction._store import CacheStatistics, MemoryStore, new_owner


def check_rows(directory, numbers):
    """Return which numbers are stored, after comparing each whole row."""
    with closing(sqlite3.connect(directory / "features.sqlite3")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        raw = dict(
            db.execute("SELECT key, value FROM entries JOIN features USING (id)")
        )
        assert db.execute("SELECT COUNT(*) FROM features").fetchone() == (len(raw),)
        totals = db.execute("SELECT entries, bytes FROM totals").fetchone()
    assert totals == (len(raw), 5120 * len(raw))
    stored = [i for i in numbers if key(i) in raw]
    assert len(stored) == len(raw)
    assert all(raw[key(i)] == row(i).tobytes() for i in stored)
    return stored


def test_four_processes_compute_each_row_once(tmp_path):
    numbers = range(400)
    begun = [
        processes.start(processes.share_work, tmp_path / "a b" / "ü", numbers, seed)
        for seed in range(4)
    ]
    parts = [processes.result_of(*one) for one in begun]
    assert [said for _, said in parts] == [[]] * 4
    computed = [i for part, _ in parts for i in part]
    assert sorted(computed) == list(numbers)
    assert sum(bool(part) for part, _ in parts) > 1  # they did share it
    assert check_rows(tmp_path / "a b" / "ü", numbers) == list(numbers)
    store = DirectoryStore(tmp_path / "a b" / "ü", BIG)
    assert store.statistics() == CacheStatistics(0, 400, 400, 400 * 5120)


def test_a_kill_amid_writing_leaves_whole_rows_and_free_claims(tmp_path):
    numbers = range(10**6)
    store = DirectoryStore(tmp_path, BIG)
    stored, moments = 0, np.random.default_rng(0).uniform(0, 0.03, 10)
    for moment in moments:
        process, _ = processes.start(processes.write_for_ever, tmp_path, stored)
        deadline = time.monotonic() + 60
        while store.statistics().entries <= stored and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moment)
        process.kill()
        process.join()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            now = store.statistics().entries
            keys = [key(i) for i in range(now + 100)]
            found = store.lookup(keys, (1280,), "f4")
            owner = new_owner()
            free = store.claim(keys, owner)
            store.release(owner)
        assert now > stored
        assert sorted([*found, *free]) == sorted(keys)  # each one or the other
        assert all(np.array_equal(found[k], row(i)) for i, k in enumerate(keys[:now]))
        stored = now
    store.close()
    assert check_rows(tmp_path, numbers[: stored + 100]) == list(range(stored))


def test_the_claims_of_a_killed_process_are_free_at_once(tmp_path):
    store = DirectoryStore(tmp_path, BIG)
    process, pipe = processes.start(processes.claim_and_stay, tmp_path, range(5))
    keys = pipe.recv()
    assert keys == [key(i) for i in range(5)]
    assert store.claim([*keys, key(9)], "me") == [key(9)]
    process.kill()
    store.wait(keys, 30)  # not the lease of minutes
    assert store.claim(keys, "me") == keys
    process.join()


def test_what_another_process_stores_ends_the_waiting(tmp_path):
    store = DirectoryStore(tmp_path, BIG)
    store.claim([key(0)], "me")
    process, pipe = processes.start(processes.wait_for, tmp_path, 0)
    assert pipe.recv() == "waiting"
    store.put({key(0): row(0)}, "me")
    found, said = processes.result_of(process, pipe)
    assert (found, said) == ([key(0)], [])


def test_a_second_run_finds_rows_files_and_statistics(tmp_path):
    store = DirectoryStore(tmp_path, BIG)
    files = {
        "/data/a b/ü.png": ((3, 2**62, 2**61, 2**64 - 1, 2049), key("a")),
        "/data/\udcff.png": ((0, -1, 0, 0, 0), key("b")),  # a name that isn't UTF-8
    }
    store.put({key(0): row(0)}, "me")
    store.count(1, 2)
    store.remember_files(files)
    store.remember_files({})
    store.close()
    answer, said = in_process(processes.look_up, tmp_path, 0, [*files, "/data/b.png"])
    assert said == []
    assert answer == (row(0).tobytes(), CacheStatistics(1, 2, 1, 5120), files)


def test_a_changed_file_is_remembered_anew_and_the_oldest_are_forgotten(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_sqlite, "_MAX_FILES", 3)
    store = DirectoryStore(tmp_path, BIG)
    for name in "abc":
        store.remember_files({name: ((1,), key(name))})
    store.remember_files({"a": ((2,), key("new"))})
    store.remember_files({"d": ((1,), key("d"))})
    assert store.known_files(list("abcd")) == {
        "a": ((2,), key("new")),
        "c": ((1,), key("c")),
        "d": ((1,), key("d")),
    }


def test_no_file_is_made_before_something_is_written(tmp_path):
    store = DirectoryStore(tmp_path / "cache", BIG)
    assert store.lookup([key(0)], (3,), "f4") == {}
    assert store.known_files(["a"]) == {}
    assert store.statistics() == CacheStatistics(0, 0, 0, 0)
    store.wait([key(0)], 60)
    store.clear()
    store.close()
    assert not (tmp_path / "cache").exists()


def test_hits_write_nothing_until_more_was_put(tmp_path):
    store = DirectoryStore(tmp_path, 10**6)
    keys = [key(i) for i in range(100)]
    store.put({key(i): row(i) for i in range(100)}, "me")

    def changes():
        store.lookup(keys, (1280,), "f4")
        return store._database.connect().total_changes

    first = changes()
    assert [changes() for _ in range(3)] == [first] * 3
    store.put({key(100): row(100)}, "me")  # less than a twentieth
    before = store._database.connect().total_changes
    assert changes() == before
    store.put({key(i): row(i) for i in range(101, 120)}, "me")
    before = store._database.connect().total_changes
    assert changes() >= before + 100


def test_uses_of_another_process_count_in_the_order_of_eviction(tmp_path):
    store = DirectoryStore(tmp_path, 3 * 5120)
    for i in range(3):
        store.put({key(i): row(i)}, "me")
    in_process(processes.look_up, tmp_path, 0, [])
    store.put({key(3): row(3)}, "me")
    assert list(store.lookup([key(i) for i in range(4)], (1280,), "f4")) == [
        key(0),
        key(3),
    ]


def test_nothing_of_an_evicted_or_replaced_row_stays(tmp_path):
    store = DirectoryStore(tmp_path, 20 * 5120)
    for i in range(50):
        store.put({key(i): row(i)}, "me")
        store.put({key(i): row(i)}, "me")
    store.lookup([key(49)], (3,), "f4")  # of another length: removed
    store.close()
    stored = check_rows(tmp_path, range(50))
    assert stored == list(range(49 - len(stored), 49))
    assert 17 <= len(stored) <= 20


def test_clearing_returns_the_disk_and_others_go_on(tmp_path):
    store, other = (DirectoryStore(tmp_path, BIG) for _ in range(2))
    store.put({key(i): row(i) for i in range(400)}, "me")
    assert len(other.lookup([key(0)], (1280,), "f4")) == 1
    store.clear()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 200_000
    assert other.lookup([key(0)], (1280,), "f4") == {}
    other.put({key(0): row(0)}, "you")
    assert list(store.lookup([key(0)], (1280,), "f4")) == [key(0)]


def forked(work):
    """Return what some work returns in a forked child of this process."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, repr(work()).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def test_a_forked_child_and_its_parent_both_go_on(tmp_path):
    store = DirectoryStore(tmp_path, BIG)
    store.put({key(i): row(i) for i in range(50)}, "me")
    store.claim([key(200)], "me")

    def child():
        found = store.lookup([key(i) for i in range(60)], (1280,), "f4")
        store.put({key(i): row(i) for i in range(50, 60)}, "child")
        return len(found), store.claim([key(200), key(60)], "child") == [key(60)]

    stop = threading.Event()

    def write():
        while not stop.is_set():
            for i in range(100, 120):
                store.put({key(i): row(i)}, "thread")

    thread = threading.Thread(target=write)
    thread.start()  # a fork may come amid a transaction
    try:
        answers = [forked(child)]
        answers += [forked(lambda: store.statistics().entries > 0) for _ in range(10)]
    finally:
        stop.set()
        thread.join()
    assert answers == ["(50, True)"] + ["True"] * 10
    assert len(store.lookup([key(i) for i in range(60)], (1280,), "f4")) == 60
    store.close()
    check_rows(tmp_path, range(120))


def test_a_fork_carries_no_open_file(tmp_path):
    store = DirectoryStore(tmp_path, BIG)
    store.put({key(0): row(0)}, "me")

    def child():
        links = (
            os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")
        )
        targets = [os.readlink(link) for link in links if os.path.islink(link)]
        return [target for target in targets if str(tmp_path) in target]

    if os.path.exists("/proc/self/fd"):
        assert child()
        store.lookup([key(0)], (1280,), "f4")
    assert forked(child) == "[]"


def test_a_forked_child_has_the_rows_in_memory_and_no_claims():
    store = MemoryStore(BIG)
    store.put({key(0): row(0)}, "me")
    store.claim([key(1)], "me")
    started, steps = threading.Event(), []

    def hold():
        with store._lock:  # as amid a change
            started.set()
            time.sleep(0.2)
            steps.append("done")

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()

    def child():
        store.wait([key(1)], 60)
        found = list(store.lookup([key(0)], (1280,), "f4"))
        return found == [key(0)], store.claim([key(1)], "child") == [key(1)], steps

    assert forked(child) == "(True, True, ['done'])"
    thread.join()
    assert store.claim([key(1)], "you") == []
