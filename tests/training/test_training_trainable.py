import numpy as np
import pytest
from sklearn.base import clone

from sklearn_dl.training import Trainable


@pytest.mark.parametrize("stages", ["head", "all", 0, 2, np.int64(1), "layer4", ["a"]])
def test_a_plain_value_stands_for_its_stages(stages):
    trainable = Trainable.of(stages)
    assert trainable.get_params()["stages"] is stages
    assert trainable.freeze_batch_norm == "auto"
    assert Trainable.of(trainable) is trainable


def test_a_grid_reaches_in():
    trainable = clone(Trainable("all", freeze_batch_norm=True))
    trainable.set_params(stages=1, freeze_batch_norm=False)
    assert trainable.get_params() == {"stages": 1, "freeze_batch_norm": False}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (-1, "trainable=-1 must be"),
        (True, "trainable=True must be"),
        (None, "trainable=None must be"),
        (0.5, "trainable=0.5 must be"),
        (Trainable("all", freeze_batch_norm="no"), "freeze_batch_norm='no' must be"),
        (Trainable("all", freeze_batch_norm=None), "freeze_batch_norm=None must be"),
    ],
)
def test_what_is_wrong_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Trainable.of(wrong)
