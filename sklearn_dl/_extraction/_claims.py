"""Claims in a SQLite file: who computes which keys, and until when."""

import sqlite3
import time
from collections.abc import Iterable

from sklearn_dl._extraction._sqlite import select
from sklearn_dl._extraction._store import LEASE, owner_is_dead


def claim(db: sqlite3.Connection, keys: list[bytes], owner: str) -> list[bytes]:
    """Give an owner the keys that are neither stored nor claimed by the living."""
    for number, name, expires in db.execute("SELECT * FROM owners").fetchall():
        if name != owner and not _alive(name, expires):
            db.execute("DELETE FROM claims WHERE owner = ?", (number,))
            db.execute("DELETE FROM owners WHERE id = ?", (number,))
    stored = select(db, "SELECT key FROM entries WHERE key IN ({})", keys)
    taken = {key for (key,) in stored}
    claims = select(
        db,
        "SELECT key, name FROM claims JOIN owners ON owners.id = owner "
        "WHERE key IN ({})",
        keys,
    )
    taken.update(key for key, name in claims if name != owner)
    free = [key for key in keys if key not in taken]
    if free:
        db.execute(
            "INSERT OR IGNORE INTO owners (name, expires) VALUES (?, 0)", (owner,)
        )
        renew(db, owner)
        sql = "INSERT OR REPLACE INTO claims SELECT ?, id FROM owners WHERE name = ?"
        db.executemany(sql, [(key, owner) for key in free])
    return free


def claimed(db: sqlite3.Connection, keys: set[bytes]) -> set[bytes]:
    """Return those of some keys that a live owner claims."""
    sql = (
        "SELECT key, name, expires FROM claims JOIN owners ON owners.id = owner "
        "WHERE key IN ({})"
    )
    rows = select(db, sql, keys)
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
    owned = "(SELECT id FROM owners WHERE name = ?)"
    db.execute(f"DELETE FROM claims WHERE owner IN {owned}", (owner,))
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
