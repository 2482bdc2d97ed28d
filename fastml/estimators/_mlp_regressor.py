"""Multi-layer perceptron for numbers."""

import warnings

import numpy as np

from fastml._sklearn_compat import StrOptions
from fastml.estimators._gradient_regressor import GradientRegressor
from fastml.estimators._mlp import NetworkModel, mean_weight

_RANGES = {"tanh": (-1, 1), "sigmoid": (0, 1)}


class MLPRegressor(GradientRegressor, NetworkModel):
    """Multi-layer perceptron regressor on compiled kernels, with the parameters and attributes of scikit-learn's.

    Minimises ``sum_i w_i sum_k loss(p_ik - y_ik) / sum_i w_i + alpha / (2 b) * sum_l ||coefs_[l]||^2`` over outputs p,
    where b is the number of rows in a batch. Training sees targets centred and divided by their standard deviation, so
    that rates, tolerances and ``alpha`` do not depend on their unit, and the last layer is scaled back at the end; not
    so where ``output_activation`` gives outputs a range. The same ``random_state`` gives the same bits for any
    ``n_jobs``.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of each hidden layer; () for none.
    loss : {"squared", "absolute", "huber"}, default="squared"
        For a residual r: ``r^2 / 2``, whose optimum is a mean and follows outliers; ``|r|``, whose optimum is a
        median; or Huber's, squared up to ``delta`` and straight beyond.
    delta : float, default=1.0
        Where Huber's loss becomes straight, in the unit of ``y``.
    activation : str, default="relu"
        Of the hidden layers: "identity", "sigmoid" (or "logistic"), "tanh", "relu", "leaky_relu", "prelu" (its slopes
        are learned), "elu", "gelu" (exact) or "gelu_tanh" (its approximation).
    output_activation : {"identity", "tanh", "sigmoid"}, default="identity"
        Of the outputs: any number, numbers in -1..1, or in 0..1.
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
        Training stops when ``n_iter_no_change`` epochs in a row did not lower the loss by this much, for targets of
        unit variance.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the rows, stop when ``n_iter_no_change`` epochs did
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
    coefs_ : list of ndarray (n_in, n_out)
        Coefficients of each layer, in the dtype of X. Predictions follow what is set here and below.
    intercepts_ : list of ndarray (n_out,)
        Intercepts of each layer; with batch norm those of hidden layers are added behind it.
    scales_, means_, variances_ : list of ndarray (n_units,)
        Of each hidden layer with batch norm: scales, and running moments of the sums; else empty.
    slopes_ : list of ndarray (n_units,)
        Of each hidden layer with activation "prelu": slopes below zero; else empty.
    out_activation_ : {"identity", "tanh", "sigmoid"}
        As ``output_activation``.
    loss_curve_ : list of float
        Objective (mean loss, summed over targets, plus penalty, in the unit of ``y`` or its square) of each epoch, its
        running mean.
    validation_loss_curve_ : list of float or None
        Mean loss on the held-out rows, with ``early_stopping``.
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

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from fastml import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = MLPRegressor((20,), learning_rate_init=0.01, alpha=1.0, random_state=0).fit(X, y)
    >>> model.predict(X[:2]).shape, round(model.score(X, y), 1)
    ((2,), 0.5)
    """

    _parameter_constraints = {
        **GradientRegressor._parameter_constraints,
        **NetworkModel._parameter_constraints,
        "output_activation": [StrOptions({"identity", *_RANGES})],
    }

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        *,
        loss="squared",
        delta=1.0,
        activation="relu",
        output_activation="identity",
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
        self.loss = loss
        self.delta = delta
        self.output_activation = output_activation

    def predict(self, X):
        """Outputs of the network.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray (n_samples,), or (n_samples, n_targets) where the targets had two dimensions
            In the dtype of X or of ``coefs_``, the wider of both.
        """
        outputs = self._outputs(X)
        return outputs.ravel() if self._scaling["n_dim"] == 1 else outputs

    def _output_activation(self):
        return self.output_activation

    def _out_activation(self):
        return self.output_activation

    def _encode(self, y, dtype, sample_weight, scaling=None):
        coded, weight, known = super()._encode(y, dtype, sample_weight, scaling)
        return coded, weight, {**known, "_row_weight": mean_weight(sample_weight)}

    def _location_and_scale(self, y, weight):
        if self.output_activation == "identity":
            return super()._location_and_scale(y, weight)
        low, high = _RANGES[self.output_activation]
        if y.min() < low or y.max() > high:
            message = (
                f"y has values from {y.min():.3g} to {y.max():.3g}, which no {self.output_activation} gives: scale "
            )
            warnings.warn(message + f"it to {low}..{high}, or take output_activation='identity'.", stacklevel=2)
        return np.zeros(y.shape[1]), 1.0

    def _blind_loss(self, problem):
        return self._loss_of_zero(problem.data.target)

    def _inward(self, layers, known):
        return layers[:-1] + [self._rescaled(layers[-1], known["_scaling"], is_outward=False)]

    def _outward(self, layers):
        return layers[:-1] + [self._rescaled(layers[-1], self._scaling, is_outward=True)]

    def _rescaled(self, layer, scaling, is_outward):
        """The last layer for targets as they are, from that for scaled ones, or back."""
        coef, intercept, shift, scale = layer["coef"], layer["intercept"], scaling["shift"], scaling["scale"]
        if self.output_activation != "identity":
            return layer
        if is_outward:
            coef, intercept = coef * coef.dtype.type(scale), (intercept * scale + shift).astype(coef.dtype)
        else:
            coef, intercept = coef / coef.dtype.type(scale), (intercept - shift) / scale
        return {"coef": coef, "intercept": intercept}
