"""Tune a head with Optuna; the backbone sees each image once for all trials.

::

    pip install optuna
    python examples/tune_optuna.py --data hymenoptera_data --trials 20

Trials that look hopeless after the first folds are pruned.
"""

import numpy as np
from folders import load_split, parser_for
from sklearn.model_selection import StratifiedKFold

from sklearn_dl import ImageClassifier
from sklearn_dl.training import Head, LogLoss, Optimizer


def main() -> None:
    """Run the trials, and test the best parameters on held-out images."""
    parser = parser_for(__doc__)
    parser.add_argument("--trials", type=int, default=20)
    args = parser.parse_args()
    try:
        import optuna
    except ImportError as error:
        raise SystemExit("This example needs Optuna: pip install optuna") from error
    X, X_test, y, y_test, backbone = load_split(args)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def model(trial) -> ImageClassifier:
        return ImageClassifier(
            **backbone,
            head=Head(
                (128,) if trial.suggest_categorical("hidden", [False, True]) else (),
                dropout=trial.suggest_float("dropout", 0.0, 0.7),
            ),
            lr=trial.suggest_float("lr", 1e-3, 1e-1, log=True),
            optimizer=Optimizer(
                weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
            ),
            loss=LogLoss(trial.suggest_categorical("label_smoothing", [0.0, 0.1])),
        )

    def objective(trial) -> float:
        scores = []
        for fold, (train, test) in enumerate(folds.split(X, y)):
            scores.append(model(trial).fit(X[train], y[train]).score(X[test], y[test]))
            trial.report(float(np.mean(scores)), fold)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(scores))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
    )
    study.optimize(objective, args.trials, show_progress_bar=True)
    print(f"Best of {args.trials} trials: {study.best_value:.3f} {study.best_params}")
    best = model(optuna.trial.FixedTrial(study.best_params)).fit(X, y)
    print(f"On held-out images: {best.score(X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
