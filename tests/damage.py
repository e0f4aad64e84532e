"""Damaged copies of a file, and what reading them has to come to."""

import random


def flipped(data, rng):
    """Change up to three bytes."""
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] ^= rng.randint(1, 255)


def zeroed(data, rng):
    """Zero a run of bytes."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 64))
    data[start:end] = bytes(end - start)


def cut_off(data, rng):
    """Leave out the end."""
    del data[rng.randrange(len(data)) :]


def swapped(data, rng):
    """Let two runs of bytes change places."""
    n = min(16, len(data) // 2)
    one = rng.randrange(len(data) - 2 * n + 1)
    other = rng.randrange(one + n, len(data) - n + 1)
    first = data[one : one + n]
    data[one : one + n] = data[other : other + n]
    data[other : other + n] = first


KINDS = (flipped, zeroed, cut_off, swapped)


def damaged(whole, n, seed=0):
    """Yield n copies of a file's bytes, each damaged in another way or place."""
    rng = random.Random(seed)
    for k in range(n):
        data = bytearray(whole)
        KINDS[k % len(KINDS)](data, rng)
        yield bytes(data)


def refusals(path, copies, read, same=lambda found: True):
    """Read each copy at a path: return how many were refused, with the file's name.

    Whatever else than a ValueError is raised goes through; `same` says whether what was
    read may be.
    """
    said = []
    for data in copies:
        path.write_bytes(data)
        try:
            found = read(path)
        except ValueError as error:
            said.append(str(error))
        else:
            assert same(found)
    for text in said:
        assert str(path) in text
        assert text.isprintable(), repr(text)  # no bytes of the file
        assert len(text) < 1000
    return len(said)
