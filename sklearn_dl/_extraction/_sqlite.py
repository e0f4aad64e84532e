"""A SQLite file of features: opened and checked, its tables, and who computes what.

Keys are claimed in the file before they are computed; a claim has an owner, who is
known to be alive by his process, or by a lease that he renews.
"""

import os
import sqlite3
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from operator import attrgetter
from pathlib import Path

import numpy as np
from filelock import FileLock

from sklearn_dl._extraction._store import (
    LEASE,
    eviction_target,
    owner_is_dead,
    register_fork_hooks,
)

# Again: stores must come to rest before filelock takes the lock that they wait for.
register_fork_hooks()

FILE = "features.sqlite3"
FORMAT = 1
_APPLICATION_ID = 0x534B4446  # "SKDF"
# Seconds to wait for other processes; a transaction takes milliseconds.
_PATIENCE = 60.0
# Older releases of SQLite take 999 values in a statement.
_CHUNK = 500
# Digests of files that are remembered; of more, the oldest are forgotten.
_MAX_FILES = 1_000_000

# The triggers keep the totals true, in whatever transaction a row comes or goes.
_LAYOUT = (
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
    "dtype TEXT NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL, "
    "used INTEGER NOT NULL)",
    "CREATE INDEX entries_used ON entries (used)",
    "CREATE TABLE features (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE owners (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "expires REAL NOT NULL)",
    "CREATE TABLE claims (key BLOB PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX claims_owner ON claims (owner)",
    "CREATE TABLE files (path BLOB NOT NULL UNIQUE, stamp TEXT NOT NULL, "
    "digest BLOB NOT NULL)",
    "CREATE TABLE totals (entries INTEGER, bytes INTEGER, hits INTEGER, "
    "misses INTEGER, clock INTEGER, mark INTEGER, fresh INTEGER)",
    "CREATE TRIGGER entries_insert AFTER INSERT ON entries BEGIN "
    "UPDATE totals SET entries = entries + 1, bytes = bytes + new.size; END",
    "CREATE TRIGGER entries_delete AFTER DELETE ON entries BEGIN "
    "DELETE FROM features WHERE id = old.id; "
    "UPDATE totals SET entries = entries - 1, bytes = bytes - old.size; END",
)
_TABLES = ("entries", "features", "owners", "claims", "files", "totals")
# What tells a file from another.
_PLACE = attrgetter("st_dev", "st_ino")


