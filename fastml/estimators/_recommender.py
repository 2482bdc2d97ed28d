"""What recommenders with a factor for each user and item share: their data, ranking, similarity, score."""

from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, validate_data

from fastml._sklearn_compat import CallbackSupportMixin, Interval
from fastml.estimators._interactions import (
    cast,
    check_ids,
    check_new_ids,
    check_unique_ids,
    hold_out,
    n_dimensions,
    replace_rows,
)
from fastml.functional import ndcg, top_k
from fastml.functional._sparse import canonical_csr, check_structure
from fastml.functional._validate import check_count
from fastml.training.wals import Factors

_PAIRS = 2**14  # scored at a time


class FactorModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator):
    """Base of the recommenders: the score of a pair is ``w_u . h_i``, with biases also ``b_u + b_i + mean``.

    A subclass says which values X may have (``_check_values``) and how a row becomes a user (``_fold_in``), and its
    ``fit`` sets what ``_fitted`` returns.
    """

    _parameter_constraints = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "init_scale": [Interval(Real, 0, None, closed="neither")],
        "n_recommendations": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "keep_on_interrupt": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    @abstractmethod
    def _check_values(self, X):
        """The CSR ``X`` as it is trained on; ValueError where its values have no meaning."""

    @abstractmethod
    def _fold_in(self, X, factors, weights=None):
        """Factors (n, f) and biases (n,) or None of users with these rows, given the items."""

    def predict(self, X):
        """The best ``n_recommendations`` items of each row that are not in it.

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_items)
            Rows of users x items; they are folded in.

        Returns
        -------
        ndarray (n, n_recommendations) of int64
            Ids of items, best first; -1 where no item is left.
        """
        check_is_fitted(self)
        return self._recommend_rows(self._read(X), self.n_recommendations)[0]

    def score(self, X, y=None):
        """Mean NDCG of the best ``n_recommendations`` on entries that are held out of the rows.

        A fifth of each row with two entries or more (of n: ``max(1, round(n / 5))``) is held out, chosen by a hash of
        the row's own items. The rest is folded in and not recommended; everything else is ranked. So
        cross-validation over rows measures users that training never saw (strong generalisation).

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_items)
            Rows of users x items. Every held-out entry counts as relevant, whatever its value.
        y : None
            Ignored; here for scikit-learn.

        Returns
        -------
        float
            In 0..1, more is better.

        Raises
        ------
        ValueError
            If no row has two entries.
        """
        check_is_fitted(self)
        return self._ndcg(*hold_out(self._read(X)), self._factors())

    def recommend(self, X_or_user_ids, k=10, *, exclude_seen=True, candidates=None):
        """The ``k`` items with the highest scores.

        Parameters
        ----------
        X_or_user_ids : int, array-like of int (n,), or array-like or sparse matrix (n, n_items)
            Users by id, or rows of users x items to be folded in; what has two dimensions is rows.
        k : int, default=10
            How many items; more than there are is allowed.
        exclude_seen : bool, default=True
            Leave out the items in the user's row.
        candidates : array-like of int (m,), default=None
            The items to choose from. None: all.

        Returns
        -------
        ids : ndarray (n, k) of int64, or (k,) for a single id
            Best first, ties by lower id; -1 where fewer than k are left.
        scores : ndarray (n, k), or (k,)
            Their scores; for explicit feedback predicted ratings. ``-inf`` where there is no item.

        Raises
        ------
        ValueError, TypeError
            For unknown ids, ids that are no integers, ``k`` below 1, and empty or repeated candidates.

        Examples
        --------
        >>> from scipy.sparse import csr_array
        >>> from fastml import WALS
        >>> X = csr_array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]])
        >>> ids, scores = WALS(n_factors=2, random_state=0).fit(X).recommend([0, 3], k=2)
        >>> ids
        array([[2, 3],
               [1, 0]])
        """
        check_is_fitted(self)
        k = check_count(k, "k")
        if candidates is not None:
            candidates = check_unique_ids(candidates, self.n_features_in_, "candidates", "item")
        if n_dimensions(X_or_user_ids) >= 2:
            return self._recommend_rows(self._read(X_or_user_ids), k, exclude_seen, candidates)
        users = check_ids(X_or_user_ids, len(self.user_factors_), "user_ids", "user")
        biases = None if self.user_biases_ is None else self.user_biases_[users]
        seen = self._X[users] if exclude_seen else None
        ids, scores = self._best(self.user_factors_[users], biases, k, seen, candidates)
        return (ids[0], scores[0]) if n_dimensions(X_or_user_ids) == 0 else (ids, scores)

    def similar_items(self, ids, k=10):
        """The ``k`` items whose factors have the highest cosine with those of each given item.

        Parameters
        ----------
        ids : int or array-like of int (n,)
            Items.
        k : int, default=10
            How many; the item itself is not among them, nor is an item without entries (its factor is 0).

        Returns
        -------
        ids : ndarray (n, k) of int64, or (k,) for a single id
            Most similar first; -1 where fewer than k are left.
        scores : ndarray (n, k), or (k,)
            Cosines; ``-inf`` where there is no item.
        """
        return self._similar("item", ids, k)

    def similar_users(self, ids, k=10):
        """The ``k`` users whose factors have the highest cosine with those of each given user.

        Parameters
        ----------
        ids : int or array-like of int (n,)
            Users.
        k : int, default=10
            How many; the user itself is not among them, nor is a user without entries (the factor is 0).

        Returns
        -------
        ids : ndarray (n, k) of int64, or (k,) for a single id
            Most similar first; -1 where fewer than k are left.
        scores : ndarray (n, k), or (k,)
            Cosines; ``-inf`` where there is no user.
        """
        return self._similar("user", ids, k)

    def predict_pairs(self, user_ids, item_ids):
        """Scores of pairs of a user and an item; for explicit feedback predicted ratings.

        Parameters
        ----------
        user_ids, item_ids : int or array-like of int (n,)
            Known ids; one of the two may be a single id that goes with all of the other.

        Returns
        -------
        ndarray (n,), or a float for two single ids
            The scores.
        """
        check_is_fitted(self)
        users = check_ids(user_ids, len(self.user_factors_), "user_ids", "user")
        items = check_ids(item_ids, self.n_features_in_, "item_ids", "item")
        if len(users) != len(items) and 0 not in (n_dimensions(user_ids), n_dimensions(item_ids)):
            raise ValueError(f"user_ids and item_ids: expected pairs, got {len(users)} users and {len(items)} items.")
        users, items = np.broadcast_arrays(users, items)
        scores = np.empty(len(users), self.item_factors_.dtype)
        for first in range(0, len(users), _PAIRS):
            u, i = users[first : first + _PAIRS], items[first : first + _PAIRS]
            scores[first : first + _PAIRS] = (self.user_factors_[u] * self.item_factors_[i]).sum(axis=1)
        if self.user_biases_ is not None:
            scores += self.user_biases_[users] + self.item_biases_[items] + scores.dtype.type(self.mean_)
        return float(scores[0]) if n_dimensions(user_ids) == n_dimensions(item_ids) == 0 else scores

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self):
        return self.item_factors_.shape[1]

    def _read(self, X, reset=False):
        """Rows as users pass them as a canonical CSR in the dtype of the factors, with ``reset`` a copy."""
        check_structure(X)
        options = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "copy": reset and issparse(X)}
        try:
            rows = validate_data(self, X, reset=reset, **options)
        except ValueError as error:
            raise ValueError(f"{error}\n{self._orientation(X, reset)}") from error
        rows = canonical_csr(csr_array(rows))
        return cast(self._check_values(rows), rows.dtype if reset else self.item_factors_.dtype, "X")

    def _orientation(self, X, reset):
        """What a user may have mistaken where X has a wrong shape."""
        if reset:
            return f"{type(self).__name__} takes X as users x items: a row for each user, a column for each item."
        shape, trained = getattr(X, "shape", None), (len(self.user_factors_), self.n_features_in_)
        hint = f"X is users x items with {trained[1]} items, and the model was trained on shape {trained}"
        is_transposed = shape is not None and shape[0] == trained[1] != shape[-1]
        return f"{hint}: this X looks transposed, pass X.T." if is_transposed else f"{hint}."

    def _factors(self):
        return Factors(self.user_factors_, self.item_factors_, self.user_biases_, self.item_biases_, self.mean_)

    def _fitted(self, factors, X, weights):
        """Attributes of a model with these factors that was trained on these rows."""
        learned = zip(("user_factors_", "item_factors_", "user_biases_", "item_biases_", "mean_"), factors, strict=True)
        return {**dict(learned), "_X": X, "_weights": weights}

    def _partial_fit(self, X, user_ids, check_weights):
        """Fold users in; ``check_weights(X)`` gives the weights of a CSR, or None."""
        if not hasattr(self, "item_factors_"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet: partial_fit folds users in to items that "
                "are known. Call fit(X) first, with X users x items."
            )
        X = self._read(X)
        weights, factors = check_weights(X), self._factors()
        ids = check_new_ids(user_ids, len(factors.users), X.shape[0])
        users, biases = self._fold_in(X, factors, weights)
        n_users = max(len(factors.users), ids.max() + 1)
        factors = factors._replace(users=_put(factors.users, users, ids, n_users))
        if biases is not None:
            factors = factors._replace(user_biases=_put(factors.user_biases, biases, ids, n_users))
        if not (weights is self._weights is None):
            weights = replace_rows(_ones_for_none(self._weights, self._X), _ones_for_none(weights, X), ids)
        self.__dict__.update(self._fitted(factors, replace_rows(self._X, X, ids), weights))
        return self

    def _row(self, user):
        """One user's row and its weights, given the id or the row."""
        if n_dimensions(user) < 2:
            ids = check_ids(user, len(self.user_factors_), "user", "user")
            if n_dimensions(user) != 0:
                raise ValueError(f"user: expected one id or one row (1, n_items), got shape {np.shape(user)}.")
            return self._X[ids], None if self._weights is None else self._weights[ids]
        row = self._read(user)
        if row.shape[0] != 1:
            raise ValueError(f"user: expected one row of users x items, (1, n_items), got shape {row.shape}.")
        return row, None

    def _recommend_rows(self, X, k, exclude_seen=True, candidates=None):
        users, biases = self._fold_in(X, self._factors())
        return self._best(users, biases, k, X if exclude_seen else None, candidates)

    def _best(self, users, biases, k, exclude, candidates):
        """Ids and scores of the best items of some users."""
        queries, items = _sides(users, self._factors())
        ids, scores = _rank(queries, items, k, exclude, candidates)
        return ids, scores if biases is None else scores + (biases + biases.dtype.type(self.mean_))[:, np.newaxis]

    def _ndcg(self, kept, relevant, factors):
        """The score of a model with these factors on rows of which a part is held out."""
        users, _ = self._fold_in(kept, factors)
        queries, items = _sides(users, factors)
        ids, _ = _rank(queries, items, self.n_recommendations, kept)
        return float(ndcg(ids, relevant, k=self.n_recommendations).mean())

    def _similar(self, kind, ids, k):
        check_is_fitted(self)
        k, is_one = check_count(k, "k"), n_dimensions(ids) == 0
        factors = self.user_factors_ if kind == "user" else self.item_factors_
        ids = check_ids(ids, len(factors), "ids", kind)
        length = np.linalg.norm(factors, axis=1, keepdims=True)
        unit = np.divide(factors, length, out=np.zeros_like(factors), where=length > 0)
        itself = csr_array((np.ones(len(ids)), ids, np.arange(len(ids) + 1)), (len(ids), len(factors)))
        found, scores = _rank(unit[ids], unit, k, itself, np.flatnonzero(length))
        nothing = length[ids, 0] == 0
        found[nothing], scores[nothing] = -1, -np.inf
        return (found[0], scores[0]) if is_one else (found, scores)


def _rank(queries, items, k, exclude=None, candidates=None):
    """:func:`top_k` among the candidates, sorted ids, or among all items."""
    if candidates is not None:
        items = items[candidates]
        exclude = None if exclude is None else exclude[:, candidates]
    if not (len(queries) and len(items)):
        return np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, items.dtype)
    ids, scores = top_k(queries, items, k, exclude=exclude)
    return (ids if candidates is None else np.where(ids < 0, -1, candidates[ids])), scores


def _sides(users, factors):
    """Factors of users and items whose products order the items: the items' biases are one factor more."""
    if factors.item_biases is None:
        return users, factors.items
    ones = np.ones(len(users), users.dtype)
    return np.column_stack([users, ones]), np.column_stack([factors.items, factors.item_biases])


def _put(array, values, at, n_rows):
    """A copy of ``array``, lengthened to ``n_rows``, with these rows replaced."""
    result = np.empty((n_rows, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    result[at] = values
    return result


def _ones_for_none(weights, X):
    return csr_array((np.ones_like(X.data), X.indices, X.indptr), X.shape) if weights is None else weights
