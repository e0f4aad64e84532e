"""The cache of features, as users give it."""

import os
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any

from sklearn_dl._extraction._store import CacheStatistics, MemoryStore, Store

_MEMORY = "memory"
MEMORY_BYTES = 512 * 2**20
_DIRECTORY_BYTES = 10 * 2**30

# The stores of this process, by place and name. Making one opens no file, so
# `setdefault` needs no lock.
_STORES: dict[tuple[str, str | None], Store] = {}


@dataclass(frozen=True)
class FeatureCache:
    """Where the features of frozen backbones are kept, each computed once.

    For the parameter ``cache`` of the estimators, where a bound is wanted, and to see
    what a cache did. ``cache="memory"`` and ``cache="some/directory"`` stand for
    ``FeatureCache("memory")`` and ``FeatureCache("some/directory")``.

    Parameters
    ----------
    location : str or path-like, default="memory"
        ``"memory"`` keeps features in the process. Anything else is a directory: made
        when the first features are stored, ``~`` is the home directory. One that is
        called so is ``"./memory"``. What is relative is taken from the working
        directory at each use, of each process: give searches an absolute path.
    name : str, default=None
        Tells one cache in memory from others, each with features and a bound of its
        own; None is the one that ``cache="memory"`` stands for.
    max_bytes : int, default=None
        Bound for the bytes of the features kept. When it is passed, the least recently
        used go, down to 90 % of it. None is 512 MiB in memory, 10 GiB in a directory.

    Raises
    ------
    TypeError
        If `location` is neither a str nor a path.
    ValueError
        If `location` is empty, `max_bytes` is not an int of 1 or more, or a directory
        has a name.

    See Also
    --------
    ImageFeatureExtractor : Transformer that takes features from a cache.

    Notes
    -----
    Features are found by the content of the image and the identity of the backbone
    (architecture, weights, point, preprocessing, precision): renamed files are found
    again, changed ones are computed anew.

    In memory, all estimators of a process share one cache per name; other processes
    have their own. A directory is shared by all processes of one host, and by runs:
    what one process computes, the others wait for. When one is killed, what it stored
    is whole and the rest is computed by others. Give each host its own directory: the
    locks of SQLite's WAL mode don't work over network file systems. In one process a
    cache has one bound, the last that was given.

    The directory holds a SQLite database, ``features.sqlite3``, of format 1. A damaged
    or foreign file of that name is moved aside with a warning, never deleted; one of a
    newer format is a `ValueError`. When features are missing and it can't be written (a
    full disk, a read-only directory), a warning says so, and they are computed without
    being kept. Delete the directory, or call `clear`, to have the space back.

    Examples
    --------
    >>> from sklearn_dl import FeatureCache
    >>> cache = FeatureCache("memory", name="photographs", max_bytes=100 * 2**20)
    >>> cache.statistics()
    CacheStatistics(hits=0, misses=0, entries=0, bytes=0)
    """

    location: str | os.PathLike[str] = _MEMORY
    _: KW_ONLY
    name: str | None = None
    max_bytes: int | None = None

    def __post_init__(self):
        location, bound, name = self.location, self.max_bytes, self.name
        path = os.fspath(location) if isinstance(location, os.PathLike) else location
        if not isinstance(path, str):
            raise TypeError(
                f"The location {location!r} must be 'memory' or a directory (str or "
                "Path)."
            )
        if path == "" or "\0" in path:
            raise ValueError(f"The location {path!r} must be 'memory' or a directory.")
        # One form for equal locations; a path never means the memory.
        if path == _MEMORY and not isinstance(location, str):
            path = os.path.join(os.curdir, path)
        object.__setattr__(self, "location", path)
        integral = isinstance(bound, Integral) and not isinstance(bound, bool)
        if bound is not None and (not integral or bound < 1):
            raise ValueError(
                f"max_bytes={bound!r} must be an int, 1 or more: the bytes of features "
                "that are kept. None is 512 MiB in memory, 10 GiB in a directory."
            )
        if name is not None and (not isinstance(name, str) or path != _MEMORY):
            raise ValueError(
                f"name={name!r} must be a str, and is for caches in memory: a "
                "directory is told from others by its path."
            )

    def statistics(self) -> CacheStatistics:
        """Return what the cache did and holds.

        Returns
        -------
        CacheStatistics
            ``hits``, ``misses``, ``entries`` and ``bytes``. Of a directory, those of
            all processes since it was made or cleared.
        """
        return resolve_cache(self).statistics()

    def clear(self) -> None:
        """Drop all features, and begin the statistics anew."""
        resolve_cache(self).clear()


def resolve_cache(cache: object) -> Any:
    """Return the one store of this process for a parameter `cache`; None for None."""
    if cache is None:
        return None
    if not isinstance(cache, FeatureCache):
        if not isinstance(cache, str | os.PathLike):
            raise TypeError(
                f"cache={cache!r} must be 'memory', a directory (str or Path), a "
                "FeatureCache or None."
            )
        cache = FeatureCache(cache)
    location = str(cache.location)
    in_memory = location == _MEMORY
    if not in_memory:
        location = os.path.realpath(os.path.expanduser(location))
    store = _STORES.get((location, cache.name))
    if store is None:
        if in_memory:
            new: Store = MemoryStore(MEMORY_BYTES)
        else:
            from sklearn_dl._extraction._directory import DirectoryStore

            new = DirectoryStore(location, _DIRECTORY_BYTES)
        store = _STORES.setdefault((location, cache.name), new)
    if cache.max_bytes is not None:
        store.max_bytes = min(int(cache.max_bytes), 2**62)  # what SQLite counts to
    return store
