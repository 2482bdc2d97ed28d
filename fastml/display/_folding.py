"""What crowds the neighbourhood of each query."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastml._optional import require
from fastml.functional._folding import crowding


class FoldingDisplay:
    """Each query's own key against the unrelated keys around it.

    A point is a query: to the right the cosine with its own key, upwards that with the k-th nearest key of another
    pair. Above the diagonal k unrelated keys are nearer than the own one: there the embedding is folded. It is
    recommended to use :meth:`from_estimator` or :meth:`from_embeddings` to make a display. All parameters are stored as
    attributes.

    Parameters
    ----------
    own : array-like of shape (n_samples,)
        Similarity of each query with its own key.
    crowd : array-like of shape (n_samples,)
        Similarity of each query with the k-th nearest key of another pair.
    score : float
        Their :func:`~fastml.functional.folding_score`.
    k : int
        Size of the neighbourhoods.
    groups : array-like of shape (n_samples,), default=None
        A label for each pair; every group has its own colour.
    name : str, default=None
        Name of the model, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the points.
    figure_ : matplotlib Figure
        The figure that holds them.
    points_ : list of matplotlib PathCollection
        The points, of each group in the order of the sorted labels.
    diagonal_ : matplotlib Line2D
        Where the own key is as near as the k-th unrelated one.

    See Also
    --------
    fastml.functional.folding_score : The number that goes with the picture.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.display import FoldingDisplay
    >>> queries = np.random.default_rng(0).normal(size=(50, 8))
    >>> display = FoldingDisplay.from_embeddings(queries, queries + 0.1, k=5, name="shifted")
    >>> display.score, [text.get_text() for text in display.ax_.get_legend().get_texts()]
    (0.0, ['shifted, folding 0.00'])
    """

    def __init__(self, *, own, crowd, score, k, groups=None, name=None):
        self.own = own
        self.crowd = crowd
        self.score = score
        self.k = k
        self.groups = groups
        self.name = name

    def plot(self, ax=None, *, name=None, **kwargs):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. ``None`` makes a new figure.
        name : str, default=None
            Name for the legend. ``None`` takes ``name`` of the display.
        **kwargs : dict
            Passed to matplotlib's ``scatter``.

        Returns
        -------
        display : FoldingDisplay
            The object itself, with ``ax_``, ``figure_``, ``points_`` and ``diagonal_``.
        """
        require("matplotlib", extra="display", feature=type(self).__name__)
        from matplotlib import pyplot
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.collections import PathCollection

        self.ax_ = pyplot.subplots()[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        style = {"s": 14, "alpha": 0.6, "linewidths": 0, **normalize_kwargs(kwargs, PathCollection)}
        self.points_ = [
            self.ax_.scatter(np.asarray(self.own)[rows], np.asarray(self.crowd)[rows], label=label, **style)
            for label, rows in self._parts()
        ]
        self._draw_diagonal()
        self.ax_.set(xlabel="Cosine with the own key", ylabel=f"Cosine with the {_ordinal(self.k)} nearest other key")
        self._draw_legend(self.name if name is None else name)
        return self

    @classmethod
    def from_estimator(cls, estimator, X, Y, *, k=10, groups=None, ax=None, name=None, **kwargs):
        """Draw the embeddings that fitted towers make of some pairs.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``transform(X)`` for queries and ``item_transform(Y)`` for keys, such as
            :class:`fastml.TwoTower`; of a search its best estimator.
        X : array-like or sparse matrix (n_samples, n_features)
            Queries.
        Y : array-like or sparse matrix (n_samples, n_item_features)
            Row i is the positive of row i of X, and the others are unrelated to it.
        k : int, default=10
            Size of a neighbourhood.
        groups : array-like of shape (n_samples,), default=None
            A label for each pair; every group gets a colour.
        ax : matplotlib Axes, default=None
            Where to draw. ``None`` makes a new figure.
        name : str, default=None
            Name for the legend. ``None`` takes the name of the class.
        **kwargs : dict
            Passed to matplotlib's ``scatter``.

        Returns
        -------
        display : FoldingDisplay
            The display, with ``ax_``, ``figure_``, ``points_`` and ``diagonal_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it has no ``transform`` or no ``item_transform``.
        """
        if hasattr(estimator, "fit"):
            check_is_fitted(estimator)
        model = getattr(estimator, "best_estimator_", estimator)
        for method in "transform", "item_transform":
            if not hasattr(model, method):
                raise TypeError(f"{type(model).__name__} has no {method}: use from_embeddings(queries, keys).")
        embeddings = model.transform(X), model.item_transform(Y)
        name = type(model).__name__ if name is None else name
        return cls.from_embeddings(*embeddings, k=k, groups=groups, ax=ax, name=name, **kwargs)

    @classmethod
    def from_embeddings(cls, queries, keys, *, k=10, groups=None, ax=None, name=None, **kwargs):
        """Draw embeddings, wherever they come from.

        Parameters
        ----------
        queries : array-like of shape (n_samples, n_features)
            Embeddings; their lengths do not count.
        keys : array-like of shape (n_samples, n_features)
            Row i is the positive of row i of queries, and the others are unrelated to it.
        k : int, default=10
            Size of a neighbourhood.
        groups : array-like of shape (n_samples,), default=None
            A label for each pair; every group gets a colour.
        ax : matplotlib Axes, default=None
            Where to draw. ``None`` makes a new figure.
        name : str, default=None
            Name for the legend.
        **kwargs : dict
            Passed to matplotlib's ``scatter``.

        Returns
        -------
        display : FoldingDisplay
            The display, with ``ax_``, ``figure_``, ``points_`` and ``diagonal_``.

        Raises
        ------
        ValueError, TypeError
            As :func:`~fastml.functional.folding_score`, and where ``groups`` is not a label for each pair.
        """
        found = crowding(queries, keys, k)
        if groups is not None and np.shape(groups) != found.own.shape:
            raise ValueError(f"groups: expected shape {found.own.shape}, one label per pair, got {np.shape(groups)}.")
        display = cls(own=found.own, crowd=found.last, score=found.score, k=found.k, groups=groups, name=name)
        return display.plot(ax, **kwargs)

    def _parts(self):
        """Labels and rows of the groups."""
        if self.groups is None:
            return [(None, slice(None))]
        groups = np.asarray(self.groups)
        return [(f"{label}", groups == label) for label in np.unique(groups)]

    def _draw_diagonal(self):
        """The square that holds all points, cut in two; the folded half is shaded."""
        low = min(np.min(self.own), np.min(self.crowd), 0)
        low, high = low - 0.05 * (1 - low), 1 + 0.05 * (1 - low)
        (self.diagonal_,) = self.ax_.plot([low, high], [low, high], color="0.5", linewidth=1, zorder=0)
        self.ax_.fill_between([low, high], [low, high], high, color="0.93", linewidth=0, zorder=-1)
        at = self.ax_.transAxes
        self.ax_.text(0.37, 0.43, "folded", ha="center", va="center", color="0.4", rotation=45, transform=at)
        self.ax_.set(xlim=(low, high), ylim=(low, high), aspect="equal")

    def _draw_legend(self, name):
        """The score, and below it the groups; where few points come."""
        title = f"{name}, folding {self.score:.2f}" if name else f"folding {self.score:.2f}"
        if self.groups is None:
            self.points_[0].set_label(title)
            self.ax_.legend(loc="upper left")
        else:
            self.ax_.legend(loc="upper left", title=title)


def _ordinal(k):
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if k % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th")
    return f"{k}{ending}"
