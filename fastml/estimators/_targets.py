"""Targets and weights of classifiers: labels of any type, or probabilities of each class."""

import math
from numbers import Real

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from fastml.functional._validate import canonical, check_probabilities, check_sample_weight


def is_matrix(y):
    """Whether ``y`` has a column for each class or label, instead of labels."""
    return getattr(y, "ndim", 1) == 2 and y.shape[1] > 1


def encode_classes(y, classes, dtype):
    """Target for the kernels, labels (n,) int64 or probabilities (n, C), and the classes.

    ``classes`` are those already known, or None to find them in ``y``.
    """
    if is_matrix(y):
        target = check_probabilities(y, y.shape, dtype, name="y")
        if classes is None:
            classes = np.arange(y.shape[1])
        elif len(classes) != y.shape[1]:
            raise ValueError(f"y has probabilities of {y.shape[1]} classes, but there are {len(classes)} classes.")
        return target, classes
    y = column_or_1d(y, warn=True)
    if y.dtype == object and len({isinstance(label, str) for label in y}) > 1:
        raise TypeError(
            "y mixes strings with other labels: convert all of them with y.astype(str), or drop the others."
        )
    check_classification_targets(y)
    if classes is None:
        classes, target = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"y has one class only, {classes.tolist()[0]!r}: a classifier needs samples of at least 2 classes."
            )
        return target.astype(np.int64, copy=False), classes
    if _kind(y) != _kind(classes):  # NumPy would compare numbers as strings
        raise ValueError(f"y has labels of type {y.dtype}, but the classes are {classes!r}.")
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(f"y has labels that are not among the classes {classes!r}: {unknown[:5]!r}.")
    return np.searchsorted(classes, y).astype(np.int64, copy=False), classes


def encode_indicators(y, classes, dtype):
    """Multilabel targets (n, L) in 0..1, dense or sparse, as a matrix for the kernels; and 0..L-1."""
    if classes is not None and len(classes) != y.shape[1]:
        raise ValueError(f"y has {y.shape[1]} labels in its columns, but there are {len(classes)} classes.")
    y = y.toarray() if issparse(y) else np.asarray(y)
    if y.dtype.kind not in "fiub":
        raise TypeError(f"y must be numbers, got dtype {y.dtype}: convert it with y.astype(float).")
    target = canonical(y, dtype)
    if not ((target >= 0) & (target <= 1)).all():
        bad = target[~((target >= 0) & (target <= 1))][0]
        raise ValueError(
            f"y must be 0 or 1 for each label, or between them as a soft target, but has {bad}: binarize it, for "
            "example with MultiLabelBinarizer."
        )
    return target, np.arange(y.shape[1])


def check_regression_target(y, dtype):
    """Targets (n,) or (n, K) as float64, finite also in ``dtype``."""
    if issparse(y):
        raise TypeError("y must be dense: pass y.toarray().")
    y = np.asarray(y)
    if y.dtype == object and all(isinstance(value, Real) for value in y.flat):
        y = y.astype(np.float64)
    if y.dtype.kind not in "fiub":
        raise TypeError(f"y must be numbers, got dtype {y.dtype}: convert it with y.astype(float).")
    if y.size == 0:
        raise ValueError(f"y has shape {y.shape}: at least one target is needed.")
    y = y.astype(np.float64)
    if np.abs(y).max() > np.finfo(dtype).max / 4:
        raise ValueError(f"y has values up to {np.abs(y).max():.3g}, too large for {dtype}: divide them.")
    return y


def _kind(labels):
    """What labels can be compared with: strings, numbers, or their own type."""
    kind = labels.dtype.kind
    return "text" if kind in "OUT" else "number" if kind in "biuf" else kind


def combined_weight(sample_weight, class_weight, target, classes):
    """Sample weights times class weights, (n,) float64; they may not all be 0, and only their ratios matter."""
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(target), sample_weight)
    weight = check_sample_weight(sample_weight, len(target), np.float64)
    weight = weight / weight.max()  # sums of huge ones would be infinite
    if class_weight is not None:
        if class_weight == "balanced":
            counts = np.bincount(target, weight, len(classes)) if target.ndim == 1 else weight @ target
            per_class = weight.sum() / (len(classes) * np.where(counts > 0, counts, 1))
        else:
            per_class = _given_weights(class_weight, classes)
        weight *= per_class[target] if target.ndim == 1 else target @ per_class
    if not weight.sum() > 0:
        raise ValueError("sample_weight times class_weight is 0 for all rows: at least one row must count.")
    return weight


def _given_weights(class_weight, classes):
    """Weights of the classes from a dict, the largest 1; classes that are not in it weigh as much as a 1 in it."""
    for label, value in class_weight.items():
        if not isinstance(value, Real) or not 0 <= value < math.inf:
            raise ValueError(f"class_weight[{label!r}] must be a finite number >= 0, got {value!r}.")
    weights = compute_class_weight(class_weight, classes=classes, y=classes)
    return weights / (weights.max() or 1)


def split_rows(n_rows, strata, fraction, random_state):
    """Row numbers for training and for validation, stratified by ``strata`` (n,) unless it is None.

    A class with a single row stays in training.
    """
    counts = np.bincount(np.zeros(n_rows, np.int64) if strata is None else strata)
    per_row = counts[strata] if strata is not None else np.full(n_rows, n_rows)
    rows, alone = np.flatnonzero(per_row > 1), np.flatnonzero(per_row == 1)
    n_validation = int(np.ceil(fraction * n_rows))
    n_train = len(rows) - n_validation
    if n_train < 1:
        raise ValueError(
            f"early_stopping holds out {n_validation} of {n_rows} rows, which leaves none to train on: "
            "lower validation_fraction or set early_stopping=False."
        )
    is_stratified = strata is not None and np.count_nonzero(counts > 1) <= min(n_validation, n_train)
    train, validation = train_test_split(
        rows, test_size=n_validation, stratify=strata[rows] if is_stratified else None, random_state=random_state
    )
    return np.sort(np.concatenate([train, alone])), np.sort(validation)
