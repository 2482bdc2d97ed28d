"""Targets and weights of classifiers: labels of any type, or probabilities of each class."""

import math
from numbers import Real

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from fastml.functional._validate import check_probabilities, check_sample_weight


def is_soft(y):
    """Whether ``y`` holds probabilities (n, C) instead of labels."""
    return getattr(y, "ndim", 1) == 2 and y.shape[1] > 1


def encode(y, classes, dtype):
    """Target for the kernels, labels (n,) int64 or probabilities (n, C), and the classes.

    ``classes`` are those already known, or None to find them in ``y``.
    """
    if is_soft(y):
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


def split_rows(target, fraction, random_state):
    """Row numbers for training and for validation, stratified; a class with a single row stays in training."""
    labels = target if target.ndim == 1 else target.argmax(axis=1)
    counts = np.bincount(labels)
    rows, alone = np.flatnonzero(counts[labels] > 1), np.flatnonzero(counts[labels] == 1)
    n_validation = int(np.ceil(fraction * len(labels)))
    n_classes = np.count_nonzero(counts > 1)
    stratify = labels[rows] if n_classes <= min(n_validation, len(rows) - n_validation) else None
    if len(rows) - n_validation < 1:
        raise ValueError(
            f"early_stopping holds out {n_validation} of {len(labels)} rows, which leaves none to train on: "
            "lower validation_fraction or set early_stopping=False."
        )
    train, validation = train_test_split(rows, test_size=n_validation, stratify=stratify, random_state=random_state)
    return np.sort(np.concatenate([train, alone])), np.sort(validation)
