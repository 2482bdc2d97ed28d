"""Weighted alternating least squares for implicit and explicit feedback."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastml._sklearn_compat import Interval, StrOptions, fit_context, with_callbacks
from fastml.estimators._explanation import explain
from fastml.estimators._factor_training import FactorTraining, rows_of
from fastml.estimators._fitting import unchanged_on_error
from fastml.estimators._interactions import (
    check_ids,
    check_not_negative,
    check_weights,
    n_dimensions,
    without_zeros,
)
from fastml.functional._validate import check_count
from fastml.runtime import thread_count
from fastml.training.wals import WALSProblem, fold_in


class WALS(FactorTraining):
    """Matrix factorisation by weighted alternating least squares.

    X is users x items. Implicit feedback takes its entries as weights c and minimises::

        sum_observed c (w_u.h_i - 1)^2 + unobserved_weight * sum_all (w_u.h_i)^2
            + regularization * (sum_u n_u^nu |w_u|^2 + sum_i n_i^nu |h_i|^2)

    with ``nu = regularization_exponent``, ``n_u = entries of u + unobserved_weight * n_items`` and
    ``n_i = entries of i + unobserved_weight * n_users``. Explicit feedback takes them as ratings r and minimises::

        sum_observed weight (w_u.h_i + b_u + b_i + mean - r)^2
            + regularization * (sum_u n_u^nu (|w_u|^2 + b_u^2) + sum_i n_i^nu (|h_i|^2 + b_i^2))

    with ``n_u`` and ``n_i`` the numbers of entries. An epoch solves for all items, then for all users. Who has no
    entry has the factor 0. The same ``random_state`` gives the same bits for any ``n_jobs``.

    Parameters
    ----------
    n_factors : int, default=64
        Length of each factor; may exceed the number of users and items.
    feedback : {"implicit", "explicit"}, default="implicit"
        What the values of X are: weights >= 0 (a stored 0 is no entry), or ratings (a stored 0 is a rating; in a
        dense X it is none).
    regularization : float, default=0.003
        lambda above; with 0 a singular system is an error.
    unobserved_weight : float, default=0.1
        Weight of every pair's pull towards 0; only for implicit feedback.
    regularization_exponent : float, default=1.0
        nu above: 0 regularises all alike, 1 in proportion to their entries.
    solver : {"auto", "cholesky", "cg", "block"}, default="auto"
        "cholesky" solves each system exactly, "cg" takes three steps of conjugate gradient from where the factors
        were, "block" solves for ``block_size`` factors at a time. "auto" is "cholesky" up to 16 factors, where it
        costs about as much, and "cg" beyond.
    block_size : int, default=64
        Factors that "block" solves for at once.
    max_iter : int, default=16
        Epochs at most.
    tol : float, default=0.0
        Stop when an epoch lowered the objective by less than this share of it; 0: never.
    init_scale : float, default=0.1
        Factors begin as normal numbers of standard deviation ``init_scale / sqrt(n_factors)``.
    n_recommendations : int, default=10
        Items that ``predict`` gives and ``score`` looks at.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the users, stop when ``n_iter_no_change`` epochs in a row did not raise
        their ``score``, keep the items that were best, and fold all users in to them.
    validation_fraction : float, default=0.1
        Share of the users with two entries or more that are held out for early stopping, in (0, 1).
    n_iter_no_change : int, default=3
        Patience of early stopping, in epochs.
    warm_start : bool, default=False
        Begin at the factors of the last fit, for X of the same shape.
    keep_on_interrupt : bool, default=False
        What Ctrl-C leaves behind: the model after the last whole epoch, or, with False, the estimator as it was.
        KeyboardInterrupt is raised in either case.
    random_state : int, RandomState instance or None, default=None
        Seed of the first factors and of the held-out users.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    user_factors_ : ndarray (n_users, n_factors)
        w, in the dtype of X.
    item_factors_ : ndarray (n_items, n_factors)
        h.
    user_biases_, item_biases_ : ndarray (n_users,) and (n_items,), or None
        b, only for explicit feedback.
    mean_ : float
        Weighted mean of the ratings; 0 for implicit feedback.
    loss_curve_ : ndarray (n_epochs, 3)
        The parts of the objective after each epoch, as written above: observed, unobserved (0 for explicit feedback),
        regularization. Their sum is the objective. With ``early_stopping`` it is that of the other users.
    validation_scores_ : list of float or None
        Score of the held-out users after each epoch, with ``early_stopping``.
    n_iter_ : int
        Epochs done.
    n_features_in_ : int
        Number of items.
    feature_names_in_ : ndarray of str
        Names of the items, if X had any.

    References
    ----------
    Y. Hu, Y. Koren, C. Volinsky. Collaborative filtering for implicit feedback datasets. ICDM 2008.

    S. Rendle, W. Krichene, L. Zhang, Y. Koren. Revisiting the performance of iALS on item recommendation benchmarks.
    RecSys 2022.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml import WALS
    >>> X = csr_array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]])
    >>> model = WALS(n_factors=2, random_state=0).fit(X)
    >>> model.predict(csr_array([[1, 0, 0, 0, 0]]))[0, :3]
    array([1, 2, 3])
    """

    _parts = "observed", "unobserved", "regularization"
    _cure = "Scale the values of X, raise regularization, or pass float64."
    _parameter_constraints = {
        **FactorTraining._parameter_constraints,
        "feedback": [StrOptions({"implicit", "explicit"})],
        "regularization": [Interval(Real, 0, None, closed="left")],
        "unobserved_weight": [Interval(Real, 0, None, closed="left")],
        "regularization_exponent": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({"auto", "cholesky", "cg", "block"})],
        "block_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_factors=64,
        *,
        feedback="implicit",
        regularization=0.003,
        unobserved_weight=0.1,
        regularization_exponent=1.0,
        solver="auto",
        block_size=64,
        max_iter=16,
        tol=0.0,
        init_scale=0.1,
        n_recommendations=10,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=3,
        warm_start=False,
        keep_on_interrupt=False,
        random_state=None,
        n_jobs=None,
        verbose=0,
    ):
        self.n_factors = n_factors
        self.feedback = feedback
        self.regularization = regularization
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent
        self.solver = solver
        self.block_size = block_size
        self.max_iter = max_iter
        self.tol = tol
        self.init_scale = init_scale
        self.n_recommendations = n_recommendations
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.keep_on_interrupt = keep_on_interrupt
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X, y=None, *, weights=None):
        """Learn factors from interactions.

        Parameters
        ----------
        X : array-like or sparse matrix (n_users, n_items)
            Users x items. float32 stays float32, everything else becomes float64; a copy is kept.
        y : None
            Ignored; here for scikit-learn.
        weights : sparse matrix (n_users, n_items), default=None
            Weights of the squared errors, not negative, one for each stored rating; only for explicit feedback.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input or parameters, and for singular systems; the estimator is then as it was before.
        """
        interrupt = self._fit(X, y, weights)
        if interrupt is not None:
            raise interrupt
        return self

    def fit_transform(self, X, y=None, *, weights=None):
        """``fit(X)``, then ``transform(X)``.

        Parameters
        ----------
        X : array-like or sparse matrix (n_users, n_items)
            Users x items.
        y : None
            Ignored; here for scikit-learn.
        weights : sparse matrix (n_users, n_items), default=None
            Weights of the ratings, for both steps.

        Returns
        -------
        ndarray (n_users, n_factors)
            Factors of the users. They are ``user_factors_`` where the solver is exact.
        """
        return self.fit(X, weights=weights).transform(X, weights=weights)

    def transform(self, X, *, weights=None):
        """Factors of users with these rows, each solved for exactly.

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_items)
            Rows of users x items, known or new.
        weights : sparse matrix (n, n_items), default=None
            Weights of the ratings, as in ``fit``.

        Returns
        -------
        ndarray (n, n_factors)
            Factors, in the dtype of ``item_factors_``; for explicit feedback without the users' biases.

        Raises
        ------
        ValueError
            For bad input, and for singular systems.
        """
        check_is_fitted(self)
        X = self._read(X)
        return self._fold_in(X, self._factors(), self._weights_of(X, weights))[0]

    @unchanged_on_error
    def partial_fit(self, X_rows, user_ids=None, *, weights=None):
        """Fold users in and remember their rows; items stay as they are.

        Each call copies what is stored, so pass many users at once.

        Parameters
        ----------
        X_rows : array-like or sparse matrix (n, n_items)
            The users' whole rows of users x items: they replace what was known.
        user_ids : array-like of int (n,), default=None
            Known users are replaced; new ones follow on the last known id without gaps. None: all rows are new.
        weights : sparse matrix (n, n_items), default=None
            Weights of the ratings, as in ``fit``.

        Returns
        -------
        self

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``, which learns the items.
        ValueError
            For bad input, repeated ids and gaps; nothing has changed then.
        """
        self._validate_params()
        return self._partial_fit(X_rows, user_ids, lambda X: self._weights_of(X, weights))

    def explain(self, user, item, k=10):
        """What each item in a user's row contributes to the score of an item.

        The user's factor is linear in what was observed, ``w_u = A^-1 sum_j c_j t_j h_j``, and so is the score:
        item j contributes ``c_j t_j h_i' A^-1 h_j`` (Hu, Koren and Volinsky 2008, section 5), where t_j is 1, or for
        explicit feedback ``r_j - b_j - mean``, and h has one more entry 1 for the user's bias.

        Parameters
        ----------
        user : int, or array-like or sparse matrix (1, n_items)
            A user by id, or a row of users x items.
        item : int
            Any item, seen or not.
        k : int or None, default=10
            How many contributions to return; None: all.

        Returns
        -------
        Explanation
            ``(score, ids, contributions, baseline)``, largest contribution first, in float64. ``score`` is that of the
            exactly folded-in user: ``baseline`` plus all contributions, also those beyond ``k``.
        """
        check_is_fitted(self)
        k = None if k is None else check_count(k, "k")
        if n_dimensions(item) != 0:
            raise ValueError(f"item: expected one item's id, got shape {np.shape(item)}.")
        item = check_ids(item, self.n_features_in_, "item", "item")[0]
        row, weights = self._row(user)
        return explain(row, self._factors(), item, k, weights=weights, **self._terms())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.feedback == "implicit"
        return tags

    @unchanged_on_error
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X, y, weights):
        """Fit; returns the KeyboardInterrupt that ended it, if the model is to be kept nevertheless."""
        given = X, y
        X = self._read(X, reset=True)
        weights = self._weights_of(X, weights)
        self._check_training(X)
        random_state = check_random_state(self.random_state)
        train, held_out = self._split(X, random_state)
        problem = self._problem(X, weights, train)
        factors = self._start(problem, X, train, random_state)
        return self._train(problem, factors, held_out, given, lambda now: self._model(now, X, weights))

    def _terms(self):
        """What the objective depends on."""
        return {
            "feedback": self.feedback,
            "regularization": self.regularization,
            "unobserved_weight": self.unobserved_weight,
            "regularization_exponent": self.regularization_exponent,
        }

    def _problem(self, X, weights, train):
        options = {"solver": self.solver, "block_size": self.block_size, "n_threads": thread_count(self.n_jobs)}
        if weights is not None:
            weights = rows_of(weights, train).data
            if not weights.any():
                raise ValueError("weights: all are 0 for the users to train on; lower validation_fraction.")
        return WALSProblem(rows_of(X, train), weights=weights, **self._terms(), **options)

    def _start(self, problem, X, train, random_state):
        """Factors to begin at."""
        if not (self.warm_start and hasattr(self, "item_factors_")):
            return problem.start(self.n_factors, self.init_scale, random_state)
        last = self._last_factors(X, self.n_factors, self.feedback)
        biases = None if last.user_biases is None else last.user_biases[train]
        return last._replace(users=last.users[train], user_biases=biases)

    def _model(self, factors, X, weights):
        """Attributes of a model with these factors; users that were held out are folded in."""
        if self.early_stopping:
            users, biases = self._fold_in(X, factors, weights)
            factors = factors._replace(users=users, user_biases=biases)
        return self._fitted(factors, X, weights)

    def _check_values(self, X):
        if self.feedback == "implicit":
            check_not_negative(X, "X", "it is users x items, values are weights; ratings need feedback='explicit'")
            X = without_zeros(X)
        return X

    def _check_training(self, X):
        """Raise where there is nothing to learn from, or where parameters would make numbers overflow."""
        if not X.nnz:
            raise ValueError(f"X (users x items) of shape {X.shape} has no entries: there is nothing to learn from.")
        count, limit = (1 + self.unobserved_weight) * max(X.shape), np.sqrt(np.finfo(X.dtype).max)
        with np.errstate(over="ignore", invalid="ignore"):
            power = np.power(count, self.regularization_exponent, dtype=np.float64)
            sizes = {
                "regularization_exponent": power,
                "regularization": self.regularization * power,
                "unobserved_weight": count,
                "init_scale": np.float64(self.init_scale) ** 2,
            }
        for name, size in sizes.items():
            if not size < limit:
                raise ValueError(f"{name}={getattr(self, name)!r} is too large: numbers would overflow {X.dtype}.")

    def _weights_of(self, X, weights):
        """The weights of the ratings in X as a CSR, or None."""
        if weights is not None and self.feedback == "implicit":
            raise ValueError("weights: only for feedback='explicit'; with 'implicit' the values of X are the weights.")
        return check_weights(weights, X)

    def _fold_in(self, X, factors, weights=None):
        weights = None if weights is None else weights.data
        return fold_in(X, factors, n_threads=thread_count(self.n_jobs), weights=weights, **self._terms())
