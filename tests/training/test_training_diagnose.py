import ast
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import ImageOps
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_dl import ImageClassifier, ImageRegressor
from sklearn_dl.augmentation import Augment
from sklearn_dl.training import GradientMonitor, Head, Optimizer, Trainable, diagnose

COLUMNS = ["finding", "evidence", "parameters"]
VALID = {"valid_loss": [2.0, 1.2, 0.6, 0.3, 0.2, 0.16]}
HEALTHY = {"train_loss": [2.0, 1.1, 0.5, 0.25, 0.18, 0.15], **VALID}


def fitted(history, n_classes=10, **parameters):
    """Return a classifier with a history, as if it had been fitted."""
    model = ImageClassifier(**parameters)
    history = {name: np.asarray(v, dtype=float) for name, v in history.items()}
    length = len(history["train_loss"])
    model.history_ = pd.DataFrame({"epoch": np.arange(1, length + 1), **history})
    model.classes_ = np.arange(n_classes)
    return model


def finding(history, **parameters):
    """Return the findings, and the evidence and parameters of the first."""
    frame = diagnose(fitted(history, **parameters))
    assert frame.columns.tolist() == COLUMNS
    answers = frame["parameters"].iloc[0]
    return frame["finding"].tolist(), frame["evidence"].iloc[0], parsed(answers)


def parsed(parameters):
    """Return the parameters by name, with values as Python reads them."""
    call = ast.parse(f"f({parameters})", mode="eval").body
    scope = {"Head": Head, "Optimizer": Optimizer, "Trainable": Trainable}
    return {
        word.arg: eval(compile(ast.Expression(word.value), "", "eval"), scope)
        for word in call.keywords
    }


def test_a_healthy_training_has_no_finding():
    found, evidence, answers = finding(HEALTHY, trainable="all")
    assert found == ["nothing found"]
    assert "6 epochs" in evidence
    assert "train_loss 0.15" in evidence
    assert "chance loss 2.3" in evidence
    assert answers == {}


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ([2.3, 8.0, float("nan")], "nan in epoch 3"),
        ([2.3, float("inf"), 2.3], "inf in epoch 2"),
        ([2.5, 3.5, 4.0], "ends at 4, the chance loss is 2.3"),
        ([1e4, 500.0, 30.0], "was 1e+04 in epoch 1 and ends at 30"),
        ([30.0], "was 30 in epoch 1"),
        # Dead units: the chance loss, after an explosion.
        ([6.0, 2.35, 2.31, 2.3], "was 6 in epoch 1 and ends at 2.3"),
        # It came back, far from where it started.
        ([2.3, 1e4, 1.0, 0.5], "was 1e+04 in epoch 2 and ends at 0.5"),
    ],
)
def test_a_loss_that_diverges_asks_for_a_tenth_of_the_rate(loss, said):
    valid = np.full(len(loss), 2.3)
    found, evidence, answers = finding(
        {"train_loss": loss, "valid_loss": valid}, lr=0.3, optimizer="adam"
    )
    assert found == ["learning rate too high"]
    assert said in evidence
    assert answers == {"lr": 0.03}


def test_a_loss_that_goes_up_and_down_asks_for_a_third():
    loss = [2.0, 1.0, 1.8, 0.9, 1.7, 0.8]
    history = {"train_loss": loss, "valid_loss": loss}
    found, evidence, answers = finding(
        history, optimizer="adam", backbone_lr=(1e-5, 1e-3)
    )
    assert found == ["learning rate too high"]
    assert "rises in 2 of 5 epochs" in evidence
    assert answers == {"lr": 3e-4, "backbone_lr": (3e-6, 3e-4)}  # adam's own is 1e-3


@pytest.mark.parametrize(
    "loss", [[7.0], [7.0, 6.0], [7.0, 6.0, 5.2, 4.5], [7.0, 4.5, 3.5, 2.6, 2.0]]
)
def test_a_loss_that_starts_high_and_falls_evenly_is_no_rate_too_high(loss):
    """Large features and a random head start above guessing."""
    found, _, answers = finding({"train_loss": loss, "valid_loss": loss})
    assert found == ["underfitting"]
    assert "max_epochs" in answers


