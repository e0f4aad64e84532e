"""Where features are kept, as users say it."""

import os
from dataclasses import KW_ONLY, dataclass
from numbers import Integral

from sklearn_dl._extraction._memory import MemoryStore
from sklearn_dl._extraction._store import CacheStatistics, Store

_MEMORY = "memory"
_MEMORY_BYTES = 512 * 2**20
_DIRECTORY_BYTES = 10 * 2**30

# The stores of this process. Making one opens no file, so `setdefault` needs no lock.
_memories: dict[int, MemoryStore] = {}
_directories: dict[str, Store] = {}


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
    max_bytes : int, default=None
        Bound for the bytes of the features kept. When it is passed, the least recently
        used go, down to 90 % of it. None is 512 MiB in memory, 10 GiB in a directory.

    Raises
    ------
    TypeError
        If `location` is neither a str nor a path.
    ValueError
        If `location` is empty, or `max_bytes` is not an int of 1 or more.

    See Also
    --------
    ImageFeatureExtractor : Transformer that takes features from a cache.

    Notes
    -----
    Features are found by the content of the image and the identity of the backbone
    (architecture, weights, point, preprocessing, precision): renamed files are found
    again, changed ones are computed anew.

    In memory, all estimators of a process share one cache per bound; other processes
    have their own. A directory is shared by all processes of one host, and by runs:
    what one process computes, the others wait for. When one is killed, what it stored
    is whole and the rest is computed by others. Give each host its own directory: the
    locks of SQLite's WAL mode don't work over network file systems. In one process a
    directory has one bound, the last that was given.

    The directory holds a SQLite database, ``features.sqlite3``, of format 1. A damaged
    or foreign file of that name is moved aside with a warning, never deleted; one of a
    newer format is a `ValueError`. When it can't be written (a full disk, a read-only
    directory), a warning says so, and features are computed without being kept. Delete
    the directory, or call `clear`, to have the space back.

    The order of eviction follows the uses to a twentieth of the bound, so that hits
    write next to nothing.

    Examples
    --------
    >>> from sklearn_dl._extraction._cache import FeatureCache
    >>> cache = FeatureCache("memory", max_bytes=100 * 2**20)
    >>> cache.clear()
    >>> cache.statistics()
    CacheStatistics(hits=0, misses=0, entries=0, bytes=0)
    """

    location: str | os.PathLike[str] = _MEMORY
    _: KW_ONLY
    max_bytes: int | None = None

    def __post_init__(self):
        # One form for equal locations; a path never means the memory.
        path = _checked_location(self.location)
        if path == _MEMORY and not isinstance(self.location, str):
            path = os.path.join(os.curdir, path)
        object.__setattr__(self, "location", path)
        bound = self.max_bytes
        integral = isinstance(bound, Integral) and not isinstance(bound, bool)
        if bound is not None and (not integral or bound < 1):
            raise ValueError(
                f"max_bytes={bound!r} must be an int, 1 or more: the bytes of features "
                "that are kept. None is 512 MiB in memory, 10 GiB in a directory."
            )

    def statistics(self) -> CacheStatistics:
        """Return what the cache did and holds.

        Returns
        -------
        CacheStatistics
            ``hits``, ``misses``, ``entries`` and ``bytes``. Of a directory, those of
            all processes since it was made or cleared.
        """
        return self._store().statistics()

    def clear(self) -> None:
        """Drop all features, and begin the statistics anew."""
        self._store().clear()

    def _store(self) -> Store:
        """Return the one store of this process for it."""
        if self.location == _MEMORY:
            bound = int(self.max_bytes or _MEMORY_BYTES)
            if bound not in _memories:
                _memories.setdefault(bound, MemoryStore(bound))
            return _memories[bound]
        path = os.path.realpath(os.path.expanduser(self.location))
        store = _directories.get(path)
        if store is None:
            from sklearn_dl._extraction._directory import DirectoryStore

            store = DirectoryStore(path, _DIRECTORY_BYTES)
            store = _directories.setdefault(path, store)
        if self.max_bytes is not None:
            store.max_bytes = min(int(self.max_bytes), 2**62)  # what SQLite counts to
        return store


def resolve_cache(cache: object) -> Store | None:
    """Return the store that an estimator's parameter `cache` stands for.

    Parameters
    ----------
    cache : "memory", str or path-like, FeatureCache or None

    Returns
    -------
    Store or None
        None for None: no cache.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is an empty path.
    """
    if cache is None:
        return None
    if not isinstance(cache, FeatureCache):
        if not isinstance(cache, str | os.PathLike):
            raise TypeError(
                f"cache={cache!r} must be 'memory', a directory (str or Path), a "
                "FeatureCache or None."
            )
        cache = FeatureCache(cache)
    return cache._store()


def _checked_location(location: object) -> str:
    if isinstance(location, str | os.PathLike):
        path = os.fspath(location)
        if path == "" or "\0" in str(path):
            raise ValueError(f"The location {path!r} must be 'memory' or a directory.")
        if isinstance(path, str):
            return path
    raise TypeError(
        f"The location {location!r} must be 'memory' or a directory (str or Path)."
    )
