import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from torch import nn

from sklearn_dl.training import Head
from sklearn_dl.training._head import FeatureNorm

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
    assert type(head) is nn.Linear
    assert list(head.state_dict()) == ["weight", "bias"]
    assert torch.equal(head.weight, linear.weight)
    assert torch.equal(head.bias, linear.bias)


def test_each_hidden_layer_is_linear_norm_activation_dropout():
    head = Head((8, 4), dropout=0.5, normalization="batch", activation="tanh")
    block = [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout]
    module = head.build(6, 3)
    assert layers(module) == [*block, *block, nn.Linear]
    assert [m.weight.shape for m in module if isinstance(m, nn.Linear)] == [
        (8, 6),
        (4, 8),
        (3, 4),
    ]


@pytest.mark.parametrize("sizes", [5, np.int64(5), [5], (5,), np.array([5])])
def test_sizes_are_an_int_or_a_sequence(sizes):
    assert layers(Head(sizes).build(6, 3)) == [nn.Linear, nn.ReLU, nn.Linear]


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
    weight = Head().build(N_IN, N_OUT).weight
    bound = 1 / np.sqrt(N_IN)
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_lsuv_starts_orthonormal_and_ends_with_outputs_of_variance_one():
    torch.manual_seed(0)
    head = Head((30, 20), init="lsuv", activation="tanh", dropout=0.5)
    module = head.build(40, 5)
    assert head.needs_data
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
    before = module.weight.clone()
    head.fit_init(module, torch.zeros(4, 6))
    assert torch.equal(module.weight, before)
    features = torch.randn(50, 6)
    head.fit_init(module, features)
    assert module(features).var(correction=0).item() == pytest.approx(1, rel=1e-5)


def test_features_of_tiny_spread_are_normalised_in_training_and_prediction():
    torch.manual_seed(0)
    head = Head(normalize_features=True)
    module = head.build(5, 2)
    assert head.needs_data
    assert isinstance(module.feature_norm, nn.BatchNorm1d)
    assert layers(module) == [FeatureNorm, nn.Linear]
    features = 0.5 + 1e-4 * torch.randn(64, 5)
    head.fit_init(module, features)
    for training in (True, False):
        values = module.feature_norm.train(training)(features)
        torch.testing.assert_close(values.mean(0), torch.zeros(5), atol=0.01, rtol=0)
        torch.testing.assert_close(values.std(0), torch.ones(5), atol=0.02, rtol=0)


def test_normalising_features_lets_a_head_learn_where_it_was_at_chance():
    torch.manual_seed(0)
    y = torch.arange(60) % 2
    features = 1 + 1e-4 * (torch.randn(60, 4) + y[:, None])
    accuracy = {}
    for normalize in (False, True):
        head = Head(normalize_features=normalize)
        module = head.build(4, 2)
        head.fit_init(module, features)
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(features), y).backward()
            optimizer.step()
        right = module.eval()(features).argmax(1) == y
        accuracy[normalize] = right.float().mean().item()
    assert accuracy[False] < 0.6
    assert accuracy[True] > 0.8


def test_a_feature_that_never_moved_does_not_swamp_the_others():
    norm = FeatureNorm(3).eval()
    features = torch.randn(100, 3)
    features[:, 2] = 0
    norm.fit(features)
    assert norm(torch.tensor([[0.0, 0.0, 1.0]])).abs().max() < 50


def test_one_row_has_no_spread_and_changes_nothing():
    norm = FeatureNorm(3).eval()
    norm.fit(torch.rand(1, 3))
    assert norm.scale == 1
    assert torch.equal(norm.running_var, torch.ones(3))


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