@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        ([7.0, 7.0, 7.0], 10),
        ([7.1, 7.05, 6.95, 7.1, 7.12], 10),  # the order of the rows
        ([2.32, 2.30, 2.28, 2.26, 2.24], 10),  # a line
        ([2.305, 2.302, 2.304, 2.303], 10),  # stands
        ([2.3, 2.2, 2.1, 2.0, 1.9, 1.8, 1.7], 3),
        # A head on mixed labels, at a rate that trains: it falls, near chance still.
        ([2.27, 2.16, 2.09, 2.0, 1.9], 3),
        ([7.0, 6.9, 6.8, 6.7, 6.6], 3),
    ],
)
def test_a_loss_that_falls_by_little_steps_asks_for_a_larger_rate(loss, factor):
    history = {"train_loss": loss, "valid_loss": loss}
    found, evidence, answers = finding(history, lr=1e-4)
    assert found[0] == "learning rate too low"
    assert "falls from" in evidence or "stands" in evidence
    reason = {10: "It barely moved, by", 3: "It moved, by"}[factor]
    assert reason in evidence
    assert answers == {"lr": pytest.approx(1e-4 * factor)}


@pytest.mark.parametrize(
    "loss",
    [
        [2.30, 2.31, 2.33, 2.35],
        [2.30, 2.32, 2.36, 2.5, 2.4],
        [2.3, 1.2, 0.9, 0.75, 0.9, 1.0, 1.1, 1.0, 0.74],  # back from a bounce
    ],
)
def test_a_loss_that_rises_or_bounces_asks_for_no_larger_rate(loss):
    answers = diagnose(fitted({"train_loss": loss}, lr=0.1))["parameters"]
    assert all(parsed(text).get("lr", 0.1) <= 0.1 for text in answers)


def test_a_curve_that_bends_is_no_rate_too_low():
    loss = [2.4, 1.9, 1.6, 1.45, 1.4, 1.38, 1.37]
    assert finding({"train_loss": loss, "valid_loss": loss})[0] == ["nothing found"]


def test_overfitting_by_the_validation_loss():
    history = {**HEALTHY, "valid_loss": [2.0, 1.2, 0.8, 0.9, 1.1, 1.3]}
    found, evidence, answers = finding(history, trainable="all")
    assert found == ["overfitting"]
    assert "valid_loss rises from 0.8 in epoch 3 to 1.3" in evidence
    assert answers["early_stopping"] is True
    assert answers["augment"] == ["standard", "mixup"]
    assert answers["head"].dropout == 0.5
    assert answers["optimizer"].get_params() == {
        **Optimizer("momentum").get_params(),
        "weight_decay": 1e-3,
    }
    assert answers["trainable"] == "head"


def test_overfitting_answers_name_only_what_is_not_set():
    history = {**HEALTHY, "valid_loss": [2.0, 1.2, 0.8, 0.9, 1.1, 1.3]}
    _, _, answers = finding(
        history,
        early_stopping=True,
        augment=["strong", "cutmix"],
        head=Head(dropout=0.5),
        weights=None,
    )
    assert list(answers) == ["optimizer"]
    _, _, answers = finding(
        history,
        augment="standard",
        head=Head(16, dropout=0.1),
        optimizer=Optimizer("adamw", weight_decay=0.02),
        trainable=Trainable("all"),
    )
    assert answers["augment"] == ["strong", "mixup"]
    assert answers["optimizer__weight_decay"] == 0.2
    assert answers["trainable__stages"] == "head"
    assert answers["head__dropout"] == 0.5
    assert "head" not in answers


def test_overfitting_by_the_gap_of_the_scores():
    top1 = {"train_top1": [0.3, 0.6, 0.8, 0.9, 0.98, 1.0]}
    valid = {"valid_top1": [0.3, 0.5, 0.55, 0.6, 0.6, 0.6]}
    found, evidence, answers = finding({**HEALTHY, **top1, **valid})
    assert found == ["overfitting"]
    assert evidence == "train_top1 is 1, valid_top1 0.6"
    assert "early_stopping" not in answers  # the validation loss still falls
    close = {"valid_top1": [0.3, 0.5, 0.7, 0.8, 0.9, 0.9]}
    assert finding({**HEALTHY, **top1, **close})[0] == ["nothing found"]


def test_the_epoch_whose_weights_were_kept_is_judged():
    history = {**HEALTHY, "valid_loss": [2.0, 1.2, 0.8, 0.9, 1.1, 1.3]}
    model = fitted(history, early_stopping=True)
    model.best_epoch_ = 3
    assert diagnose(model)["finding"].tolist() == ["nothing found"]


