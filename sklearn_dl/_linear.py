"""Scaler and linear SVM for few rows of many features, or for very many rows."""

import warnings
from numbers import Real
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import check_array, compute_class_weight, gen_batches
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    FLOAT_DTYPES,
    _check_sample_weight,
    validate_data,
)

from sklearn_dl._doc_link import DocLinkMixin
from sklearn_dl._labels import refuse_missing

_ROWS = 4096  # of one chunk


class FeatureScaler(DocLinkMixin, StandardScaler):
    """Standardisation of features that holds where there are few images.

    A deviation out of few rows is unsure, and one of next to nothing blows up what
    comes later. So each variance is drawn towards the mean of all, as if that had been
    seen in `shrinkage` rows more. That is for features of one kind, such as a
    backbone's; columns of different units need a ``StandardScaler``. Arrays are looked
    at in chunks, without a copy.

    Parameters
    ----------
    shrinkage : float, default=10.0
        Number of rows that the mean of the variances counts for. With 0 each feature
        has its own deviation, as in ``StandardScaler``.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
        Mean of each feature.
    var_ : ndarray of shape (n_features,)
        Variance of each feature, as it is in the rows.
    scale_ : ndarray of shape (n_features,)
        What centred features are divided by.
    n_samples_seen_ : int or ndarray of int
        Number of rows seen.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, where they had names that are strings.

    See Also
    --------
    make_feature_classifier : The pipeline that it is a step of.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import FeatureScaler
    >>> X = np.array([[0.0, 5.0], [4.0, 5.0], [2.0, 5.001], [2.0, 5.0]])
    >>> X.std(axis=0).round(4).tolist(), FeatureScaler().fit(X).scale_.round(2).tolist()
    ([1.4142, 0.0004], [1.13, 0.85])
    """

    _parameter_constraints: ClassVar[dict] = {
        "shrinkage": [Interval(Real, 0, None, closed="left")]
    }

    def __init__(self, shrinkage=10.0):
        super().__init__()
        self.shrinkage = shrinkage

    def partial_fit(self, X, y=None, sample_weight=None):
        """Take further rows into account.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features.
        y : object, default=None
            Not looked at.
        sample_weight : array-like of shape (n_rows,), default=None
            Weights of the rows.

        Returns
        -------
        self : object
            Fitted scaler.

        Raises
        ------
        ValueError
            If X isn't a table of numbers, or has another number of columns than before.
        """
        parts = [X]
        if isinstance(X, np.ndarray) and X.ndim == 2 and sample_weight is None:
            options = {"dtype": FLOAT_DTYPES, "ensure_all_finite": "allow-nan"}
            X = check_array(X, estimator=self, **options)  # all, or nothing is learned
            parts = [X[rows] for rows in gen_batches(len(X), _ROWS)]
        for part in parts:
            super().partial_fit(part, sample_weight=sample_weight)
        # Of a constant feature scale_ is 1, and the variance what rounding left of 0.
        var = np.where(self.var_ < self.scale_**2 / 2, 0.0, self.var_)
        var = self.n_samples_seen_ * var + self.shrinkage * np.nanmean(var)
        var /= self.n_samples_seen_ + self.shrinkage
        self.scale_ = np.sqrt(np.where(var == 0, 1.0, var))
        return self


