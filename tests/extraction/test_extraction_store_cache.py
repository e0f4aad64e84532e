"""Where features are kept, as users say it."""

import copy
import os
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from _store_processes import key
from sklearn.base import clone

from sklearn_dl._extraction._cache import FeatureCache, resolve_cache
from sklearn_dl._extraction._directory import DirectoryStore
from sklearn_dl._extraction._store import CacheStatistics, MemoryStore, new_owner


def test_none_is_no_cache():
    assert resolve_cache(None) is None


def test_memory_is_one_store_of_the_process_for_each_name():
    store = resolve_cache("memory")
    assert isinstance(store, MemoryStore)
    assert store.max_bytes == 512 * 2**20
    assert resolve_cache(FeatureCache()) is store
    assert resolve_cache(FeatureCache("memory", max_bytes=512 * 2**20)) is store
    other = resolve_cache(FeatureCache("memory", name="other", max_bytes=1000))
    assert other is not store
    assert other.max_bytes == 1000
    assert resolve_cache(FeatureCache(name="other", max_bytes=np.int64(7))) is other
    assert other.max_bytes == 7
    assert store.max_bytes == 512 * 2**20


@pytest.mark.parametrize("cache", [{"name": 3}, {"location": "here", "name": "other"}])
def test_a_name_is_a_str_and_of_a_cache_in_memory(cache):
    with pytest.raises(ValueError, match=r"name=.* is for caches in memory"):
        FeatureCache(**cache)


def test_a_directory_is_one_store_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = resolve_cache(tmp_path / "real")
    assert isinstance(store, DirectoryStore)
    assert store.max_bytes == 10 * 2**30
    forms = ["real", "./real/", Path("real"), "link", "~/real", Path("~/link")]
    for form in forms:
        assert resolve_cache(form) is store
        assert resolve_cache(FeatureCache(form)) is store
    assert resolve_cache("other") is not store


def test_a_bound_that_is_given_replaces_that_of_the_directory(tmp_path):
    store = resolve_cache(FeatureCache(tmp_path, max_bytes=1000))
    assert store.max_bytes == 1000
    assert resolve_cache(str(tmp_path)).max_bytes == 1000
    assert resolve_cache(FeatureCache(tmp_path, max_bytes=10)) is store
    assert store.max_bytes == 10


def test_a_path_never_means_the_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = resolve_cache(Path("memory"))
    store.put({key(0): np.zeros(3)}, "me")
    store.close()
    assert (tmp_path / "memory" / "features.sqlite3").is_file()
    assert resolve_cache("./memory") is store
    assert FeatureCache(Path("memory")) != FeatureCache("memory")


def test_nothing_is_made_before_features_are_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for cache in (FeatureCache("memory"), FeatureCache(tmp_path / "a" / "b")):
        cache.clear()
        assert cache.statistics() == CacheStatistics(0, 0, 0, 0)
        assert resolve_cache(cache).lookup([key(0)], (3,), "f8") == {}
    assert os.listdir(tmp_path) == []


def test_statistics_and_clear_are_those_of_the_store(tmp_path):
    for cache in (FeatureCache(name="counted"), FeatureCache(tmp_path)):
        store = resolve_cache(cache)
        store.put({key(0): np.zeros(3)}, "me")
        store.count(2, 1)
        assert cache.statistics() == CacheStatistics(2, 1, 1, 24)
        same = FeatureCache(cache.location, name=cache.name)
        assert same.statistics() == cache.statistics()
        cache.clear()
        assert cache.statistics() == CacheStatistics(0, 0, 0, 0)
        assert store.lookup([key(0)], (3,), "f8") == {}


@pytest.mark.parametrize(
    "cache",
    [FeatureCache(), FeatureCache("some/where", max_bytes=7), FeatureCache(name="a")],
)
def test_a_cache_is_copied_as_its_arguments(cache):
    copies = [
        pickle.loads(pickle.dumps(cache)),
        copy.deepcopy(cache),
        clone(cache, safe=False),
        eval(repr(cache)),
    ]
    for other in copies:
        assert other == cache
        assert hash(other) == hash(cache)
        assert vars(other) == vars(cache)
        assert resolve_cache(other) is resolve_cache(cache)
    assert FeatureCache(Path("some/where"), max_bytes=7) == FeatureCache(
        "some/where", max_bytes=7
    )
    assert len({FeatureCache("a"), FeatureCache("a", max_bytes=1), *copies}) == 3


def test_a_cache_does_not_change():
    cache = FeatureCache()
    with pytest.raises(FrozenInstanceError):
        cache.max_bytes = 3
    with pytest.raises(TypeError):
        FeatureCache("memory", 3)


@pytest.mark.parametrize("bound", [0, -1, True, False, 1e9, "1 GB", float("nan")])
def test_a_bound_that_is_no_number_of_bytes_is_refused(bound):
    with pytest.raises(ValueError, match=r"max_bytes=.* must be an int, 1 or more"):
        FeatureCache("memory", max_bytes=bound)


@pytest.mark.parametrize("what", [True, 3, 1.5, b"dir", ["memory"], FeatureCache])
def test_what_is_no_place_is_refused(what):
    with pytest.raises(TypeError, match=r"must be 'memory'.*directory \(str or Path\)"):
        resolve_cache(what)
    with pytest.raises(TypeError, match=r"must be 'memory' or a directory"):
        FeatureCache(what)
    with pytest.raises(ValueError, match="'memory' or a directory"):
        resolve_cache("")


def test_a_bound_beyond_what_sqlite_counts_to_is_no_bound(tmp_path):
    store = resolve_cache(FeatureCache(tmp_path, max_bytes=2**70))
    name, owner = bytes(32), new_owner()
    assert store.claim([name], owner) == [name]
    store.put({name: np.ones(3, "float32")}, owner)
    assert store.lookup([name], (3,), np.dtype("float32"))[name].tolist() == [1, 1, 1]


def test_a_location_with_a_zero_byte_is_refused():
    with pytest.raises(ValueError, match="must be 'memory' or a directory"):
        FeatureCache("x\0y")
