"""Every backbone through an estimator's own fit."""

import numpy as np
import pytest
import torch
from backbone_cases import QUICK, all_names, small_side
from skorch.callbacks import Callback

from sklearn_dl import ImageClassifier


class Before(Callback):
    """Keeps the network's tensors as they were before the first step."""

    def on_train_begin(self, net, **kwargs):
        state = net.module_.state_dict()
        self.state = {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("name", all_names(QUICK))
def test_a_fit_moves_the_last_stage_and_the_head_and_nothing_else(name):
    side = small_side(name)
    X = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), "uint8")
    before = Before()
    model = ImageClassifier(
        name,
        weights=None,
        image_size=(side, side),
        trainable=1,
        max_epochs=1,
        lr=0.1,
        batch_size=2,
        random_state=0,
        callbacks=[before],
    )
    model.fit(X, ["a", "b"] * 2)
    backbone = model.module_.backbone
    *frozen, last = backbone.stages
    after = model.module_.state_dict()
    moved = {n for n in after if not torch.equal(after[n], before.state[n])}
    assert {"head.output.weight", "head.output.bias"} <= moved
    assert any(f"backbone.module.{n}" in moved for n in backbone.stages[last])
    # Neither parameters nor BatchNorm's buffers of the other stages.
    owners = {n.rpartition(".")[0] for stage in frozen for n in backbone.stages[stage]}
    fixed = {f"backbone.module.{owner}" for owner in owners}
    last_owners = {n.rpartition(".")[0] for n in backbone.stages[last]}
    fixed -= {f"backbone.module.{owner}" for owner in last_owners}
    assert fixed
    assert not {n for n in moved if n.rpartition(".")[0] in fixed}
    P = model.predict_proba(X)
    assert P.shape == (4, 2)
    assert np.isfinite(P).all()