def test_underfitting_asks_for_epochs_where_the_loss_still_falls():
    loss = [2.3, 1.9, 1.55, 1.25, 1.1]
    found, evidence, answers = finding(
        {"train_loss": loss, "valid_loss": loss}, max_epochs=5, weights=None, lr=0.01
    )
    assert found == ["underfitting"]
    assert "1.1 and still falls by 0.15 per epoch" in evidence
    assert next(iter(answers.items())) == ("max_epochs", 15)
    assert answers["trainable"] == "all"
    assert answers["lr"] == 0.03


def test_underfitting_asks_for_capacity_where_the_loss_stays():
    loss = [2.4, 2.15, 2.08, 2.05, 2.04, 2.04, 2.04]
    found, evidence, answers = finding(
        {"train_loss": loss, "valid_loss": loss},
        augment=["strong", "mixup"],
        head=Head(dropout=0.3),
    )
    assert found == ["underfitting"]
    assert "ends at 2.04, the chance loss is 2.3" in evidence
    assert list(answers) == [
        *["trainable", "lr", "max_epochs", "augment", "head__dropout"]
    ]
    assert (answers["augment"], answers["head__dropout"]) == (None, 0.0)


def test_a_high_loss_of_mixed_labels_with_a_high_score_is_no_underfitting():
    loss = [2.3, 2.0, 1.95, 1.93, 1.92]
    top1 = {"train_top1": [0.3, 0.8, 0.9, 0.9, 0.9]}
    history = {
        "train_loss": loss,
        "valid_loss": loss,
        **top1,
        "valid_top1": top1["train_top1"],
    }
    assert finding(history)[0] == ["nothing found"]


GRADIENTS = {
    "grad_norm": [2.0, 1.5, 1.2, 1.0, 0.8, 0.7],
    "grad_norm_first": [0.2, 0.2, 0.1, 0.1, 0.1, 0.1],
    "grad_norm_last": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
    "grad_noise": [1.0] * 6,
    "grad_noise_ratio": [2.0] * 6,
    "grad_steps": [20] * 6,
}


def test_healthy_gradients_have_no_finding():
    assert finding({**HEALTHY, **GRADIENTS})[0] == ["nothing found"]


def test_vanishing_gradients():
    tiny = {"grad_norm_first": [1e-6, 2e-7, 1e-7, 1e-7, 1e-7, 1e-7]}
    head = Head((16, 16), activation="sigmoid")
    found, evidence, answers = finding(
        {**HEALTHY, **GRADIENTS, **tiny}, weights=None, head=head
    )
    assert found == ["vanishing gradients"]
    assert "1e-07 in the first trained layer and 0.75 in the last" in evidence
    assert answers.pop("trainable").get_params() == {
        "stages": "head",
        "freeze_batch_norm": False,
    }
    assert answers == {"weights": "DEFAULT", "head__activation": "relu"}


@pytest.mark.parametrize(
    ("norm", "said"),
    [
        ([0.2, 0.5, 3.0, 20.0, 80.0, 300.0], "grows from 0.2 to 300 in epoch 6"),
        ([2.0, 2e4, 2.0, 2.0, 2.0, 2.0], "is 2e+04 in epoch 2"),
        ([2.0, 2.0, float("nan"), 2.0, 2.0, 2.0], "nan in epoch 3"),
    ],
)
def test_exploding_gradients(norm, said):
    found, evidence, answers = finding(
        {**HEALTHY, **GRADIENTS, "grad_norm": norm},
        optimizer=Optimizer("adam", max_grad_norm=100.0),
        lr=0.01,
    )
    assert found == ["exploding gradients"]
    assert said in evidence
    assert answers == {"optimizer__max_grad_norm": norm[0], "lr": 0.001}


def test_noisy_gradients():
    flat = [2.2, 1.6, 1.45, 1.44, 1.45, 1.44]
    history = {"train_loss": flat, "valid_loss": flat, **GRADIENTS}
    assert finding(history)[0] == ["nothing found"]
    history["grad_noise_ratio"] = [3.0, 5.0, 12.0, 15.0, 15.0, 15.0]
    found, evidence, answers = finding(history, batch_size=16, lr=0.01)
    assert found == ["noisy gradients"]
    # 15 of 20 batches' means are their own noise: V / (m - V / 20) with V = 20 / 19.
    expected = (20 / 19) / (1 / 15 - 1 / 19)
    assert f"by {expected:.3g} times" in evidence
    assert answers == {"batch_size": 64, "lr": 0.003}
    falling = {"train_loss": HEALTHY["train_loss"], "valid_loss": HEALTHY["train_loss"]}
    assert finding({**history, **falling})[0] == ["nothing found"]


