"""Multi-layer perceptron for classes and labels."""

from numbers import Real

import numpy as np
from scipy.sparse import issparse

from fastml._sklearn_compat import Interval, StrOptions
from fastml.estimators._gradient import GradientClassifier
from fastml.estimators._logits import LogitPredictions, log_sigmoid
from fastml.estimators._mlp import NetworkModel, mean_weight
from fastml.estimators._targets import combined_weight, encode_classes, encode_indicators, is_matrix
from fastml.functional import sigmoid
from fastml.functional._validate import check_temperature
from fastml.kernels._loss_tile import BINARY_CROSS_ENTROPY, SOFTMAX, settings


class MLPClassifier(LogitPredictions, GradientClassifier, NetworkModel):
    """Multi-layer perceptron classifier on compiled kernels, with the parameters and attributes of scikit-learn's.

    Minimises ``sum_i w_i CE_i / sum_i w_i + alpha / (2 b) * sum_l ||coefs_[l]||^2``, where b is the number of rows in a
    batch, as scikit-learn's does, and CE is a cross-entropy in nats: of a softmax for three classes and more, of a
    single sigmoid for two, summed over sigmoids for labels that are independent. The same ``random_state`` gives the
    same bits for any ``n_jobs``.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of each hidden layer; () for none.
    activation : str, default="relu"
        Of the hidden layers: "identity", "sigmoid" (or "logistic"), "tanh", "relu", "leaky_relu", "prelu" (its slopes
        are learned), "elu", "gelu" (exact) or "gelu_tanh" (its approximation).
    batch_norm : bool, default=False
        Normalise the sums of each hidden unit over the batch, before the activation; prediction uses running moments.
        Where the rows would leave a last batch of a single one, batches are a little larger or smaller.
    dropout : float, default=0.0
        Share of the hidden units that are left out at each step of training, in [0, 1).
    init : {"auto", "he", "glorot"}, default="auto"
        First coefficients: "he" suits the ReLU family, "glorot" the sigmoid and tanh; "auto" chooses by activation, and
        takes 0.4 of it for the outputs.
    optimizer : {"adam", "sgd"} or fastml.optim.Optimizer, default="adam"
        The names stand for ``Adam(learning_rate_init)`` and ``SGD(learning_rate_init, momentum=0.9, nesterov=True)``;
        pass an instance for schedules, clipping (``max_grad_norm``) and all else, to set or to search.
    solver : {"adam", "sgd"} or None, default=None
        scikit-learn's name of ``optimizer``, which is followed where this is None.
    learning_rate_init : float, default=0.001
        Rate of the optimizers that are named; an instance has its own.
    alpha : float, default=1e-4
        Strength of the L2 penalty, divided by the rows of a batch (the sum of their ``sample_weight``, on average);
        intercepts are not penalised.
    batch_size : int, "auto" or None, default="auto"
        Rows of a step; "auto" is 200, None takes all of them.
    max_iter : int, default=200
        Epochs at most.
    tol : float, default=1e-4
        Training stops when ``n_iter_no_change`` epochs in a row did not lower the loss by this much.
    label_smoothing : float, default=0.0
        In [0, 1): share of each target that is spread evenly over all classes.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied into ``sample_weight``; not for independent labels.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the rows (stratified), stop when ``n_iter_no_change`` epochs did
        not lower their loss by ``tol``, and keep the parameters that were best on them.
    validation_fraction : float, default=0.1
        Share of rows held out for early stopping, in (0, 1).
    n_iter_no_change : int, default=10
        Patience, in epochs.
    warm_start : bool, default=False
        Begin at the parameters of the last fit.
    shuffle : bool, default=True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the first coefficients, the orders, dropout and the held-out rows.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        The labels; 0..C-1 where ``y`` was a matrix.
    multilabel_ : bool
        Whether the columns of ``y`` were independent labels.
    coefs_ : list of ndarray (n_in, n_out)
        Coefficients of each layer, in the dtype of X. Predictions follow what is set here and below.
    intercepts_ : list of ndarray (n_out,)
        Intercepts of each layer; with batch norm those of hidden layers are added behind it.
    scales_, means_, variances_ : list of ndarray (n_units,)
        Of each hidden layer with batch norm: scales, and running moments of the sums; else empty.
    slopes_ : list of ndarray (n_units,)
        Of each hidden layer with activation "prelu": slopes below zero; else empty.
    out_activation_ : {"softmax", "logistic"}
        How outputs become probabilities.
    loss_curve_ : list of float
        Objective (mean loss in nats plus penalty) of each epoch, its running mean.
    validation_loss_curve_ : list of float or None
        Mean loss on the held-out rows, in nats, with ``early_stopping``.
    loss_, best_loss_ : float
        The last of ``loss_curve_``; the lowest of it or, with ``early_stopping``, of ``validation_loss_curve_``.
    silent_units_ : list of float or None
        With activation "relu": of each hidden layer the share of units that gave 0 for every row that ``fit`` trained
        on; of more than 10,000 rows every second, third, ... is looked at. :func:`fastml.display.diagnose` names it.
    n_iter_, t_ : int
        Epochs done, and rows gone over in all of them.
    n_layers_, n_outputs_ : int
        Layers, with the input's and the output's; outputs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the features, if X had any.

    Notes
    -----
    A ``y`` with two dimensions holds independent labels where it is of integers or booleans, or sparse, as in
    scikit-learn. Of floats it holds soft targets, a probability of each class, where each row sums to 1, and else
    independent labels 0 and 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastml import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier((20,), learning_rate_init=0.01, random_state=0).fit(X, y)
    >>> classifier.predict(X[:3]), round(classifier.score(X, y), 2)
    (array([0, 0, 0]), 0.98)
    """

    _parameter_constraints = {
        **NetworkModel._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        *,
        activation="relu",
        batch_norm=False,
        dropout=0.0,
        init="auto",
        optimizer="adam",
        solver=None,
        learning_rate_init=0.001,
        alpha=1e-4,
        batch_size="auto",
        max_iter=200,
        tol=1e-4,
        label_smoothing=0.0,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        shuffle=True,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            batch_norm=batch_norm,
            dropout=dropout,
            init=init,
            optimizer=optimizer,
            solver=solver,
            learning_rate_init=learning_rate_init,
            alpha=alpha,
            batch_size=batch_size,
            max_iter=max_iter,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            warm_start=warm_start,
            shuffle=shuffle,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight

    def decision_function(self, X):
        """Logits: the outputs before softmax or sigmoid.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples, n_outputs), or (n_samples,) for two classes
            For two classes the logit of ``classes_[1]``.
        """
        scores = self._outputs(X)
        return scores.ravel() if len(self.classes_) == 2 and not self.multilabel_ else scores

    def predict(self, X):
        """The most probable class of each row, or all labels that are more probable than not.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples,), or (n_samples, n_labels) for multilabel targets
            Labels out of ``classes_``; int64 0 and 1 for multilabel targets.
        """
        return (self._outputs(X) > 0).astype(np.int64) if self._has_labels() else super().predict(X)

    def predict_proba(self, X, temperature=1.0):
        """Probabilities of the classes or labels, from the logits divided by ``temperature``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        temperature : float, default=1.0
            Above 1 softens the probabilities, below 1 sharpens them.

        Returns
        -------
        ndarray (n_samples, n_classes)
            Columns in the order of ``classes_``. Rows sum to 1, except for multilabel targets.
        """
        return sigmoid(self._cooled(X, temperature)) if self._has_labels() else super().predict_proba(X, temperature)

    def predict_log_proba(self, X, temperature=1.0):
        """Logarithms of ``predict_proba``, without its underflow.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.
        temperature : float, default=1.0
            Above 1 softens the probabilities, below 1 sharpens them.

        Returns
        -------
        ndarray (n_samples, n_classes)
            In nats, at most 0.
        """
        if self._has_labels():
            return log_sigmoid(self._cooled(X, temperature))
        return super().predict_log_proba(X, temperature)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _has_labels(self):
        return getattr(self, "multilabel_", False)

    def _cooled(self, X, temperature):
        scores = self._outputs(X)
        return scores * check_temperature(temperature, scores.dtype)

    def _encode(self, y, dtype, sample_weight, classes=None):
        goes_on = classes is not None and hasattr(self, "coefs_")
        is_multilabel = self.multilabel_ and is_matrix(y) if goes_on else _is_multilabel(y)
        if goes_on and is_multilabel != self.multilabel_:
            raise ValueError(
                f"y has shape {np.shape(y)}, but earlier calls had a matrix of labels: pass the same kind."
            )
        if issparse(y) and not is_multilabel:
            raise TypeError("y must be dense: pass y.toarray().")
        if is_multilabel and self.class_weight is not None:
            raise ValueError("class_weight needs labels (n_samples,), not a matrix of them: use sample_weight.")
        encode = encode_indicators if is_multilabel else encode_classes
        coded, classes = encode(y, classes, dtype)
        weight = combined_weight(sample_weight, self.class_weight, coded, classes)
        known = {"classes_": classes, "multilabel_": is_multilabel, "_row_weight": mean_weight(sample_weight)}
        return coded, weight, known

    def _check_same(self, known):
        super()._check_same(known)
        if known["multilabel_"] != self.multilabel_:
            raise ValueError("warm_start needs the same kind of y: labels (n_samples,), or a matrix as before.")

    def _strata(self, coded):
        if self.multilabel_:
            return None
        return coded if coded.ndim == 1 else coded.argmax(axis=1)

    def _is_softmax(self):
        return len(self.classes_) > 2 and not self.multilabel_

    def _target(self, coded, dtype):
        if self._is_softmax():
            return coded
        if not self.multilabel_:  # two classes share one output
            coded = coded[:, np.newaxis] if coded.ndim == 1 else coded[:, 1:]
        keep, spread = 1 - self.label_smoothing, self.label_smoothing / 2
        return np.ascontiguousarray(keep * coded + spread, dtype)

    def _n_outputs(self, target):
        return len(self.classes_) if self._is_softmax() else target.shape[1]

    def _settings(self, dtype):
        if not self._is_softmax():
            return settings(dtype, BINARY_CROSS_ENTROPY)
        return settings(dtype, SOFTMAX, keep=1 - self.label_smoothing, spread=self.label_smoothing / len(self.classes_))

    def _blind_loss(self, problem):
        n_outputs = problem.network.sizes[-1]
        return np.log(n_outputs) if self._is_softmax() else n_outputs * np.log(2)

    def _out_activation(self):
        return "softmax" if self._is_softmax() else "logistic"

    def _inward(self, layers, known):
        return layers

    def _outward(self, layers):
        return layers


def _is_multilabel(y):
    """Whether a matrix holds labels that are independent, rather than a probability of each class."""
    if not is_matrix(y):
        return False
    if issparse(y) or y.dtype.kind != "f":
        return True
    return bool(np.isin(y, (0, 1)).all() and not (y.sum(axis=1) == 1).all())
