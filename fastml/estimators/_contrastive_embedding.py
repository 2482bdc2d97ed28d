"""Embeddings of rows for pipelines, from the rows alone or from their labels."""

from numbers import Real

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fastml._sklearn_compat import Interval, fit_context, with_callbacks
from fastml.estimators._contrastive import ContrastiveModel, as_rows, check_pairs, draw_seed
from fastml.estimators._fitting import unchanged_on_error, warn_unconverged
from fastml.training.contrastive import ViewProblem

_READ = {"dtype": [np.float64, np.float32], "order": "C"}


class ContrastiveEmbedding(ContrastiveModel):
    """A network that embeds rows so that two views of a row are close, and other rows are not.

    In a view some features of a row, drawn at random, are replaced by what other rows, drawn too, have there. With
    labels the two are views of two rows of one label, and rows of one label are no negatives of each other. The network
    is trained by InfoNCE of the cosines of a batch, in both directions. Each step makes new views; the same
    ``random_state`` gives the same bits for any ``n_jobs``.

    Features should have similar scales, so put a ``StandardScaler`` before it. X is dense: to replace a feature that is
    nearly always 0 changes nothing.

    Parameters
    ----------
    n_components : int, default=32
        Number of outputs.
    hidden_layer_sizes : array-like of int, default=(512,)
        Units of the hidden layers; none: the embedding is linear.
    activation : {"relu", "tanh", "sigmoid", ...}, default="relu"
        Of the hidden layers.
    temperature : float or "learn", default=0.1
        Of InfoNCE, above 0. Learned, it begins at 0.07 and stays above 0.01.
    corruption_rate : float, default=0.3
        Share of the features of a view that are replaced, in [0, 1].
    optimizer : {"adam", "sgd"} or Optimizer, default="adam"
        From ``fastml.optim``. The strings stand for ones whose learning rate falls slowly.
    alpha : float, default=0.0
        L2 penalty ``alpha / 2 * sum(coef ** 2)``.
    batch_size : int or None, default=1024
        Rows of a step, at least 2; None: all. What is left over of the shuffled rows at the end of an epoch waits for
        the next one.
    max_iter : int, default=300
        Epochs at most.
    tol : float, default=1e-4
        Stop when ``n_iter_no_change`` epochs in a row did not lower the loss by this.
    n_iter_no_change : int, default=50
        Patience, in epochs; views are drawn anew, so the loss of an epoch is a noisy one.
    warm_start : bool, default=False
        Begin at the network of the last fit.
    random_state : int, RandomState instance or None, default=None
        Seed of the first parameters, the views, and the order of the rows.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    coefs_ : list of ndarray (n_in, n_out)
        Weights of each layer, in the dtype of X.
    intercepts_ : list of ndarray (n_out,)
        Intercepts of each layer.
    temperature_ : float
        As learned or given.
    loss_curve_ : list of float
        Mean loss of each epoch, penalty included, in nats.
    n_iter_ : int
        Epochs done.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, if they had any.

    See Also
    --------
    fastml.functional.info_nce : The loss.
    TwoTower : Embeddings of pairs of different things.

    References
    ----------
    D. Bahri, H. Jiang, Y. Tay, D. Metzler. SCARF: Self-supervised contrastive learning using random feature corruption.
    ICLR 2022.

    P. Khosla et al. Supervised contrastive learning. NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fastml import ContrastiveEmbedding
    >>> X, y = load_iris(return_X_y=True)
    >>> embedding = ContrastiveEmbedding(n_components=2, max_iter=50, tol=0, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), embedding, KNeighborsClassifier()).fit(X[::2], y[::2])
    >>> pipeline.score(X[1::2], y[1::2]) > 0.9
    True
    """

    _parameter_constraints = {
        **{
            name: rule
            for name, rule in ContrastiveModel._parameter_constraints.items()
            if name not in ("early_stopping", "validation_fraction")
        },
        "corruption_rate": [Interval(Real, 0, 1, closed="both")],
    }
    _rates = {"adam": 0.005, "sgd": 0.1}

    def __init__(
        self,
        n_components=32,
        *,
        hidden_layer_sizes=(512,),
        activation="relu",
        temperature=0.1,
        corruption_rate=0.3,
        optimizer="adam",
        alpha=0.0,
        batch_size=1024,
        max_iter=300,
        tol=1e-4,
        n_iter_no_change=50,
        warm_start=False,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.temperature = temperature
        self.corruption_rate = corruption_rate
        self.optimizer = optimizer
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @unchanged_on_error
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the network.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            float32 stays float32, everything else becomes float64.
        y : array-like (n_samples,), default=None
            Labels, of two classes at least. None: each row is a class of its own.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input or parameters, and where the fit diverges; the estimator is then as it was before.
        TypeError
            If X is sparse.
        """
        random_state, seed = draw_seed(self.random_state)
        rows = self._read(X, y, reset=True)
        problem, values = self._begin(rows, random_state, seed, go_on=False)
        trouble = self._lower(problem, values, None, random_state, (X, y))
        if trouble:
            warn_unconverged(self, trouble)
        return self

    @unchanged_on_error
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """One epoch over these rows, going on from what earlier calls learned.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            Rows; views are mixed from those of the same call.
        y : array-like (n_samples,), default=None
            Their labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input, other features or layers than before, and where the fit diverges; nothing has changed then.
        TypeError
            If X is sparse.
        """
        self._validate_params()  # scikit-learn's decorator checks them in the first call only
        random_state, seed = draw_seed(self.random_state)
        rows = self._read(X, y, reset=not hasattr(self, "_network"))
        problem, values = self._begin(rows, random_state, seed, go_on=True)
        return self._lower_once(problem, values, random_state)

    def transform(self, X):
        """Embeddings of rows.

        Parameters
        ----------
        X : array-like (n, n_features)
            Rows, not corrupted.

        Returns
        -------
        ndarray (n, n_components)
            Outputs of the network, in its dtype. Training compares directions only; lengths are left as they are, as
            they tell how sure a direction is.
        """
        check_is_fitted(self)
        dtype = self._network.values.dtype
        X = validate_data(self, X, reset=False, **{**_READ, "dtype": dtype})
        return self._network.outputs(as_rows(X, dtype), self.n_jobs)

    @property
    def coefs_(self):
        """Weights of each layer."""
        return self._network.parameters("coef")

    @property
    def intercepts_(self):
        """Intercepts of each layer."""
        return self._network.parameters("intercept")

    @property
    def _n_features_out(self):
        return self._network.sizes[-1]

    def _read(self, X, y, reset):
        """Valid rows, and numbers of their labels, all different without labels."""
        X = validate_data(self, X, reset=reset, **_READ)
        check_pairs(X)
        X = as_rows(X, X.dtype)
        if y is None:
            return X, np.arange(len(X))
        y = column_or_1d(y, warn=True)
        if len(y) != len(X):
            raise ValueError(f"y: expected {len(X)} labels, one for each row of X, got {len(y)}.")
        check_classification_targets(y)
        labels = np.unique(y, return_inverse=True)[1].astype(np.int64)
        if not labels.any():
            raise ValueError(f"y has one class only, {y[0]!r}, and so no negatives; pass two classes, or y=None.")
        return X, labels

    def _begin(self, rows, random_state, seed, go_on):
        """What to lower, and where to begin."""
        X, labels = rows
        tower = self._tower(X.shape[1], X.dtype)
        values = self._first_values(tower, self._last("_network", go_on), random_state)
        options = {"seed": seed, "rate": self.corruption_rate, "symmetric": True, **self._options(X.dtype)}
        problem = ViewProblem(tower.network(self.n_jobs), X, labels, **options)
        return problem, problem.pack([values], self._first_temperature(go_on))

    def _fitted(self, problem, values):
        network = self._tower(problem.networks[0].sizes[0], problem.dtype, problem.split(values)[0])
        return {"_network": network, "temperature_": problem.temperature(values)}
