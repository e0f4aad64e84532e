"""Robustness report: tables, weaknesses, and the augmentations that answer them."""

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl.augmentation import AUGMENTATIONS, Augment
from sklearn_dl.inspection._corruptions import CORRUPTIONS

# What `Augment` takes.
_STRONGEST = 10.0
# Classes whose drops are printed; the table has all.
_PRINTED_CLASSES = 8


@dataclass(frozen=True, repr=False, eq=False)
class RobustnessReport:
    """How far a score falls when images are corrupted; made by `robustness_report`.

    Attributes
    ----------
    table : DataFrame
        One row per corruption and severity, in the order of `list_corruptions`:

        - ``corruption``, ``severity`` (NaN where there is only one) and ``amount``,
          the severity in words;
        - ``score`` on the corrupted images, ``drop``: `clean_score` minus it, and
          ``low`` and ``high``, the interval of the drop;
        - ``augmentation``: the name that answers the corruption;
        - with ``per_class=True``, ``drop[label]`` of each class's recall.
    clean_score : float
        Score on the images as they are.
    clean_interval : tuple of (float, float)
        Its interval.
    classes : DataFrame or None
        With ``per_class=True``, one row per corruption, severity and class:
        ``corruption``, ``severity``, ``class``, ``n`` (its images), ``score`` (recall),
        ``drop``, ``low`` and ``high``.
    shifts : DataFrame or None
        With a reference, one row per statistic of `image_statistics`:

        - ``statistic``, its medians ``reference`` and ``value`` (of X);
        - ``effect``: Cliff's delta, -1 to 1, positive where X has the higher values;
        - ``p_value``, corrected for the number of statistics;
        - ``shifted``: whether the p-value is at most 0.05 and the effect at least 0.2;
        - ``direction`` in words, and the ``augmentation`` that answers it.
    scoring : str
        Name of the score.
    n_images : int
    margin : float
        A drop above it, with its whole interval, is severe.
    confidence_level : float

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dl.inspection import RobustnessReport
    >>> names = ["corruption", "severity", "amount", "score", "drop", "low", "high"]
    >>> rows = [("rotation", 1.0, "15 degrees", 0.94, 0.01, -0.01, 0.03)]
    >>> rows += [("blur", 2.0, "1.50% of the shorter side", 0.8, 0.15, 0.1, 0.2)]
    >>> table = pd.DataFrame(rows, columns=names)
    >>> table["augmentation"] = ["rotation", "blur"]
    >>> report = RobustnessReport(table, 0.95, (0.93, 0.97), scoring="accuracy")
    >>> report.weaknesses["corruption"].tolist()
    ['blur']
    >>> report.augment
    Augment(strength=3.0, transforms=['blur'])
    """

    table: pd.DataFrame
    clean_score: float
    clean_interval: tuple[float, float]
    classes: pd.DataFrame | None = None
    shifts: pd.DataFrame | None = None
    scoring: str = "accuracy"
    n_images: int = 0
    margin: float = 0.03
    confidence_level: float = 0.95

    @property
    def weaknesses(self) -> pd.DataFrame:
        """Rows of `table` whose interval lies above zero, the largest drop first.

        Its column ``severe`` says whether the interval lies above `margin`.
        """
        found = self.table[self.table["low"] > 0]
        found = found.assign(severe=found["low"] > self.margin)
        return found.sort_values("drop", ascending=False, kind="stable")

    @property
    def augment(self) -> Any:
        """What answers all `weaknesses`, for the parameter `augment`.

        None where there are none; a list of names; or `Augment` with strengths above
        1: each name goes half as far again as the severest corruption under which the
        score falls, so that the corruption lies within what is drawn, not at its edge.
        """
        return self.augment_for(0.0)

    @property
    def severe_augment(self) -> Any:
        """What answers the weaknesses that are severe, for the parameter `augment`."""
        return self.augment_for(self.margin)

    @property
    def shifted(self) -> list[str]:
        """The directions in which X differs from the reference, in words."""
        if self.shifts is None:
            return []
        return self.shifts.loc[self.shifts["shifted"], "direction"].tolist()

    def augment_for(self, margin: float) -> Any:
        """Return what answers the drops whose interval lies above a margin.

        Parameters
        ----------
        margin : float
            In units of the score.

        Returns
        -------
        None, list of str or Augment
            For the parameter `augment` of `ImageClassifier` and `ImageRegressor`.
        """
        found = self.table[self.table["low"] > margin]
        names = [n for n in AUGMENTATIONS if n in set(found["augmentation"])]
        if not names:
            return None
        reach = found["corruption"].map(lambda name: CORRUPTIONS[name].reach)
        reached = found["severity"].fillna(1.0) * reach
        reached = reached.groupby(found["augmentation"]).max().clip(1, _STRONGEST)
        strengths = {name: float(reached[name]) for name in names}
        if len({*strengths.values()}) == 1:
            strength = strengths[names[0]]
            return Augment(names, strength=strength) if strength > 1 else names
        beyond = {name: value for name, value in strengths.items() if value > 1}
        return Augment(names, strength=beyond)

    def summary(self) -> str:
        """Return the report as text."""
        table = self._printed().to_string(index=False, float_format="{:.3f}".format)
        return "\n".join([self._head(), table, *self._answers()])

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        lines = [f"<p>{html.escape(line)}</p>" for line in self._answers()]
        table = self._printed().to_html(index=False, float_format="{:.3f}".format)
        return "".join([f"<p>{html.escape(self._head())}</p>", table, *lines])

    def _head(self) -> str:
        low, high = self.clean_interval
        return (
            f"{self.scoring} {self.clean_score:.3f} ({low:.3f} to {high:.3f}) on "
            f"{self.n_images:,} images as they are; drops with their "
            f"{self.confidence_level:.0%} intervals:"
        )

    def _printed(self) -> pd.DataFrame:
        table = self.table.drop(columns=["severity", "augmentation"])
        of_classes = [name for name in table if str(name).startswith("drop[")]
        if len(of_classes) > _PRINTED_CLASSES:
            table = table.drop(columns=of_classes)
        low = self.table["low"]
        marks = np.select([low > self.margin, low > 0], ["**", "*"], "")
        return table.assign(**{"": marks})

    def _answers(self) -> list[str]:
        weak = self.weaknesses
        severe = weak[weak["severe"]]
        lines = [] if len(weak) else ["No drop is beyond chance."]
        for mark, margin, rows, answer in (
            ("*", "chance", weak, self.augment),
            ("**", f"{self.margin:g}", severe, self.severe_augment),
        ):
            names = [name for name in CORRUPTIONS if name in set(rows["corruption"])]
            if names:
                found = f"{mark} Beyond {margin}: {', '.join(names)}."
                lines.append(f"{found} augment={code_of(answer)}")
        if self.shifts is not None:
            shifts = [
                f"{row.direction} (effect {row.effect:+.2f}, {row.augmentation})"
                for row in self.shifts[self.shifts["shifted"]].itertuples()
            ]
            shifts = shifts or ["no shift found"]
            lines.append(f"Against the reference: {'; '.join(shifts)}.")
        return lines


def code_of(augment: Any) -> str:
    """Return what one would write; scikit-learn's repr breaks lines."""
    if isinstance(augment, Augment):
        strength = augment.strength
        text = str(strength) if isinstance(strength, dict) else f"{strength:g}"
        return f"Augment({augment.transforms}, strength={text})"
    return str(augment)
