"""Error messages for a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, value: object, valid: Iterable[str], hint: str = "") -> str:
    """Say that `value` is no `kind`, with the nearest valid names."""
    names = list(valid)
    near = get_close_matches(str(value), names, n=3, cutoff=0.5)
    if near:
        rest = f"Did you mean {' or '.join(map(repr, near))}?"
    elif len(names) <= 12:
        rest = f"Valid: {', '.join(map(repr, names))}."
    else:
        rest = f"Valid: {', '.join(map(repr, names[:8]))}, ... ({len(names)} in all)."
    return f"Unknown {kind} {value!r}. {rest}{' ' + hint if hint else ''}"
