"""Fitted estimators as plain data: nothing is executed when they are read again.

A table of nodes, tensors beside it, and digests, for files (`sklearn_dl.persistence`)
and for the state that skops asks of an estimator.
"""

from sklearn_dl._saving._archive import read_versions as read_versions
from sklearn_dl._saving._archive import reading as reading
from sklearn_dl._saving._archive import versions as versions
from sklearn_dl._saving._archive import write_archive as write_archive
from sklearn_dl._saving._estimators import HELD as HELD
from sklearn_dl._saving._estimators import set_network as set_network
from sklearn_dl._saving._model import build as build
from sklearn_dl._saving._model import describe as describe
from sklearn_dl._saving._model import from_arrays as from_arrays
from sklearn_dl._saving._model import to_arrays as to_arrays
from sklearn_dl._saving._trust import Trust as Trust
