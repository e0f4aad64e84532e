"""Parameters as grids make them: what numpy's scalars say, held as Python's."""

from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import validate_parameter_constraints

_LONGEST = 1024  # characters of a text; images in base64 have more


def plain(value: Any) -> Any:
    """Return a value with Python's scalars in place of numpy's, also in containers.

    What holds none of numpy's is returned itself.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl._plain import plain
    >>> plain({"size": (np.int8(32), np.float32(0.5)), "name": np.str_("head")})
    {'size': (32, 0.5), 'name': 'head'}
    """
    if isinstance(value, np.generic):
        number = isinstance(value, np.floating)  # `item` leaves a longdouble one
        return float(value) if number else value.item()
    if type(value) in (list, tuple):
        parts: Any = type(value)(map(plain, value))
        changed = any(new is not old for new, old in zip(parts, value, strict=True))
    elif type(value) is dict:
        parts = {plain(key): plain(part) for key, part in value.items()}
        news, olds = (*parts, *parts.values()), (*value, *value.values())
        changed = any(new is not old for new, old in zip(news, olds, strict=True))
    else:
        return value
    return parts if changed else value


class PlainParameters:
    """Holds what numpy's scalars say as Python's; `get_params` returns what was given.

    Torch, files and other programs don't take numpy's everywhere, and their arithmetic
    is another one: ``np.uint8(200) + np.uint8(100)`` is 44.
    """

    _parameter_constraints: ClassVar[dict]

    def __setattr__(self, name: str, value: Any) -> None:
        learned = name.startswith("_") or name.endswith("_")
        held = value if learned else plain(value)
        if held is not value:
            vars(self).setdefault("_given", {})[name] = value
        else:
            vars(self).get("_given", {}).pop(name, None)
        super().__setattr__(name, held)

    def get_params(self, deep=True):
        """Return the parameters, as they were given.

        Parameters
        ----------
        deep : bool, default=True
            Whether those of the objects among them are returned too.

        Returns
        -------
        dict of str to object
            Values by name.
        """
        found = super().get_params(deep)  # type: ignore[misc]
        given = vars(self).get("_given", {})
        return {**found, **{k: v for k, v in given.items() if k in found}}

    def _validate_params(self) -> None:
        """Check the parameters as they are held; `Real` holds numpy's, `float` not."""
        held = plain(self.get_params(deep=False))
        for name, value in held.items():
            if isinstance(value, str) and len(value) > _LONGEST:
                raise ValueError(
                    f"{name}={value[:80]!r}... is a text of {len(value)} characters, "
                    "which is no name and no path."
                )
        kind = type(self)
        validate_parameter_constraints(
            kind._parameter_constraints, held, caller_name=kind.__name__
        )

    def __getstate__(self):
        """Return the attributes, with Python's scalars."""
        state = super().__getstate__()  # type: ignore[misc]
        return {name: value for name, value in state.items() if name != "_given"}
