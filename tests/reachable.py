"""A folder for tests of what a user without rights meets."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Yield a folder that other users may read: pytest's are closed to them.

    So may be that of temporary files; the superuser, who gives up his rights in these
    tests, takes another then.
    """
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    if os.geteuid() == 0:
        places = [place for place in places if _is_reachable(Path(place))]
    with tempfile.TemporaryDirectory(dir=places[0]) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def _is_reachable(place: Path) -> bool:
    return all(p.is_dir() and p.stat().st_mode & 0o001 for p in (place, *place.parents))