class Database:
    """The database file of a directory, opened for one thread when asked for."""

    def __init__(self, directory: str | os.PathLike):
        self._connection: sqlite3.Connection | None = None
        self.directory = Path(os.path.abspath(directory))
        self.path = self.directory / FILE
        self._identity: tuple[int, int] | None = None

    def __del__(self):
        self.close()

    def exists(self) -> bool:
        """Tell whether there is a file; where that can't be told, yes."""
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def connect(self) -> sqlite3.Connection:
        """Return the open connection, after opening it where needed."""
        if self._connection is not None:
            # Somebody may have deleted or moved the file under it.
            with suppress(OSError):
                if self._identity == _PLACE(os.stat(self.path)):
                    return self._connection
        self.close()
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._guarded():
            self._connection = self._open()
            self._identity = self._on_disk()
        return self._connection

    def connect_to_read(self) -> sqlite3.Connection:
        """Return a connection for a file or directory that can't be written."""
        if self._connection is None:
            # Without a log beside it the file is complete, and needs no lock; SQLite
            # could not make the lock's file here.
            log = self.path.with_name(FILE + "-wal")
            mode = "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
            uri = f"{self.path.as_uri()}?mode={mode}"
            connection = _connect(uri, 1.0, uri=True)
            try:
                if fault := _fault(connection, self.path):
                    raise sqlite3.DatabaseError(fault)
            except BaseException:
                connection.close()
                raise
            # A later `connect` must open it for writing.
            self._connection, self._identity = connection, None
        return self._connection

    def shrink(self) -> None:
        """Give unused space back to the disk, where nothing is in the way."""
        with suppress(OSError, sqlite3.Error):
            self.connect().execute("VACUUM")
            self.tell("wal_checkpoint(TRUNCATE)")

    def tell(self, pragma: str) -> None:
        """Set something on the open connection, where nothing is in the way."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute(f"PRAGMA {pragma}")

    def replace(self, reason: object) -> None:
        """Move a damaged file aside, unless another process has done so already."""
        with self._guarded():
            damaged = self._identity == self._on_disk()
            self.close()
            if damaged:
                self._move_aside(reason)

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = _connect(str(self.path), _PATIENCE)
        try:
            fault = _fault(connection, self.path)
            if fault:
                connection.close()
                self._move_aside(fault)
                connection = _connect(str(self.path), _PATIENCE)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if not _layout(connection):
                with transaction(connection):
                    create(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _move_aside(self, reason: object) -> None:
        n = 1
        while (aside := self.path.with_name(f"{FILE}.damaged-{n}")).exists():
            n += 1
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        warnings.warn(
            f"The feature cache {self.path} can't be used ({reason}): it was moved to "
            f"{aside}, and a new one is begun.",
            UserWarning,
            stacklevel=2,
        )

    def _guarded(self) -> FileLock:
        """Keep two processes from opening or moving the file at once."""
        return FileLock(self.path.with_name(f"{FILE}.lock"), timeout=_PATIENCE)

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            return _PLACE(os.stat(self.path))
        except OSError:
            return None


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, within a transaction."""
    for statement in _LAYOUT:
        connection.execute(statement)
    connection.execute("INSERT INTO totals VALUES (0, 0, 0, 0, 0, 0, 0)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def empty(connection: sqlite3.Connection) -> None:
    """Make all tables anew, within a transaction."""
    for table in _TABLES:
        connection.execute(f"DROP TABLE {table}")
    create(connection)


def select(connection: sqlite3.Connection, sql: str, keys: Iterable) -> list[tuple]:
    """Return the rows of a query ``... IN ({})`` for any number of keys."""
    rows, left = [], iter(keys)
    while part := list(islice(left, _CHUNK)):
        marks = ",".join("?" * len(part))
        rows += connection.execute(sql.format(marks), part).fetchall()
    return rows


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all of a block or nothing, alone among all processes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def is_damage(error: BaseException) -> bool:
    """Tell whether an error is about the file's content, not about reaching it."""
    damage = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in damage


def _connect(database: str, timeout: float, **options) -> sqlite3.Connection:
    return sqlite3.connect(
        database,
        timeout=timeout,
        isolation_level=None,  # transactions begin where the code says so
        check_same_thread=False,  # the store's lock takes its place
        **options,
    )


def _layout(connection: sqlite3.Connection) -> set[str]:
    return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")}


def _fault(connection: sqlite3.Connection, path: Path) -> str | None:
    """Say what is wrong with a file, None where it can be used."""
    try:
        layout = _layout(connection)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not layout and application == version == 0:
            return None  # a new file
        if application != _APPLICATION_ID:
            return "a database of another application"
        if version > FORMAT:
            raise ValueError(
                f"The feature cache {path} has format {version}, from a newer "
                f"sklearn_dl; this one reads formats up to {FORMAT}. Upgrade "
                "sklearn_dl, or give another directory."
            )
        if version < FORMAT or not layout.issuperset(_LAYOUT):
            return f"not the tables of format {FORMAT}"
        rows = connection.execute("SELECT COUNT(*) FROM totals").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    return None if rows == (1,) else "no totals"


# ------------------------------------------------------------------- rows and files


def checksum_of(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def rows_of(db: sqlite3.Connection, keys: Sequence[bytes]) -> tuple[list[tuple], int]:
    """Return what is stored of some keys, and the use from which on it is recent."""
    sql = (
        "SELECT key, entries.id, dtype, checksum, used, value FROM entries "
        "LEFT JOIN features ON features.id = entries.id WHERE key IN ({})"
    )
    order = {key: i for i, key in enumerate(keys)}
    (mark,) = db.execute("SELECT mark FROM totals").fetchone()
    return sorted(select(db, sql, order), key=lambda row: order[row[0]]), mark


def note(db: sqlite3.Connection, used: list[int], bad: list[int]) -> None:
    """Remove bad rows; note the use of others."""
    db.executemany("DELETE FROM entries WHERE id = ?", [(i,) for i in bad])
    (clock,) = db.execute("SELECT clock FROM totals").fetchone()
    uses = [(clock + 1 + i, number) for i, number in enumerate(used)]
    db.executemany("UPDATE entries SET used = ? WHERE id = ?", uses)
    db.execute("UPDATE totals SET clock = clock + ?", (len(used),))


def put(
    db: sqlite3.Connection, rows: Mapping[bytes, np.ndarray], owner: str, max_bytes: int
) -> bool:
    """Store rows; tell whether the owner has claims left."""
    (clock,) = db.execute("SELECT clock FROM totals").fetchone()
    new = 0
    for clock, (key, row) in enumerate(rows.items(), clock + 1):  # noqa: B020
        value = row.tobytes()
        new += len(value)
        db.execute("DELETE FROM entries WHERE key = ?", (key,))
        entry = db.execute(
            "INSERT INTO entries (key, dtype, size, checksum, used) "
            "VALUES (?, ?, ?, ?, ?)",
            (key, row.dtype.str, len(value), checksum_of(key, value), clock),
        )
        db.execute("INSERT INTO features VALUES (?, ?)", (entry.lastrowid, value))
    db.execute("UPDATE totals SET clock = ?, fresh = fresh + ?", (clock, new))
    db.execute(
        "UPDATE totals SET mark = clock, fresh = 0 WHERE fresh >= ?", (max_bytes // 20,)
    )
    _evict(db, new, max_bytes)
    return settle(db, rows, owner)


def _evict(db: sqlite3.Connection, new: int, max_bytes: int) -> None:
    """Remove the least recently used, not those of the `new` bytes last put."""
    (size,) = db.execute("SELECT bytes FROM totals").fetchone()
    if size <= max_bytes:
        return
    victims, target = [], eviction_target(max_bytes, new)
    with closing(db.execute("SELECT id, size FROM entries ORDER BY used")) as cursor:
        while size > target and (entry := cursor.fetchone()):
            victims.append(entry[:1])
            size -= entry[1]
    db.executemany("DELETE FROM entries WHERE id = ?", victims)


def remember(db: sqlite3.Connection, rows: list[tuple]) -> None:
    db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
    db.execute(
        "DELETE FROM files WHERE rowid <= (SELECT MAX(rowid) FROM files) - ?",
        (_MAX_FILES,),
    )


# --------------------------------------------------------------------------- claims

_CLAIMS = (
    "SELECT key, name, expires FROM claims JOIN owners ON owners.id = owner "
    "WHERE key IN ({})"
)


def claim(db: sqlite3.Connection, keys: list[bytes], owner: str) -> list[bytes]:
    """Give an owner the keys that are neither stored nor claimed by the living."""
    for number, name, expires in db.execute("SELECT * FROM owners").fetchall():
        if name != owner and not _alive(name, expires):
            db.execute("DELETE FROM claims WHERE owner = ?", (number,))
            db.execute("DELETE FROM owners WHERE id = ?", (number,))
    stored = select(db, "SELECT key FROM entries WHERE key IN ({})", keys)
    taken = {key for (key,) in stored}
    claims = select(db, _CLAIMS, keys)
    taken.update(key for key, name, _ in claims if name != owner)
    free = [key for key in keys if key not in taken]
    if free:
        sql = "INSERT OR IGNORE INTO owners (name, expires) VALUES (?, 0)"
        db.execute(sql, (owner,))
        renew(db, owner)
        sql = "INSERT OR REPLACE INTO claims SELECT ?, id FROM owners WHERE name = ?"
        db.executemany(sql, [(key, owner) for key in free])
    return free


def claimed(db: sqlite3.Connection, keys: set[bytes]) -> set[bytes]:
    """Return those of some keys that a live owner claims."""
    rows = select(db, _CLAIMS, keys)
    alive = {owner: _alive(*owner) for owner in {row[1:] for row in rows}}
    return {key for key, *owner in rows if alive[tuple(owner)]}


def _alive(name: str, expires: float) -> bool:
    # A lease that ends later than any lease can was given before the clock went back.
    return 0 < expires - time.time() <= LEASE + 1 and not owner_is_dead(name)


def renew(db: sqlite3.Connection, owner: str) -> None:
    """Prolong the claims of an owner."""
    sql = "UPDATE owners SET expires = ? WHERE name = ?"
    db.execute(sql, (time.time() + LEASE, owner))


def release(db: sqlite3.Connection, owner: str) -> bool:
    """Lift all claims of an owner."""
    sql = "DELETE FROM claims WHERE owner IN (SELECT id FROM owners WHERE name = ?)"
    db.execute(sql, (owner,))
    db.execute("DELETE FROM owners WHERE name = ?", (owner,))
    return True


def settle(db: sqlite3.Connection, keys: Iterable[bytes], owner: str) -> bool:
    """Lift the claims on stored keys; tell whether the owner has others left."""
    db.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])
    renew(db, owner)
    db.execute(
        "DELETE FROM owners WHERE name = ? "
        "AND NOT EXISTS (SELECT 1 FROM claims WHERE owner = owners.id)",
        (owner,),
    )
    left = db.execute("SELECT 1 FROM owners WHERE name = ?", (owner,))
    return left.fetchone() is not None