def test_few_batches_of_pure_noise_are_noise():
    flat = [2.2, 1.6, 1.45, 1.44, 1.45, 1.44]
    history = {"train_loss": flat, "valid_loss": flat, **GRADIENTS}
    # Independent gradients of mean 0: the ratio is n - 1 on average.
    history |= {"grad_steps": [4] * 6, "grad_noise_ratio": [3.0] * 6}
    assert finding(history)[0] == ["noisy gradients"]
    history["grad_steps"] = [40] * 6
    assert finding(history)[0] == ["nothing found"]


def test_without_validation_rows_it_says_so():
    found, evidence, answers = finding({"train_loss": HEALTHY["train_loss"]})
    assert found == ["no validation rows"]
    assert "overfitting can't be seen" in evidence
    assert answers == {"early_stopping": True}


def test_findings_come_gravest_first():
    history = {**GRADIENTS, "train_loss": [2.0, 9.0, 9.0, 9.0, 9.0, 9.0]}
    history["grad_norm"] = [2.0, 2.0, 1e4, 1e5, 1e6, 1e7]
    history["grad_norm_first"] = [1e-9] * 6
    found, _, _ = finding(history)
    assert found == [
        "learning rate too high",
        "exploding gradients",
        "vanishing gradients",
        "no validation rows",
    ]


def test_epochs_of_the_warm_up_are_left_out():
    """Unfreezing may raise the loss, once."""
    loss = [1.0, 0.6, 2.2, 1.0, 0.4, 0.2, 0.15, 0.12]
    history = {"train_loss": loss, "valid_loss": loss}
    assert finding(history)[0] == ["learning rate too high"]
    history["backbone_lr"] = [0.0] * 2 + [1e-3] * 6
    assert finding(history, warmup_epochs=2)[0] == ["nothing found"]


def test_no_finished_epoch_is_said():
    found, evidence, _ = finding({"train_loss": []})
    assert found == ["no epoch"]
    assert "interrupted" in evidence


def test_other_losses_have_other_guesses():
    history = {"train_loss": [0.95, 0.93, 0.92], "valid_loss": [0.95, 0.93, 0.92]}
    assert "the chance loss is 1" in finding(history, loss="hinge")[1]
    assert (
        "the chance loss is 2.303"
        in finding({k: [2.303, 2.3029, 2.3028] for k in history})[1]
    )
    own = torch.nn.MultiMarginLoss(reduction="none")
    history = {
        "train_loss": [30.0, 12.0, 4.0, 1.0],
        "valid_loss": [30.0, 12.0, 4.0, 1.0],
    }
    assert finding(history, loss=own)[0] == ["nothing found"]


def test_a_regressor_is_compared_with_the_mean():
    model = ImageRegressor()
    model.history_ = pd.DataFrame(
        {"train_loss": [1.3, 1.0, 0.99], "valid_loss": [1.2, 1.1, 1.1]}
    )
    assert diagnose(model)["finding"].tolist() == ["underfitting"]
    model.history_ = pd.DataFrame({"train_loss": [1.0, 4.0], "valid_loss": [1.0, 4.0]})
    assert diagnose(model)["finding"].tolist() == ["learning rate too high"]


def test_what_is_not_fitted_or_of_another_kind_is_an_error():
    with pytest.raises(NotFittedError, match="ImageClassifier is not fitted"):
        diagnose(ImageClassifier())
    with pytest.raises(TypeError, match="got Pipeline; of a search"):
        diagnose(make_pipeline(StandardScaler(), ImageClassifier()))
    with pytest.raises(TypeError, match="got object"):
        diagnose(object())


class OldEstimator(BaseEstimator):
    """Has fewer parameters."""

    def __init__(self, lr=0.1, max_epochs=5, optimizer="sgd"):
        self.lr = lr
        self.max_epochs = max_epochs
        self.optimizer = optimizer


def test_parameters_that_are_not_there_are_not_named():
    model = OldEstimator()
    model.history_ = pd.DataFrame(
        {**HEALTHY, "valid_loss": [2.0, 1.2, 0.8, 0.9, 1.1, 1.3]}
    )
    model.classes_ = [0, 1]
    row = diagnose(model).iloc[0]
    answer = "optimizer=Optimizer('sgd', weight_decay=0.001)"
    assert (row["finding"], row["parameters"]) == ("overfitting", answer)


