"""Two towers: queries and items embedded side by side, trained on pairs by InfoNCE."""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fastml._sklearn_compat import fit_context, with_callbacks
from fastml.estimators._contrastive import ContrastiveModel, as_rows, check_pairs
from fastml.estimators._fitting import unchanged_on_error, warn_unconverged
from fastml.estimators._pairs import check_same_length, codes_of_rows, hold_out
from fastml.functional import top_k
from fastml.functional._contrastive import check_ids
from fastml.functional._sparse import check_structure
from fastml.runtime import thread_count
from fastml.training.contrastive import PairProblem, embed, recall_at_1

_READ = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "order": "C"}


class ItemTower(BaseEstimator):
    """Keeps what scikit-learn knows of the items' features."""


class TwoTower(ContrastiveModel):
    """Embeddings of queries and items, trained on pairs: row i of Y is the positive of row i of X.

    Each side has a tower of its own, linear or with hidden layers, whose outputs are divided by their lengths. Trained
    is InfoNCE: with similarities s, the cosines of the queries and items of a batch, and the temperature T::

        log sum_j exp(s_ij / T - log_q_j) - (s_ii / T - log_q_i)

    is the loss of pair i: the items j of the other pairs of the batch are its negatives. A batch is always whole, and
    what is left over of the shuffled pairs at the end of an epoch waits for the next one. The same ``random_state``
    gives the same bits for any ``n_jobs``.

    Parameters
    ----------
    n_components : int, default=64
        Length of the embeddings.
    hidden_layer_sizes : array-like of int, default=()
        Units of the hidden layers of each tower; none: the towers are linear.
    activation : {"relu", "tanh", "sigmoid", ...}, default="relu"
        Of the hidden layers.
    temperature : float or "learn", default=0.07
        T, above 0. Learned, it begins at 0.07 and stays above 0.01.
    symmetric : bool, default=True
        Whether to average this loss and that of finding the query of an item.
    correct_sampling_bias : bool, default=False
        Whether log_q is the logarithm of how often an item is expected in a batch; otherwise it is 0. Popular items are
        negatives more often than others, and this takes it back. Items are counted in ``fit``, by ``ids`` if they are
        passed and otherwise by equal rows of Y.
    optimizer : {"adam", "sgd"} or Optimizer, default="adam"
        From ``fastml.optim``. The strings stand for ones whose learning rate falls slowly.
    alpha : float, default=0.0
        L2 penalty ``alpha / 2 * sum(coef ** 2)`` of both towers.
    batch_size : int or None, default=256
        Pairs of a step, at least 2; None: all. The more, the more negatives, and the harder the question.
    max_iter : int, default=100
        Epochs at most.
    tol : float, default=1e-4
        Stop when ``n_iter_no_change`` epochs in a row did not lower the loss, or with ``early_stopping`` raise the
        recall, by this.
    early_stopping : bool, default=False
        Hold out pairs, watch their recall@1 among themselves, and keep the parameters that were best. Pairs that share
        an id are held out together.
    validation_fraction : float, default=0.1
        Share of the ids (without ``ids``: of the pairs) to hold out.
    n_iter_no_change : int, default=10
        Patience, in epochs.
    warm_start : bool, default=False
        Begin at the towers of the last fit.
    random_state : int, RandomState instance or None, default=None
        Seed of the first parameters, the held-out pairs, and the order of the pairs.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    query_coefs_, item_coefs_ : list of ndarray (n_in, n_out)
        Weights of each layer, in the dtype of X and Y.
    query_intercepts_, item_intercepts_ : list of ndarray (n_out,)
        Intercepts of each layer.
    temperature_ : float
        T, as learned or given.
    loss_curve_ : list of float
        Mean loss of each epoch, penalty included, in nats.
    validation_scores_ : list of float or None
        Recall@1 among the held-out pairs after each epoch.
    n_iter_ : int
        Epochs done.
    n_features_in_, n_item_features_in_ : int
        Number of features of queries and of items.
    feature_names_in_, item_feature_names_in_ : ndarray of str
        Their names, if they had any.

    See Also
    --------
    fastml.functional.info_nce : The loss.
    ContrastiveEmbedding : Embeddings of rows that come without partners.

    References
    ----------
    A. Radford et al. Learning transferable visual models from natural language supervision. ICML 2021.

    X. Yi et al. Sampling-bias-corrected neural modeling for large corpus item recommendations. RecSys 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import TwoTower
    >>> rng = np.random.default_rng(0)
    >>> meaning = rng.normal(size=(500, 8))  # said in two ways
    >>> X, Y = (meaning @ rng.normal(size=(8, d)) + 0.1 * rng.normal(size=(500, d)) for d in (20, 30))
    >>> model = TwoTower(n_components=8, max_iter=30, tol=0, random_state=0).fit(X[:400], Y[:400])
    >>> model.score(X[400:], Y[400:]) > 0.9
    True
    >>> ids, scores = model.kneighbors(X[400:402], Y[400:], k=3)
    >>> ids.shape, scores.shape
    ((2, 3), (2, 3))
    """

    _parameter_constraints = {
        **ContrastiveModel._parameter_constraints,
        "symmetric": ["boolean"],
        "correct_sampling_bias": ["boolean"],
    }
    _rates = {"adam": 0.01, "sgd": 0.3}

    def __init__(
        self,
        n_components=64,
        *,
        hidden_layer_sizes=(),
        activation="relu",
        temperature=0.07,
        symmetric=True,
        correct_sampling_bias=False,
        optimizer="adam",
        alpha=0.0,
        batch_size=256,
        max_iter=100,
        tol=1e-4,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.temperature = temperature
        self.symmetric = symmetric
        self.correct_sampling_bias = correct_sampling_bias
        self.optimizer = optimizer
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @unchanged_on_error
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, Y, ids=None):
        """Learn both towers from pairs.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            Queries. X and Y may be dense, a data frame or sparse each. Two of float32 stay float32, everything else
            becomes float64.
        Y : array-like or sparse matrix (n_samples, n_item_features)
            Items: row i belongs to row i of X. Of shape (n_samples,) it is a single feature.
        ids : array-like (n_samples,), default=None
            Pairs with the same id, such as that of their item, are no negatives of each other.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input or parameters, and where the fit diverges; the estimator is then as it was before.
        """
        random_state = check_random_state(self.random_state)
        pairs, validation = self._read_pairs(X, Y, ids, reset=True), None
        if self.early_stopping:
            pairs, validation = hold_out(pairs, self.validation_fraction, random_state)
        problem, values = self._begin(pairs, random_state, go_on=False)
        validate = None if validation is None else self._validation(problem, *validation)
        trouble = self._lower(problem, values, validate, random_state, (X, Y))
        if trouble:
            warn_unconverged(self, trouble)
        return self

    @unchanged_on_error
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, Y, ids=None):
        """One epoch over these pairs, going on from what earlier calls learned.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            Queries.
        Y : array-like or sparse matrix (n_samples, n_item_features)
            Their items.
        ids : array-like (n_samples,), default=None
            As for ``fit``; only pairs of the same call are compared.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input, other features or layers than before, and where the fit diverges; nothing has changed then.
        """
        self._validate_params()  # scikit-learn's decorator checks them in the first call only
        if self.early_stopping:
            raise ValueError("partial_fit has no pairs to hold out: set early_stopping=False.")
        random_state = check_random_state(self.random_state)
        pairs = self._read_pairs(X, Y, ids, reset=not hasattr(self, "_query"))
        problem, values = self._begin(pairs, random_state, go_on=True)
        return self._lower_once(problem, values, random_state)

    def transform(self, X, Y=None):
        """Embeddings of queries, and of items if there are any.

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_features)
            Queries.
        Y : array-like or sparse matrix (m, n_item_features), default=None
            Items.

        Returns
        -------
        queries : ndarray (n, n_components)
            Rows of length 1, in the dtype of the towers; of length 0 where a tower's output is 0 in all places. Such a
            row has the similarity 0 with everything.
        items : ndarray (m, n_components)
            The same of the items; the two are returned as a tuple, and without Y the queries alone.
        """
        queries = self._embed_queries(X)
        return queries if Y is None else (queries, self._embed_items(Y))

    def item_transform(self, Y):
        """Embeddings of items.

        Parameters
        ----------
        Y : array-like or sparse matrix (m, n_item_features)
            Items.

        Returns
        -------
        ndarray (m, n_components)
            As ``transform`` has them.
        """
        return self._embed_items(Y)

    def kneighbors(self, X, Y_index, k=10):
        """The ``k`` items with the highest cosine for each query.

        Embeddings that are kept are searched faster: ``fastml.functional.top_k(transform(X), item_transform(Y), k)``.

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_features)
            Queries.
        Y_index : array-like or sparse matrix (m, n_item_features)
            Features, not embeddings, of the items to search.
        k : int, default=10
            How many items; more than there are is allowed.

        Returns
        -------
        ids : ndarray (n, k) of int64
            Rows of ``Y_index``, best first, ties by lower id; -1 where fewer than k are left.
        scores : ndarray (n, k)
            Cosines; ``-inf`` where there is no item.
        """
        return top_k(self._embed_queries(X), self._embed_items(Y_index), k)

    def score(self, X, Y):
        """Recall@1 among these pairs: the share of the queries whose own item is the most similar of all rows of Y.

        A query whose item shares the first place with others, up to rounding, counts as one over their number, so
        embeddings that are all alike have the score of chance. Rows of Y that are equal share their places.

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_features)
            Queries.
        Y : array-like or sparse matrix (n, n_item_features)
            Row i belongs to row i of X.

        Returns
        -------
        float
            In 0..1. It falls with the number of pairs: compare scores of as many.
        """
        queries, items = self._embed_queries(X), self._embed_items(Y)
        check_same_length(queries, items)
        return float(recall_at_1(queries, items, np.arange(len(items)), thread_count(self.n_jobs)))

    @property
    def query_coefs_(self):
        """Weights of each layer of the queries' tower."""
        return self._query.parameters("coef")

    @property
    def query_intercepts_(self):
        """Intercepts of each layer of the queries' tower."""
        return self._query.parameters("intercept")

    @property
    def item_coefs_(self):
        """Weights of each layer of the items' tower."""
        return self._item.parameters("coef")

    @property
    def item_intercepts_(self):
        """Intercepts of each layer of the items' tower."""
        return self._item.parameters("intercept")

    @property
    def n_item_features_in_(self):
        """Number of features of the items."""
        return self._item_features.n_features_in_

    @property
    def item_feature_names_in_(self):
        """Names of the items' features."""
        return self._item_features.feature_names_in_

    @property
    def _n_features_out(self):
        return self._query.sizes[-1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse, tags.target_tags.required = True, True
        return tags

    def _read_pairs(self, X, Y, ids, reset):
        """Valid X and Y of one dtype, numbers that tell false negatives, and ones that tell items or None."""
        check_structure(X)
        X, Y = validate_data(self, X, reset=reset, **_READ), self._read_items(Y, reset=reset)
        check_pairs(X)
        check_same_length(X, Y)
        dtype = np.result_type(X.dtype, Y.dtype)
        X, Y = as_rows(X, dtype), as_rows(Y, dtype)
        if ids is None:
            return X, Y, np.arange(X.shape[0]), codes_of_rows(Y) if self.correct_sampling_bias else None
        ids = np.unique(check_ids(ids, X.shape[0]), return_inverse=True)[1].astype(np.int64)
        if not ids.any():
            raise ValueError("ids: all pairs have the same id, and so no negatives; pass ids that differ, or None.")
        return X, Y, ids, ids if self.correct_sampling_bias else None

    def _read_items(self, Y, reset=False, dtype=None):
        """Valid items, whose features are those of ``fit``."""
        if Y is None:
            raise ValueError("TwoTower requires y to be passed, but the target y is None: pass the items Y.")
        check_structure(Y, "Y")
        read = _READ if dtype is None else {**_READ, "dtype": dtype}
        rows = check_array(Y, input_name="Y", estimator=self, ensure_2d=False, **read)
        rows, named = (rows[:, np.newaxis], rows[:, np.newaxis]) if rows.ndim == 1 else (rows, Y)
        if reset:
            self._item_features = ItemTower()
        elif rows.shape[1] != self.n_item_features_in_:
            expected = self.n_item_features_in_
            raise ValueError(f"Y has {rows.shape[1]} features, but TwoTower is expecting {expected} of an item.")
        validate_data(self._item_features, named, reset=reset, skip_check_array=True)
        return rows

    def _begin(self, pairs, random_state, go_on):
        """What to lower, and where to begin."""
        X, Y, ids, items = pairs
        last = self._last("_query", go_on), self._last("_item", go_on)
        towers = [self._tower(rows.shape[1], X.dtype) for rows in (X, Y)]
        parts = [self._first_values(*sides, random_state) for sides in zip(towers, last, strict=True)]
        networks = [tower.network(self.n_jobs) for tower in towers]
        log_q = None if items is None else self._log_q(items)
        options = {"symmetric": self.symmetric, "log_q": log_q, **self._options(X.dtype)}
        problem = PairProblem(networks, X, Y, ids, **options)
        return problem, problem.pack(parts, self._first_temperature(go_on))

    def _log_q(self, items):
        """Logarithm of how often each pair's item is expected in a batch."""
        n = len(items)
        return np.log(self._batch_rows(n) / n * np.bincount(items)[items])

    def _validation(self, problem, X, Y, ids, items):
        """``values -> 1 - recall@1`` of held-out pairs."""

        def validate(values):
            sides = zip(problem.networks, (X, Y), problem.split(values), strict=True)
            return 1 - recall_at_1(*(embed(*side) for side in sides), ids, problem.n_threads)

        return validate

    def _record(self, losses, validation_losses=None):
        super()._record(losses)
        self.validation_scores_ = None if validation_losses is None else [1 - loss for loss in validation_losses]

    def _fitted(self, problem, values):
        query, item = (
            self._tower(network.sizes[0], problem.dtype, part)
            for network, part in zip(problem.networks, problem.split(values), strict=True)
        )
        return {"_query": query, "_item": item, "temperature_": problem.temperature(values)}

    def _embed_queries(self, X):
        check_is_fitted(self)
        check_structure(X)
        dtype = self._query.values.dtype
        X = validate_data(self, X, reset=False, **{**_READ, "dtype": dtype})
        return self._query.embed(as_rows(X, dtype), self.n_jobs)

    def _embed_items(self, Y):
        check_is_fitted(self)
        dtype = self._item.values.dtype
        return self._item.embed(as_rows(self._read_items(Y, dtype=dtype), dtype), self.n_jobs)
