from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import ParameterGrid
from torch import nn

from sklearn_dl.training import Head
from sklearn_dl.training._head import FeatureScaling, start_head

# By the papers' formulas, on x = -2, -0.5, 0, 1.
X = np.array([-2.0, -0.5, 0.0, 1.0])
SIGMOID = 1 / (1 + np.exp(-X))
ACTIVATIONS = {
    "sigmoid": SIGMOID,
    "tanh": np.sinh(X) / np.cosh(X),
    "softplus": np.log(1 + np.exp(X)),
    "relu": np.maximum(X, 0),
    "leaky_relu": np.where(X > 0, X, 0.01 * X),
    "elu": np.where(X > 0, X, np.exp(X) - 1),
    "swish": X * SIGMOID,
    "gelu": [-0.04550026, -0.15426877, 0.0, 0.84134475],  # x * normal cdf
}


def layers(module):
    return [type(layer) for layer in module.children()]


def test_with_the_defaults_it_is_torchs_linear_layer_draw_for_draw():
    torch.manual_seed(0)
    head = Head().build(6, 3)
    torch.manual_seed(0)
    linear = nn.Linear(6, 3)
    assert layers(head) == [FeatureScaling, nn.Linear]
    assert torch.equal(head.output.weight, linear.weight)
    assert torch.equal(head.output.bias, linear.bias)
    features = torch.rand(2, 6)
    assert torch.equal(head(features), linear(features))  # until data set the scaling


def test_each_hidden_layer_is_linear_norm_activation_dropout():
    head = Head((8, 4), dropout=0.5, normalization="batch", activation="tanh")
    block = [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout]
    module = head.build(6, 3)
    assert layers(module) == [FeatureScaling, *block, *block, nn.Linear]
    assert [m.weight.shape for m in module if isinstance(m, nn.Linear)] == [
        (8, 6),
        (4, 8),
        (3, 4),
    ]


@pytest.mark.parametrize("sizes", [5, np.int64(5), [5], (5,), np.array([5])])
def test_sizes_are_an_int_or_a_sequence(sizes):
    found = layers(Head(sizes).build(6, 3))
    assert found == [FeatureScaling, nn.Linear, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(("name", "expected"), ACTIVATIONS.items())
def test_activations_are_those_of_the_formulas(name, expected):
    activation = Head(4, activation=name).build(2, 1).activation1
    np.testing.assert_allclose(activation(torch.tensor(X)), expected, atol=1e-7)


def test_batch_norm_divides_by_the_biased_deviation():
    norm = Head(1, normalization="batch").build(1, 1).norm1
    values = norm(torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]))[:, 0]
    expected = [-np.sqrt(2), -np.sqrt(0.5), 0, np.sqrt(0.5), np.sqrt(2)]
    np.testing.assert_allclose(values.detach(), expected, atol=1e-4)
    assert norm.running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 2.5)  # unbiased


def test_layer_norm_is_over_the_values_of_a_row():
    norm = Head(64, normalization="layer").build(2, 1).norm1
    x = torch.randn(3, 64) * 5 + 2
    expected = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(norm(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("width", "groups"),
    [(1, 1), (7, 1), (16, 1), (32, 2), (64, 4), (100, 5), (127, 1), (512, 32)],
)
def test_groups_divide_the_width_and_hold_enough_values(width, groups):
    norm = Head(width, normalization="group").build(2, 1).norm1
    assert norm.num_groups == groups
    if width > 1:
        x = torch.randn(3, width)
        parts = norm(x).reshape(3, groups, -1)
        torch.testing.assert_close(
            parts.mean(2), torch.zeros(3, groups), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            parts.std(2, correction=0), torch.ones(3, groups), atol=1e-2, rtol=0
        )


@pytest.mark.parametrize("hidden", [(), (400,)])
def test_dropout_scales_what_it_keeps_and_is_off_in_prediction(hidden):
    head = Head(hidden, dropout=0.25).build(400, 2)
    dropout = head.dropout1 if hidden else head.dropout
    assert dropout.p == 0.25
    torch.manual_seed(0)
    out = dropout(torch.ones(50, 400))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    x = torch.rand(3, 400)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))