@pytest.mark.parametrize(
    ("augment", "answer"),
    [
        ("light", ["standard", "mixup"]),
        ("strong", ["strong", "mixup"]),
        (["light", "cutmix"], ["standard", "cutmix"]),
        (["flip", "noise"], ["flip", "noise", "mixup"]),
        (["strong", "mixup"], None),
        (ImageOps.mirror, None),
        ([ImageOps.mirror], None),
        (Augment("light", mix="mixup"), None),
        (Augment(["light", "cutmix"]), None),
    ],
)
def test_overfitting_asks_for_stronger_augmentation(augment, answer):
    history = {**HEALTHY, "valid_loss": [2.0, 1.2, 0.8, 0.9, 1.1, 1.3]}
    answers = finding(history, augment=augment)[2]
    assert answers.get("augment") == answer
    assert "augment__mix" not in answers
    inside = finding(history, augment=Augment("light"))[2]
    assert inside["augment__mix"] == "mixup"
    assert "augment__views" not in inside
    few = finding(history, augment=Augment("light", views=2))[2]
    assert (few["augment__mix"], few["augment__views"]) == ("mixup", None)


# Trainings that show what they are named after.


def images(n, seed, noise=100):
    """Return images of two kinds, light on the left or on the right, and classes."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, noise, (n, 32, 32, 3)).astype("uint8")
    y = np.arange(n) % 2
    X[y == 0, :, :16] += 60
    X[y == 1, :, 16:] += 60
    return X, y


def trained(n=48, labels=None, **parameters):
    options = {
        "backbone": "resnet18",
        "weights": None,
        "layer": "layer2",
        "image_size": (32, 32),
        "trainable": "all",
        "optimizer": "adam",
        "lr": 3e-3,
        "batch_size": 8,
        "max_epochs": 8,
        "random_state": 2,
        "device": "cpu",
        "callbacks": [GradientMonitor(n_validation_rows=0)],
    }
    X, y = images(n, seed=0)
    X_val, y_val = images(32, seed=1)
    if labels is not None:
        y, y_val = labels.integers(0, 2, n), labels.integers(0, 2, 32)
    model = ImageClassifier(**{**options, **parameters})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y, X_val=X_val, y_val=y_val)


def test_a_healthy_training():
    model = trained()
    assert diagnose(model)["finding"].tolist() == ["nothing found"], model.history_


@pytest.mark.parametrize(("optimizer", "lr"), [("momentum", 100.0), ("adam", 30.0)])
def test_a_training_at_far_too_high_a_rate(optimizer, lr):
    model = trained(optimizer=optimizer, lr=lr, max_epochs=4)
    first = diagnose(model).iloc[0]
    assert first["finding"] == "learning rate too high", model.history_
    assert parsed(first["parameters"])["lr"] == lr / 10


@pytest.mark.parametrize("lr", [1e-6, 3e-5])
def test_a_training_at_far_too_low_a_rate(lr):
    model = trained(optimizer="sgd", lr=lr, max_epochs=5)
    first = diagnose(model).iloc[0]
    assert first["finding"] == "learning rate too low", model.history_
    assert parsed(first["parameters"])["lr"] == pytest.approx(10 * lr)


@pytest.mark.parametrize(("lr", "factor"), [(1e-4, 10), (1e-3, 3), (3e-3, 3)])
def test_a_training_that_falls_evenly_asks_for_ten_times_only_if_barely(lr, factor):
    model = trained(optimizer="sgd", lr=lr, max_epochs=5, batch_size=48)
    loss, first = model.history_["train_loss"], diagnose(model).iloc[0]
    assert (np.diff(loss) < 0).all()
    assert first["finding"] == "learning rate too low", model.history_
    assert f"moved, by {np.ptp(loss) / np.log(2):.1%}" in first["evidence"]
    assert parsed(first["parameters"])["lr"] == pytest.approx(factor * lr)


def test_a_training_on_random_labels():
    model = trained(labels=np.random.default_rng(3), max_epochs=12)
    first = diagnose(model).iloc[0]
    assert first["finding"] == "overfitting", model.history_
    assert "augment" in parsed(first["parameters"])


def test_a_training_of_one_epoch():
    model = trained(max_epochs=1, lr=1e-4)
    first = diagnose(model).iloc[0]
    assert first["finding"] == "underfitting", model.history_
    assert parsed(first["parameters"])["max_epochs"] == 3


def test_a_training_with_a_head_of_many_sigmoids():
    head = Head((16,) * 8, activation="sigmoid")
    model = trained(head=head, trainable="head", max_epochs=3)
    found = diagnose(model)
    assert "vanishing gradients" in found["finding"].tolist(), model.history_
    row = found[found["finding"] == "vanishing gradients"].iloc[0]
    assert parsed(row["parameters"])["head__activation"] == "relu"
