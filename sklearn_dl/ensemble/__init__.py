"""Gain of an ensemble by voting or averaging, and the diversity of its members."""

from sklearn_dl.ensemble._display import DiversityDisplay
from sklearn_dl.ensemble._diversity import Diversity, diversity
from sklearn_dl.ensemble._vote import average_error, majority_vote_error

__all__ = [
    "Diversity",
    "DiversityDisplay",
    "average_error",
    "diversity",
    "majority_vote_error",
]
