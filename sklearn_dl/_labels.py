"""Labels that aren't there."""

import numpy as np
import pandas as pd
from scipy.sparse import issparse


def refuse_missing(y, name: str = "y") -> None:
    """Raise where y has None, NaN, `pd.NA` or NaT, naming the row."""
    if issparse(y):
        return
    # An array of texts would have "nan" and "None" in their place.
    values = np.asarray(y) if hasattr(y, "dtype") else np.array(y, dtype=object)
    missing = np.asarray(pd.isna(y if hasattr(y, "isna") else values))
    rows = np.flatnonzero(missing.reshape(len(missing), -1).any(axis=1))
    if len(rows):
        found = values.reshape(len(missing), -1)[rows[0]]
        value = next(part for part in found if pd.isna(part))
        shown = "NaN" if isinstance(value, float | np.floating) else repr(value)
        more = f" and in {len(rows) - 1} more" if len(rows) > 1 else ""
        raise ValueError(
            f"{name} has a missing value ({shown}) in row {rows[0]}{more}: leave "
            f"these rows out of X and {name}."
        )
