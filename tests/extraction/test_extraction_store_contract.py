"""What both stores do alike."""

import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from _store_processes import key

from sklearn_dl._extraction import _sqlite, _store
from sklearn_dl._extraction._directory import DirectoryStore
from sklearn_dl._extraction._store import (
    LEASE,
    CacheStatistics,
    MemoryStore,
    new_owner,
    owner_is_dead,
)

A, B, C, D = map(key, "abcd")


@pytest.fixture(params=["memory", "directory"])
def make(request, tmp_path):
    """Return a function that makes an empty store with a bound."""
    made = []

    def store(max_bytes=10**6):
        directory = tmp_path / f"store{len(made)}"
        made.append(
            MemoryStore(max_bytes)
            if request.param == "memory"
            else DirectoryStore(directory, max_bytes)
        )
        return made[-1]

    yield store
    for one in made:
        one.close()


def rows(**values):
    """Return rows of 100 bytes by the letters of their keys."""
    return {key(letter): np.full(25, v, np.float32) for letter, v in values.items()}


def stored(store, letters="abcdefghij"):
    """Return those of some letters that are stored, without using them."""
    keys = {key(letter): letter for letter in letters}
    free = store.claim(list(keys), "observer")
    store.release("observer")
    return "".join(letter for k, letter in keys.items() if k not in free)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (2, 3, 5), (0,)])
def test_a_row_comes_back_bit_for_bit(make, dtype, shape):
    store = make()
    bits = np.random.default_rng(0).bytes(
        int(np.prod(shape)) * np.dtype(dtype).itemsize
    )
    value = np.frombuffer(bits, dtype).reshape(shape)  # NaNs with payloads among them
    store.put({A: value}, "me")
    (found,) = store.lookup([B, A], shape, dtype).values()
    assert found.tobytes() == bits
    assert found.dtype == dtype
    assert found.shape == shape


def test_rows_that_are_not_contiguous_are_stored_as_they_look(make):
    store = make()
    value = np.arange(24.0).reshape(4, 6).T[::2]
    store.put({A: value}, "me")
    np.testing.assert_array_equal(store.lookup([A], (3, 4), "f8")[A], value)


def test_what_is_done_to_a_row_outside_does_not_reach_the_store(make):
    store = make()
    value = np.zeros(3)
    store.put({A: value}, "me")
    value += 1
    found = store.lookup([A], (3,), "f8")[A]
    assert found.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        found += 1


def test_only_the_stored_keys_are_found_among_many(make):
    store = make()
    store.put({key(i): np.array([i], "f4") for i in range(0, 3000, 2)}, "me")
    found = store.lookup([key(i) for i in range(3000)], (1,), "f4")
    assert {k: int(v[0]) for k, v in found.items()} == {
        key(i): i for i in range(0, 3000, 2)
    }


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4,), "f4"), ((6,), "f8"), ((3,), "f8"), ((12,), "f4")]
)
def test_a_row_of_another_kind_is_not_found_and_can_be_claimed(make, shape, dtype):
    store = make()
    store.put({A: np.zeros(6, "f4"), B: np.zeros(shape, dtype)}, "me")
    assert list(store.lookup([A, B], shape, dtype)) == [B]
    assert store.claim([A, B], "you") == [A]
    assert store.statistics().entries == 1
    assert store.statistics().bytes == np.zeros(shape, dtype).nbytes


def test_a_row_may_be_looked_up_in_another_shape_of_its_length(make):
    store = make()
    store.put({A: np.arange(6.0)}, "me")
    assert store.lookup([A], (2, 3), "f8")[A].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_row_put_again_replaces_the_first(make):
    store = make()
    store.put({A: np.zeros(3)}, "me")
    store.put({A: np.ones(2, "f4")}, "me")
    assert store.lookup([A], (2,), "f4")[A].tolist() == [1, 1]
    assert store.statistics() == CacheStatistics(0, 0, 1, 8)


def test_a_key_is_claimed_by_one_owner_until_it_is_stored(make):
    store = make()
    assert store.claim([B, A, C], "me") == [B, A, C]
    assert store.claim([A, D, B], "you") == [D]
    assert store.claim([A, A], "me") == [A]
    store.put(rows(a=1), "me")
    assert store.claim([A, B], "me") == [B]
    assert store.claim([A, B], "you") == []


