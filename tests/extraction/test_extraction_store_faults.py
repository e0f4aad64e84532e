"""What a store in a directory makes of files and disks that fail, on real files."""

import os
import shutil
import sqlite3
import warnings
from contextlib import closing

import _store_processes as processes
import numpy as np
import pytest
from _store_processes import BIG, in_process, key, row
from reachable import reachable_folder

from sklearn_dl._extraction import _sqlite
from sklearn_dl._extraction._directory import DirectoryStore
from sklearn_dl._extraction._store import CacheStatistics

KEYS = [key(i) for i in range(50)]


@pytest.fixture
def directory(tmp_path):
    """Return a directory with 50 rows, closed."""
    store = DirectoryStore(tmp_path / "cache", BIG)
    store.put({key(i): row(i) for i in range(50)}, "me")
    store.close()
    return tmp_path / "cache"


@pytest.fixture
def open_to_all():
    """Return a path that other users may reach."""
    with reachable_folder() as path:
        yield path


def file_of(directory):
    return directory / _sqlite.FILE


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def works(store):
    """Tell whether rows are kept and found again."""
    store.put({key(900): row(900)}, "me")
    found = store.lookup([key(900)], (1280,), "f4")
    return list(found) == [key(900)] and bool((found[key(900)] == row(900)).all())


