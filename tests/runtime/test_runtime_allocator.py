"""When memory is given back to the system."""

import multiprocessing

import pytest

from sklearn_dl._runtime import _allocator, release_memory

GIB = 2**30


class _Libc:
    """Counts trims; each gives back all above 200 MiB."""

    def __init__(self, resident):
        self.resident = resident
        self.trims = 0

    def mallopt(self, name, value):
        return 1

    def malloc_trim(self, pad):
        self.trims += 1
        self.resident = min(self.resident, 200 * 2**20)


@pytest.fixture
def libc(monkeypatch):
    libc = _Libc(100 * 2**20)
    monkeypatch.setattr(_allocator, "_glibc", lambda: libc)
    monkeypatch.setattr(_allocator, "_resident_bytes", lambda: libc.resident)
    monkeypatch.setattr(_allocator, "_AFTER_RELEASE", {})
    monkeypatch.setattr(_allocator, "machine_bytes", lambda: 16 * GIB)
    monkeypatch.setattr(_allocator, "keep_large_blocks", lambda: True)
    return libc


def test_a_gibibyte_stays_for_the_next_call(libc):
    release_memory()
    libc.resident = GIB
    release_memory()
    assert libc.trims == 0
    libc.resident = GIB + 1
    release_memory()
    assert libc.trims == 1
    assert libc.resident < GIB


def test_it_is_counted_from_what_was_left_the_last_time(libc):
    libc.resident = 2 * GIB
    release_memory()
    libc.resident = GIB + 100 * 2**20  # 900 MiB more than after the first
    release_memory()
    assert libc.trims == 1
    libc.resident = GIB + 201 * 2**20
    release_memory()
    assert libc.trims == 2


def test_what_the_user_gives_back_does_not_count_as_room(libc):
    libc.resident = 4 * GIB
    libc.malloc_trim = lambda pad: setattr(libc, "trims", libc.trims + 1)
    release_memory()  # a large X stays
    assert libc.trims == 1
    libc.resident = GIB  # X is gone
    release_memory()
    libc.resident = 2 * GIB + 1
    release_memory()
    assert libc.trims == 2


def test_a_small_machine_keeps_less(libc, monkeypatch):
    monkeypatch.setattr(_allocator, "machine_bytes", lambda: 4 * GIB)
    libc.resident = 257 * 2**20
    release_memory()
    assert libc.trims == 1


def test_a_worker_of_a_pool_keeps_less(libc, monkeypatch):
    process = multiprocessing.current_process()
    libc.resident = 129 * 2**20
    release_memory()
    assert libc.trims == 0
    monkeypatch.setattr(process, "_name", "LokyProcess-1")
    release_memory()
    assert libc.trims == 1


def test_nothing_is_given_back_where_the_allocator_is_the_systems(libc, monkeypatch):
    monkeypatch.setattr(_allocator, "keep_large_blocks", lambda: False)
    libc.resident = 8 * GIB
    release_memory()
    assert libc.trims == 0