def test_released_claims_are_free_and_others_stay(make):
    store = make()
    store.claim([A, B], "me")
    store.claim([C], "you")
    store.release("me")
    store.release("nobody")
    assert store.claim([A, B, C], "they") == [A, B]


def test_putting_lifts_the_claims_of_those_rows_only(make):
    store = make(max_bytes=150)
    store.claim([A, B, C], "me")
    store.put(rows(a=1), "me")
    store.put(rows(b=1), "me")  # evicts a, whose claim is lifted
    assert store.claim([A, B, C], "you") == [A]


@pytest.mark.parametrize("prolong", ["put", "claim", None])
def test_a_claim_lasts_for_its_lease_unless_prolonged(make, prolong, monkeypatch):
    now = [1000.0]
    for module in (_store, _sqlite):
        monkeypatch.setattr(module, "time", Clock(now))
    store = make()
    store.claim([A, B], "me")
    now[0] += 0.8 * LEASE
    if prolong == "put":
        store.put(rows(b=1), "me")
    elif prolong == "claim":
        store.claim([C], "me")
    now[0] += 0.8 * LEASE
    assert store.claim([A], "you") == ([A] if prolong is None else [])
    now[0] += 0.8 * LEASE
    if prolong is None:
        store.put({}, "me")  # too late: it is another's
    assert store.claim([A], "they") == ([] if prolong is None else [A])


def test_a_lease_given_before_the_clock_went_back_is_over(tmp_path, monkeypatch):
    now = [1_000_000.0]
    monkeypatch.setattr(_sqlite, "time", Clock(now))
    store = DirectoryStore(tmp_path, 10**6)
    store.claim([A], "me")
    now[0] -= 3600
    store.wait([A], 60)
    assert store.claim([A], "you") == [A]


def test_what_is_left_of_several_claims_lasts_after_a_put(make):
    store = make()
    store.claim([A, B], "me")
    store.put(rows(a=1), "me")
    assert store.claim([A, B], "you") == []


class Clock:
    def __init__(self, now):
        self.time = self.monotonic = lambda: now[0]