N_IN, N_HIDDEN, N_OUT = 300, 200, 100


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("xavier", lambda n_in, n_out: np.sqrt(2 / (n_in + n_out))),
        ("he", lambda n_in, n_out: np.sqrt(2 / n_in)),
    ],
)
def test_initial_weights_have_the_deviation_and_the_bound_of_the_papers(
    init, deviation, activation
):
    torch.manual_seed(0)
    for form in ("normal", "uniform"):
        head = Head(N_HIDDEN, activation=activation, init=f"{init}_{form}")
        module = head.build(N_IN, N_OUT)
        gain = 5 / 3 if activation == "tanh" and init == "xavier" else 1
        for layer, n_in, n_out, factor in (
            (module.linear1, N_IN, N_HIDDEN, gain),
            (module.output, N_HIDDEN, N_OUT, 1),
        ):
            expected = factor * deviation(n_in, n_out)
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
            assert layer.bias.abs().max() == 0
            largest = layer.weight.abs().max().item()
            if form == "uniform":
                # The bound of a uniform law is sqrt(3) deviations.
                assert largest == pytest.approx(np.sqrt(3) * expected, rel=0.01)
            else:
                assert largest > 3 * expected


def test_the_default_weights_are_torchs_uniform_ones():
    torch.manual_seed(0)
    weight = Head().build(N_IN, N_OUT).output.weight
    bound = 1 / np.sqrt(N_IN)
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_lsuv_starts_orthonormal_and_ends_with_outputs_of_variance_one():
    torch.manual_seed(0)
    head = Head((30, 20), init="lsuv", activation="tanh", dropout=0.5)
    module = head.build(40, 5)
    weight = module.linear1.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(30), atol=1e-5, rtol=0)
    before = module.linear1.weight.clone()
    features = torch.rand(64, 40, dtype=torch.float64) * 7 + 3
    module.train()
    head.fit_init(module, features)
    assert module.training
    # The directions are as they were, at one common length.
    ratio = module.linear1.weight / before
    torch.testing.assert_close(ratio, torch.full_like(ratio, ratio[0, 0].item()))
    module.eval()
    values = features.float()
    for layer in module:
        values = layer(values)
        if isinstance(layer, nn.Linear):
            assert values.var(correction=0).item() == pytest.approx(1, rel=1e-4)
    assert not any(p.grad_fn or p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_lsuv_sees_batch_norm_as_training_will_and_moves_nothing_of_it(training):
    torch.manual_seed(0)
    head = Head(8, init="lsuv", normalization="batch")
    module = head.build(6, 3).train(training)
    features = torch.randn(32, 6) * 5 + 1
    head.fit_init(module, features)
    assert module.norm1.num_batches_tracked == 0
    assert module.norm1.running_mean.abs().max() == 0
    assert module.training is module.norm1.training is training
    outputs = module.train()(features)
    assert outputs.var(correction=0).item() == pytest.approx(1, rel=1e-4)


def test_lsuv_works_on_a_single_layer_and_leaves_what_has_no_spread():
    head = Head(init="lsuv")
    module = head.build(6, 3)
    before = module.output.weight.clone()
    head.fit_init(module, torch.zeros(4, 6))
    assert torch.equal(module.output.weight, before)
    features = torch.randn(50, 6)
    head.fit_init(module, features)
    assert module(features).var(correction=0).item() == pytest.approx(1, rel=1e-5)


def started(features, target, weight=None, *, head=None, kind="continuous", **options):
    """Return a new head, started from features."""
    head = head or Head()
    n_outputs = 1 if kind == "continuous" else int(target.max()) + 1
    torch.manual_seed(0)
    module = head.build(features.shape[1], n_outputs)
    weight = np.ones(len(features)) if weight is None else weight
    recipe = SimpleNamespace(
        kind=kind,
        optimizer=SimpleNamespace(weight_decay=options.pop("weight_decay", 0.0)),
        execution=SimpleNamespace(step_size=32),
    )
    taken = SimpleNamespace(target=target, weight=weight)
    options = {"loss": "squared_error", "n_rows": 32, **options}
    start_head(head, module, features, taken, recipe, **options)
    return module


def rows(n=40, n_features=6):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, n_features)) * [1, 2, 3, 4, 5, 1e-9] + 100
    numbers = features[:, 0] + 0.1 * rng.normal(size=n)
    return features, torch.from_numpy(numbers), torch.arange(n) % 2


def test_numbers_are_learned_from_where_ridge_regression_ends():
    features, y, _ = rows()
    weight = np.random.default_rng(1).uniform(0, 2, len(y))
    module = started(features, y, weight)
    mean = np.average(features, axis=0, weights=weight)
    unit = np.sqrt(np.average(((features - mean) ** 2).sum(1), weights=weight))
    ridge = Ridge(alpha=2.5e-4 * weight.sum())
    ridge.fit((features - mean) / unit, y, sample_weight=weight)
    expected = ridge.predict((features - mean) / unit)
    found = module(torch.from_numpy(features))[:, 0]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6)
    hidden = started(features, y, head=Head(4))
    values = hidden.scaling(torch.from_numpy(features))
    assert values.square().sum(1).mean().item() == pytest.approx(6)  # at most a feature