def run_sql(directory, *statements):
    with closing(sqlite3.connect(file_of(directory), isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def truncate(directory):
    os.truncate(file_of(directory), file_of(directory).stat().st_size // 2)


def truncate_the_header(directory):
    os.truncate(file_of(directory), 60)


def fill_with_garbage(directory):
    file_of(directory).write_bytes(np.random.default_rng(0).bytes(20_000))


def break_the_pages(directory):
    with file_of(directory).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (file_of(directory).stat().st_size - 100))


def replace_by_another_application(directory):
    file_of(directory).unlink()
    run_sql(
        directory,
        "PRAGMA journal_mode = WAL",
        "PRAGMA application_id = 7",
        "CREATE TABLE entries (letter TEXT)",
        "INSERT INTO entries VALUES ('dear diary')",
    )


def replace_by_an_unmarked_database(directory):
    file_of(directory).unlink()
    run_sql(directory, "CREATE TABLE totals (x)")


def make_older(directory):
    run_sql(directory, "PRAGMA user_version = 0")


def drop_a_table(directory):
    run_sql(directory, "DROP TABLE claims")


def change_a_column(directory):
    run_sql(directory, "ALTER TABLE entries RENAME COLUMN used TO stamp")


def empty_the_totals(directory):
    run_sql(directory, "DELETE FROM totals")


DAMAGES = [
    truncate,
    truncate_the_header,
    fill_with_garbage,
    break_the_pages,
    replace_by_another_application,
    replace_by_an_unmarked_database,
    make_older,
    drop_a_table,
    change_a_column,
    empty_the_totals,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_cache_is_moved_aside_with_a_warning(directory, damage):
    damage(directory)
    before = file_of(directory).read_bytes()
    store = DirectoryStore(directory, BIG)
    with pytest.warns(UserWarning, match="was moved to") as caught:
        assert store.lookup(KEYS, (1280,), "f4") == {}
    (warning,) = caught
    aside = directory / "features.sqlite3.damaged-1"
    assert f"{file_of(directory)} " in str(warning.message)
    assert f"{aside}," in str(warning.message)
    assert aside.read_bytes() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.claim(KEYS, "you") == KEYS
        assert works(store)
    store.close()
    assert works(DirectoryStore(directory, BIG))


def test_what_was_moved_aside_is_never_overwritten(directory):
    for n in (1, 2, 3):
        file_of(directory).write_bytes(b"garbage number %d" % n * 100)
        with pytest.warns(UserWarning, match=f"damaged-{n}"):
            DirectoryStore(directory, BIG).lookup(KEYS, (1280,), "f4")
    for n in (1, 2, 3):
        aside = directory / f"features.sqlite3.damaged-{n}"
        assert aside.read_bytes() == b"garbage number %d" % n * 100


def test_another_applications_log_goes_aside_with_its_file(directory):
    file_of(directory).unlink()
    with closing(sqlite3.connect(file_of(directory), isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE diary (day TEXT)")
        db.execute("INSERT INTO diary VALUES ('monday')")
        # A copy as a crash leaves it: what was written is in the log only.
        for path in list(directory.iterdir()):
            shutil.copy(path, directory / f"copy-{path.name}")
    for suffix in ("", "-wal"):
        os.rename(
            directory / f"copy-{_sqlite.FILE}{suffix}", f"{file_of(directory)}{suffix}"
        )
    store = DirectoryStore(directory, BIG)
    with pytest.warns(UserWarning, match="another application"):
        store.lookup(KEYS, (1280,), "f4")
    aside = directory / "features.sqlite3.damaged-1"
    with closing(sqlite3.connect(aside)) as db:
        assert db.execute("SELECT day FROM diary").fetchall() == [("monday",)]
    assert works(store)


def test_an_empty_file_is_a_new_cache(directory):
    file_of(directory).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(DirectoryStore(directory, BIG))
    assert not list(directory.glob("*damaged*"))


def test_damage_found_later_is_moved_aside_too(directory):
    store = DirectoryStore(directory, BIG)
    root = 0
    with closing(sqlite3.connect(file_of(directory))) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'features'"
        ).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with file_of(directory).open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xee" * size)
    assert store.statistics().entries == 50  # opens, and finds no fault
    with pytest.warns(UserWarning, match="damaged-1") as caught:
        assert store.lookup(KEYS, (1280,), "f4") == {}
    assert len(caught) == 1
    assert works(store)
    assert store.statistics().entries == 1


def test_one_process_does_not_move_the_new_file_of_another(directory):
    stores = [DirectoryStore(directory, BIG) for _ in range(2)]
    for store in stores:
        assert store.statistics().entries == 50
    with pytest.warns(UserWarning, match="damaged-1"):
        stores[0]._database.replace("a test")
    assert works(stores[0])
    # The log that the second has open belongs to the old file.
    assert (directory / "features.sqlite3.damaged-1-wal").exists()
    # The second had the old file open, and hears of its damage now.
    stores[1]._database.replace("a test")
    assert list(stores[1].lookup([key(900)], (1280,), "f4")) == [key(900)]
    assert not (directory / "features.sqlite3.damaged-2").exists()


def test_a_file_deleted_under_an_open_store_is_made_again(directory):
    store = DirectoryStore(directory, BIG)
    assert len(store.lookup(KEYS, (1280,), "f4")) == 50
    shutil.rmtree(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.lookup(KEYS, (1280,), "f4") == {}
        assert works(store)
    other = DirectoryStore(directory, BIG)
    assert list(other.lookup([key(900)], (1280,), "f4")) == [key(900)]


def test_a_file_replaced_under_an_open_store_is_opened(directory):
    store = DirectoryStore(directory, BIG)
    assert len(store.lookup(KEYS, (1280,), "f4")) == 50
    shutil.rmtree(directory)
    other = DirectoryStore(directory, BIG)
    assert works(other)
    assert list(store.lookup([*KEYS, key(900)], (1280,), "f4")) == [key(900)]
    assert store.claim([key(901)], "me") == [key(901)]
    assert other.claim([key(901)], "you") == []


def test_a_row_with_a_flipped_bit_counts_as_not_stored(directory):
    with closing(sqlite3.connect(file_of(directory))) as db, db:
        sql = "SELECT features.id, value FROM features JOIN entries USING (id) "
        number, value = db.execute(sql + "WHERE key = ?", (KEYS[7],)).fetchone()
        flipped = bytes([value[0] ^ 1]) + value[1:]
        db.execute("UPDATE features SET value = ? WHERE id = ?", (flipped, number))
    store = DirectoryStore(directory, BIG)
    assert set(KEYS) - set(store.lookup(KEYS, (1280,), "f4")) == {KEYS[7]}
    assert store.statistics() == CacheStatistics(0, 0, 49, 49 * 5120)
    assert store.claim(KEYS, "you") == [KEYS[7]]


def test_a_row_under_another_key_counts_as_not_stored(directory):
    run_sql(
        directory,
        f"UPDATE entries SET key = x'{key('x').hex()}' WHERE key = x'{KEYS[7].hex()}'",
    )
    store = DirectoryStore(directory, BIG)
    assert store.lookup([key("x")], (1280,), "f4") == {}


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.lookup(KEYS, (1280,), "f4"),
        lambda store: store.claim(KEYS, "me"),
        lambda store: store.statistics(),
        lambda store: store.clear(),
    ],
)
def test_a_newer_format_is_an_error_that_says_what_to_do(directory, use):
    run_sql(directory, "PRAGMA user_version = 7", "DROP TABLE claims")
    before = file_of(directory).read_bytes()
    store = DirectoryStore(directory, BIG)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"format 7.*up to 1\. Upgrade.*another dir"
        ):
            use(store)
    assert file_of(directory).read_bytes() == before
    assert not list(directory.glob("*damaged*"))


def check_use_without_writing(answer, directory, hits):
    value, said = answer
    assert len(said) == 1
    assert f"{directory} can't be written" in said[0]
    assert value["claimed"] == [key(2), key(3)]
    assert value["later"] == ([key(1)] if hits else [])
    assert value["files"] == {}
    assert (value["statistics"].hits, value["statistics"].misses) == (5, 7)
    for k, found in value["found"].items():
        np.testing.assert_array_equal(found, row(1))
        assert k == key(1)


@pytest.mark.parametrize("log", ["closed", "left by a kill", "file only"])
def test_a_directory_that_can_only_be_read_gives_hits(open_to_all, log):
    directory = open_to_all / "read only"
    store = DirectoryStore(directory, BIG)
    store.put({key(0): row(0)}, "me")
    store.close()
    process, pipe = processes.start(processes.put_and_stay, directory, 1)
    assert pipe.recv() == "stored"
    process.kill()
    process.join()
    assert (directory / f"{_sqlite.FILE}-wal").stat().st_size > 5120
    if log != "left by a kill":
        store.statistics()
        store.close()
    for path in directory.iterdir():
        path.chmod(0o444)
        if log == "file only" and path.name != _sqlite.FILE:
            path.unlink()
    directory.chmod(0o555)
    before = names(directory)
    answer = in_process(processes.use_without_rights, directory)
    check_use_without_writing(answer, directory, hits=True)
    assert names(directory) == before


def test_a_file_that_can_only_be_read_gives_hits(open_to_all):
    directory = open_to_all / "cache"
    store = DirectoryStore(directory, BIG)
    store.put({key(1): row(1)}, "me")
    store.close()
    directory.chmod(0o777)
    (directory / "features.sqlite3.lock").unlink(missing_ok=True)
    file_of(directory).chmod(0o444)
    answer = in_process(processes.use_without_rights, directory)
    check_use_without_writing(answer, directory, hits=True)


def test_a_directory_that_cannot_be_made_is_warned_of(open_to_all):
    directory = open_to_all / "a" / "b"
    answer = in_process(processes.use_without_rights, directory)
    check_use_without_writing(answer, directory, hits=False)
    assert names(open_to_all) == []


@pytest.mark.parametrize("where", ["cache", "cache/below"])
def test_a_file_in_place_of_the_directory_is_warned_of(tmp_path, where):
    (tmp_path / "cache").write_text("mine")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = processes.use(DirectoryStore(tmp_path / where, BIG))
    said = [str(w.message) for w in caught]
    check_use_without_writing((value, said), tmp_path / where, hits=False)
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_directory_in_place_of_the_file_is_warned_of(tmp_path):
    file_of(tmp_path).mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = processes.use(DirectoryStore(tmp_path, BIG))
    said = [str(w.message) for w in caught]
    check_use_without_writing((value, said), tmp_path, hits=False)


@pytest.mark.parametrize("headroom", [0, 150_000, 1_000_000])
def test_a_full_disk_is_warned_of_and_leaves_no_claims(tmp_path, headroom):
    process, pipe = processes.start(processes.fill_the_disk, tmp_path, headroom)
    (claimed, stored, claims, before), said = processes.result_of(process, pipe)
    assert claimed
    assert claims == 0
    assert before == [key(1)]
    assert stored < 1000
    assert (stored > 0) == (headroom > 200_000)
    assert len(said) == 1
    assert f"{tmp_path} can't be written" in said[0]
    store = DirectoryStore(tmp_path, BIG)
    found = store.lookup([key(i) for i in range(100, 1100)], (1280,), "f4")
    assert len(found) == stored
    for i in range(100, 1100):
        if key(i) in found:
            np.testing.assert_array_equal(found[key(i)], row(i))


def limit_pages(store, more):
    db = store._database.connect()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + more}")


def test_claims_are_lifted_when_the_disk_is_full(directory):
    store, other = (DirectoryStore(directory, BIG) for _ in range(2))
    new = [key(i) for i in range(100, 400)]
    assert store.claim(new, "me") == new
    limit_pages(store, 10)
    with pytest.warns(UserWarning, match="full") as caught:
        store.put({k: row(0) for k in new[:100]}, "me")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put({k: row(0) for k in new[100:]}, "me")
    assert other.claim(new, "you") == new
    assert len(store.lookup(KEYS, (1280,), "f4")) == 50
    assert store.lookup(new, (1280,), "f4") == {}


def test_claims_of_other_calls_are_lifted_at_their_next_put(directory):
    store, other = (DirectoryStore(directory, BIG) for _ in range(2))
    new = [key(i) for i in range(100, 300)]
    store.claim(new[:150], "me")
    store.claim(new[150:], "you")
    limit_pages(store, 10)
    with pytest.warns(UserWarning, match="full"):
        store.put({k: row(0) for k in new[:150]}, "me")
    assert other.claim(new, "they") == new[:150]
    store.put({k: row(0) for k in new[150:]}, "you")
    assert other.claim(new, "they") == new


def test_a_lock_that_is_never_lifted_is_warned_of(directory, monkeypatch):
    monkeypatch.setattr(_sqlite, "_PATIENCE", 0.05)
    store = DirectoryStore(directory, BIG)
    store.claim([key(60)], "me")
    with closing(sqlite3.connect(file_of(directory), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.warns(UserWarning, match="locked") as caught:
            store.put({key(60): row(60)}, "me")
        assert len(caught) == 1
        assert store.claim([key(60)], "you") == [key(60)]
        db_of_store = store._database.connect()
        assert db_of_store.execute("PRAGMA busy_timeout").fetchone() == (1000,)
        assert len(store.lookup(KEYS, (1280,), "f4")) == 50
        db.execute("ROLLBACK")
    store.put({key(60): row(60)}, "me")  # it was said that nothing is kept
    assert store.lookup([key(60)], (1280,), "f4") == {}
    store.clear()
    assert works(store)


def test_an_error_amid_a_transaction_leaves_nothing_of_it(directory):
    store = DirectoryStore(directory, BIG)

    class Interrupting(dict):
        def items(self):
            yield from super().items()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(Interrupting({key(60): row(60), KEYS[0]: row(60)}), "me")
    assert store.lookup([key(60)], (1280,), "f4") == {}
    np.testing.assert_array_equal(
        store.lookup(KEYS[:1], (1280,), "f4")[KEYS[0]], row(0)
    )
    assert store.statistics() == CacheStatistics(0, 0, 50, 50 * 5120)
    assert works(store)