def test_one_of_many_threads_gets_each_key(make):
    store = make()
    keys = [key(i) for i in range(200)]
    got, barrier = [], threading.Barrier(8)

    def work(n):
        barrier.wait()
        for i in range(0, 200, 10):
            got.extend(store.claim(keys[i : i + 10], f"owner {n}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(keys)


@pytest.mark.parametrize("change", ["put", "release", "clear"])
def test_waiting_ends_when_one_of_the_keys_changes(make, change):
    store = make()
    store.claim([A], "me")
    store.claim([B], "you")
    ended = threading.Event()

    def wait():
        store.wait([A, B], 60)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not ended.wait(0.1)
    if change == "put":
        store.put(rows(b=1), "you")
    elif change == "release":
        store.release("you")
    else:
        store.clear()
    assert ended.wait(30)
    thread.join()


def test_waiting_ends_at_once_for_what_nobody_computes_and_in_time_for_the_rest(make):
    store = make()
    store.claim([A, B], "me")
    store.wait([A, C], 60)
    store.wait([], 60)
    began = time.monotonic()
    store.wait([A, B], 0.05)
    assert time.monotonic() - began >= 0.04


def test_the_least_recently_used_go_down_to_nine_tenths_of_the_bound(make):
    store = make(max_bytes=1000)
    for letter in "abcdefghij":
        store.put(rows(**{letter: 1}), "me")
    store.lookup([C], (25,), "f4")
    store.lookup([A], (25,), "f4")
    assert stored(store) == "abcdefghij"
    store.put(rows(k=1), "me")  # 1100 bytes: b and d go
    assert stored(store, "abcdefghijk") == "acefghijk"
    assert store.statistics().bytes == 900
    store.put(rows(x=1, y=1), "me")
    assert stored(store, "abcdefghijkxy") == "acghijkxy"
    store.put({key(letter): np.zeros(25, "f4") for letter in "mnopqrs"}, "me")
    assert stored(store, "acghijkmnopqrsxy") == "mnopqrsxy"


def test_the_order_of_uses_decides_not_the_order_of_putting(make):
    store = make(max_bytes=300)
    store.put(rows(a=1, b=2, c=3), "me")
    store.lookup([B], (25,), "f4")
    store.lookup([A], (25,), "f4")
    store.put(rows(d=4), "me")
    assert stored(store) == "ad"


def test_rows_just_put_stay_up_to_the_bound_itself(make):
    store = make(max_bytes=1000)
    store.put(rows(a=1, b=2), "me")
    store.put({key(i): np.zeros(25, "f4") for i in range(10)}, "me")
    assert store.statistics() == CacheStatistics(0, 0, 10, 1000)
    assert len(store.lookup([key(i) for i in range(10)], (25,), "f4")) == 10


def test_rows_that_alone_exceed_the_bound_are_kept_as_far_as_it_goes(make):
    store = make(max_bytes=1000)
    store.put({key(i): np.zeros(25, "f4") for i in range(20)}, "me")
    found = store.lookup([key(i) for i in range(20)], (25,), "f4")
    assert list(found) == [key(i) for i in range(11, 20)]
    store.put({A: np.zeros(1000)}, "me")
    assert store.statistics() == CacheStatistics(0, 0, 0, 0)
    assert store.claim([A], "you") == [A]


def test_statistics_tell_what_was_counted_and_what_is_kept(make):
    store = make()
    assert store.statistics() == CacheStatistics(0, 0, 0, 0)
    store.put({A: np.zeros(3), B: np.zeros(2, "f4")}, "me")
    store.lookup([A, B, C], (3,), "f8")  # counts nothing, removes b
    store.count(2, 1)
    store.count(3, 4)
    assert store.statistics() == CacheStatistics(5, 5, 1, 24)


def test_clearing_leaves_nothing(make):
    store = make()
    store.put(rows(a=1, b=2), "me")
    store.claim([C], "me")
    store.count(1, 2)
    store.remember_files({"a.png": ((1,), A)})
    store.clear()
    assert store.statistics() == CacheStatistics(0, 0, 0, 0)
    assert store.lookup([A, B], (25,), "f4") == {}
    assert store.known_files(["a.png"]) == {}
    assert store.claim([A, B, C], "you") == [A, B, C]
    store.put(rows(a=3), "you")
    assert store.lookup([A], (25,), "f4")[A][0] == 3


def test_threads_may_do_everything_at_once(make):
    store = make(max_bytes=20_000)
    failures = []

    def work(seed):
        random = np.random.default_rng(seed)
        try:
            for _ in range(40):
                part = random.choice(100, 5, replace=False)
                keys = {key(i): float(i) for i in part}
                for k, value in store.lookup(list(keys), (50,), "f8").items():
                    assert (value == keys[k]).all()
                owner = new_owner()
                mine = store.claim(list(keys), owner)
                store.put({k: np.full(50, keys[k]) for k in mine[1:]}, owner)
                store.release(owner)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert 0 < store.statistics().bytes <= 20_000
    assert store.statistics().bytes == 400 * store.statistics().entries


def test_a_store_is_not_pickled(make):
    with pytest.raises(TypeError, match="pickle the FeatureCache"):
        pickle.dumps(make())


def test_owners_differ_and_are_dead_only_when_that_is_known():
    first, second = new_owner(), new_owner()
    assert first != second
    assert not owner_is_dead(first)
    machine, _, rest = first.rpartition("//")
    pid, started, count = rest.split("/")
    assert int(pid) == os.getpid()
    assert owner_is_dead(f"{machine}//{pid}/{int(started) - 1}/{count}")
    assert owner_is_dead(f"{machine}//{2**22 + 1}/{started}/{count}")
    assert not owner_is_dead(f"elsewhere{machine}//{2**22 + 1}/{started}/{count}")
    assert not owner_is_dead("any text")


def test_an_owner_is_dead_even_before_its_process_is_waited_for():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as process:
        machine = new_owner().rpartition("//")[0]
        owner = f"{machine}//{process.pid}/{_store._started(process.pid)}/0"
        assert not owner_is_dead(owner)
        process.kill()  # not waited for: a zombie
        deadline = time.monotonic() + 30
        while not owner_is_dead(owner) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.returncode is None
        assert owner_is_dead(owner)