class FeatureSVC(DocLinkMixin, LinearSVC):
    """Linear SVM with a penalised intercept, fitted without a copy of its rows.

    It minimises what ``LinearSVC`` does, the squared hinge loss with an L2 penalty
    [1]_, one class against the rest, by L-BFGS in place of liblinear, on rows divided
    by the root of their mean squared norm: so `C` means the same for any number of
    features. The intercept is in the penalty, the more the smaller `intercept_scaling`:
    how often a class is among the training images counts for little among new ones.

    Parameters
    ----------
    C : float, default=2.0
        Weight of the loss against the penalty, where rows have a mean squared norm of
        1.
    intercept_scaling : float, default=0.03
        Value of the constant feature of those rows, whose coefficient is the intercept.
    class_weight : dict, "balanced" or None, default=None
        Factors of C by class, for its rows in the problems of all classes.
    tol : float, default=1e-4
        Training ends where no slope of the objective is above it, per unit of C, or
        the objective falls no further in the precision of the features.
    max_iter : int, default=1000
        Most iterations; a ConvergenceWarning says that they were not enough.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features)
        Weights of the features; one row for two classes.
    intercept_ : ndarray of shape (n_classes,)
        Constants of the decision function; one for two classes.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, where they had names that are strings.

    See Also
    --------
    make_feature_classifier : The pipeline that it is a step of.

    References
    ----------
    .. [1] R.-E. Fan et al., "LIBLINEAR: a library for large linear classification",
       JMLR 9, 2008.

    Examples
    --------
    >>> from sklearn_dl import FeatureSVC
    >>> FeatureSVC().fit([[0.0], [1.0], [2.0]], ["a", "b", "b"]).predict([[3.0]])
    array(['b'], dtype='<U1')
    """

    def __init__(
        self,
        C=2.0,
        *,
        intercept_scaling=0.03,
        class_weight=None,
        tol=1e-4,
        max_iter=1000,
    ):
        super().__init__(
            C=C,
            intercept_scaling=intercept_scaling,
            class_weight=class_weight,
            tol=tol,
            max_iter=max_iter,
        )

    def __getattr__(self, name):
        if name in ("predict_proba", "predict_log_proba"):
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}: probability=True of "
                "make_feature_classifier, or CalibratedClassifierCV(model, "
                "ensemble=False), adds probabilities."
            )
        return super().__getattribute__(name)  # which says what is missing

    def __sklearn_tags__(self):
        """Declare that features are dense."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags

    def fit(self, X, y, sample_weight=None):
        """Train on features.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Features, float32 or float64.
        y : array-like of shape (n_rows,)
            Labels.
        sample_weight : array-like of shape (n_rows,), default=None
            Factors of C by row.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If X isn't a table of numbers, or y lacks a label or has but one class.
        """
        self._validate_params()
        if y is not None:
            refuse_missing(y)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {str(y[0])!r}, of at least 2.")
        weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        positive = index[:, None] == np.arange(len(self.classes_))
        sign = np.where(positive[:, 1:] if positive.shape[1] == 2 else positive, 1, -1)
        sign = sign.astype(X.dtype)
        n_features, n_outputs = X.shape[1], sign.shape[1]
        norms = np.concatenate([(X[r] ** 2).sum(1) for r in gen_batches(len(X), _ROWS)])
        unit = np.sqrt(np.average(norms, weights=weight)) or 1.0
        with np.errstate(divide="ignore"):  # a class may have no weight at all
            by_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y, sample_weight=weight
            )
        by_class[np.isinf(by_class)] = 0.0
        weight = (weight * by_class[index]).astype(X.dtype)[:, None]
        constant = self.intercept_scaling

        def objective(flat):
            """Return the objective per unit of C, and its slope."""
            W = flat.reshape(n_features + 1, n_outputs)
            slope = W / self.C
            loss = (W * slope).sum() / 2
            coef, intercept = (W[:-1] / unit).astype(X.dtype), W[-1] * constant
            for rows in gen_batches(len(X), _ROWS):
                scores = X[rows] @ coef + intercept.astype(X.dtype)
                missing = np.maximum(1 - sign[rows] * scores, 0)
                pull = weight[rows] * missing
                loss += float((pull * missing).sum(dtype=np.float64))
                pull *= -2 * sign[rows]
                slope[:-1] += (X[rows].T @ pull) / unit
                slope[-1] += pull.sum(0, dtype=np.float64) * constant
            return loss, slope.ravel()

        start = np.zeros((n_features + 1) * n_outputs)
        options = {"maxiter": self.max_iter, "gtol": self.tol}
        options["ftol"] = float(np.finfo(X.dtype).eps)
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        W = found.x.reshape(n_features + 1, n_outputs)
        if found.nit >= self.max_iter:
            message = f"FeatureSVC did not converge in max_iter={self.max_iter}."
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        # In the dtype of X: predictions then copy no rows.
        self.coef_ = (np.ascontiguousarray(W[:-1].T) / unit).astype(X.dtype)
        self.intercept_ = (W[-1] * constant).astype(X.dtype)
        self.n_iter_ = found.nit
        return self