def test_classes_are_learned_from_zero_and_features_of_pareto_scaling():
    features, _, y = rows()
    module = started(features, y, kind="multiclass")
    assert not module.output.weight.any()
    assert not module.output.bias.any()
    values = module.scaling(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(values.mean(0), 1, rtol=1e-4)  # of a squared norm of 6
    assert values.var(0).sum() == pytest.approx(6)
    deviation = features.std(0)[:5]
    expected = (deviation**2 + 0.01 * features.var(0).mean()) ** 0.25
    ratio = deviation / expected / values.std(0)[:5]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert values[:, 5].std() < 1e-8  # what hardly moved isn't blown up


def test_what_classes_weigh_moves_no_feature():
    features, _, y = rows()
    plain, weighted = (
        started(features, y, w, kind="multiclass").scaling
        for w in (None, np.where(y == 0, 3.0, 0.5))
    )
    torch.testing.assert_close(plain.mean, weighted.mean)
    torch.testing.assert_close(plain.scale, weighted.scale)


def test_a_stream_keeps_its_mean():
    features, y, _ = rows()
    module = started(features, y, stream=True)
    assert not module.scaling.mean.any()
    values = module.scaling(torch.from_numpy(features))
    assert values.square().sum(1).mean().item() == pytest.approx(6)


def test_what_lies_far_out_is_no_start_of_a_robust_loss():
    features, y, _ = rows()
    far = y.clone()
    far[0] += 1000 * y.std()
    found = {
        loss: started(features, target, loss=loss).output.weight.detach()
        for loss, target in (("squared_error", y), ("huber", far))
    }
    clean, robust = found.values()
    assert (robust - clean).norm() < 0.5 * clean.norm()
    assert not started(features, y, loss=nn.HuberLoss()).output.weight.any()
    y[:6] += 4 * y.std()  # a group of its own is no accident
    plain, kept = (
        started(features, y, loss=loss).output.weight
        for loss in ("squared_error", "absolute_error")
    )
    assert torch.equal(plain, kept)


def test_weight_decay_is_the_penalty_of_the_start():
    features, y, _ = rows()
    light, heavy = (
        started(features, y, weight_decay=decay).output.weight.norm()
        for decay in (1e-4, 10.0)
    )
    assert heavy < 0.1 * light


@pytest.mark.parametrize(
    "features",
    [np.full((4, 3), 7.0), np.ones((1, 3)), 7 + 1e-6 * np.eye(4, 3)],
)
def test_features_that_do_not_differ_stay_as_they_are(features):
    module = started(features, torch.arange(len(features)).double())
    values = torch.from_numpy(features)
    assert torch.equal(module.scaling(values), values)
    assert module(values).isfinite().all()


def test_a_head_learns_from_features_of_tiny_spread():
    torch.manual_seed(0)
    y = torch.arange(60) % 2
    features = (1 + 1e-4 * (torch.randn(60, 4) + y[:, None])).numpy()
    accuracy = {}
    for scaled in (False, True):
        module = started(features, y, kind="multiclass")
        if not scaled:
            module = module.output
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(50):
            optimizer.zero_grad()
            values = module(torch.from_numpy(features))
            nn.functional.cross_entropy(values, y).backward()
            optimizer.step()
        right = values.argmax(1) == y
        accuracy[scaled] = right.float().mean().item()
    assert accuracy[False] < 0.6
    assert accuracy[True] > 0.8


def test_it_clones_and_a_grid_reaches_inside():
    head = Head((16,), dropout=0.2)
    assert clone(head).get_params() == head.get_params()
    assert repr(head) == "Head(dropout=0.2, hidden_layer_sizes=(16,))"
    grid = ParameterGrid({"dropout": [0.0, 0.5], "normalization": [None, "layer"]})
    assert len({str(clone(head).set_params(**p).build(6, 3)) for p in grid}) == 4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dropout": 1.0}, r"'dropout' parameter of Head .* Got 1.0"),
        ({"activation": "rulu"}, "'activation' parameter of Head .* Got 'rulu'"),
        ({"normalization": "instance"}, "'normalization' parameter of Head"),
        ({"init": "zeros"}, "'init' parameter of Head"),
        ({"hidden_layer_sizes": 0}, "hidden_layer_sizes=0 must hold widths"),
        ({"hidden_layer_sizes": "64"}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (8, 2.5)}, r"hidden_layer_sizes=\(8, 2.5\) .* got 2.5"),
        ({"hidden_layer_sizes": (8, -1)}, "got -1"),
    ],
)
def test_what_is_wrong_is_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        Head(**parameters).build(6, 3)
