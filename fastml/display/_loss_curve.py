"""The loss of one or several estimators over the epochs of their training."""

from collections import Counter

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastml._optional import require


def _fitted_model(estimator):
    """The model that was trained: the best one of a search, the last step of a pipeline, or ``estimator`` itself."""
    if hasattr(estimator, "best_estimator_"):
        return _fitted_model(estimator.best_estimator_)
    if hasattr(estimator, "steps"):
        return _fitted_model(estimator.steps[-1][1])
    return estimator


def _check_has_loss_curve(model):
    if getattr(model, "loss_curve_", None) is None:
        check_is_fitted(model)
        raise TypeError(f"{type(model).__name__} has no loss_curve_: only iteratively trained estimators record one.")


def _total_loss(model):
    """The loss after each epoch: the sum of its parts where they are told apart."""
    curve = np.asarray(model.loss_curve_, np.float64)
    return curve.sum(axis=1) if curve.ndim == 2 else curve


def _as_list(value):
    return list(value) if isinstance(value, list | tuple) else [value]


def _class_names(models):
    """Class names of the models, numbered where several share one."""
    names = [type(model).__name__ for model in models]
    total, seen = Counter(names), Counter()
    for i, name in enumerate(names):
        if total[name] > 1:
            seen[name] += 1
            names[i] = f"{name} {seen[name]}"
    return names


class LossCurveDisplay:
    """Training and validation loss over the epochs.

    It is recommended to use :meth:`from_estimator` to make one. All parameters are stored as attributes.

    Parameters
    ----------
    loss_curves : list of array-like of shape (n_epochs,)
        Training loss after each epoch; one entry an estimator, of any length.
    validation_loss_curves : list of (array-like of shape (n_epochs,) or None), default=None
        Validation loss after each epoch; ``None`` for an estimator without a validation part.
    names : list of str, default=None
        Names of the estimators, for the legend.
    loss_name : str, default="Loss"
        Label of the axis of the losses.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the curves.
    figure_ : matplotlib Figure
        The figure that holds them.
    lines_ : list of matplotlib Line2D
        The curves: for each estimator training, then validation if there is one.
    gaps_ : list of matplotlib PolyCollection
        The shaded gaps between training and validation, with ``show_gap``.
    best_ : list of matplotlib PathCollection
        The marks of the lowest validation losses, with ``show_gap``.

    See Also
    --------
    diagnose : Reads the curves for you.

    Examples
    --------
    >>> from fastml.display import LossCurveDisplay
    >>> display = LossCurveDisplay(loss_curves=[[2.3, 1.1, 0.7]], names=["softmax"])
    >>> [line.get_label() for line in display.plot().lines_]
    ['softmax, training']
    """

    def __init__(self, *, loss_curves, validation_loss_curves=None, names=None, loss_name="Loss"):
        self.loss_curves = loss_curves
        self.validation_loss_curves = validation_loss_curves
        self.names = names
        self.loss_name = loss_name

    def plot(self, ax=None, *, name=None, log_scale=False, show_gap=False, **kwargs):
        """Draw the curves: one colour an estimator, validation dashed.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. ``None`` makes a new figure.
        name : str or list of str, default=None
            Names for the legend, one an estimator. ``None`` takes ``names``, ``""`` is no name.
        log_scale : bool, default=False
            Whether the loss has a logarithmic axis.
        show_gap : bool, default=False
            Whether to shade the gap between training and validation, and mark the epoch with the lowest validation
            loss.
        **kwargs : dict
            Passed to matplotlib's ``plot`` for every curve.

        Returns
        -------
        display : LossCurveDisplay
            The object itself, with ``ax_``, ``figure_``, ``lines_``, ``gaps_`` and ``best_``.
        """
        require("matplotlib", extra="display", feature=type(self).__name__)
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        names = self._legend_names(name)
        kwargs = normalize_kwargs(kwargs, Line2D)
        self.ax_ = self._new_axes() if ax is None else ax
        self.figure_ = self.ax_.figure
        self.lines_, self.gaps_, self.best_ = [], [], []
        validation_curves = self.validation_loss_curves or [None] * len(self.loss_curves)
        for curve, validation, label in zip(self.loss_curves, validation_curves, names, strict=True):
            line = self._draw(curve, label=_joined(label, "training"), **kwargs)
            if validation is not None:
                style = {**kwargs, "color": line.get_color(), "linestyle": "--"}
                self._draw(validation, label=_joined(label, "validation"), **style)
                if show_gap:
                    self._draw_gap(curve, validation, label, line)
        self.ax_.set(xlabel="Epoch", ylabel=self.loss_name)
        if log_scale:
            self.ax_.set_yscale("log")
        self.ax_.legend()
        return self

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, name=None, log_scale=False, show_gap=False, **kwargs):
        """Draw the loss curves of fitted estimators.

        Parameters
        ----------
        estimator : estimator or list of estimators
            Fitted estimators with ``loss_curve_``; of a pipeline its last step, of a search its best estimator.
        ax : matplotlib Axes, default=None
            Where to draw. ``None`` makes a new figure.
        name : str or list of str, default=None
            Names for the legend, one an estimator. ``None`` takes the names of their classes,
            ``""`` is no name.
        log_scale : bool, default=False
            Whether the loss has a logarithmic axis.
        show_gap : bool, default=False
            Whether to shade the gap between training and validation, and mark the epoch with the lowest validation
            loss.
        **kwargs : dict
            Passed to matplotlib's ``plot`` for every curve.

        Returns
        -------
        display : LossCurveDisplay
            The display, with ``ax_``, ``figure_``, ``lines_``, ``gaps_`` and ``best_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        TypeError
            If an estimator does not record its loss.
        """
        models = [_fitted_model(one) for one in _as_list(estimator)]
        if not models:
            raise ValueError("estimator is an empty list: give at least one fitted estimator.")
        for model in models:
            _check_has_loss_curve(model)
        display = cls(
            loss_curves=[_total_loss(model) for model in models],
            validation_loss_curves=[getattr(model, "validation_loss_curve_", None) for model in models],
            names=_class_names(models),
            loss_name="Loss (nats)" if all(hasattr(model, "classes_") for model in models) else "Loss",
        )
        return display.plot(ax, name=name, log_scale=log_scale, show_gap=show_gap, **kwargs)

    def _legend_names(self, name):
        names = self.names if name is None else _as_list(name)
        if names is None:
            return [None] * len(self.loss_curves)
        if len(names) != len(self.loss_curves):
            raise ValueError(f"name has {len(names)} entries for {len(self.loss_curves)} estimators: give one each.")
        return names

    def _new_axes(self):
        from matplotlib import pyplot

        return pyplot.subplots()[1]

    def _draw(self, curve, **style):
        (line,) = self.ax_.plot(np.arange(1, len(curve) + 1), curve, **style)
        self.lines_.append(line)
        return line

    def _draw_gap(self, curve, validation, name, line):
        """Shade what lies between the curves as far as both go; mark the lowest point of the validation curve."""
        n_both = min(len(curve), len(validation))
        style = {"color": line.get_color(), "zorder": line.get_zorder()}
        epochs = np.arange(1, n_both + 1)
        gap = self.ax_.fill_between(epochs, curve[:n_both], validation[:n_both], alpha=0.15, linewidth=0, **style)
        self.gaps_.append(gap)
        if np.isfinite(validation).any():
            i = int(np.nanargmin(validation))
            label = _joined(name, f"lowest in epoch {i + 1}")
            self.best_.append(self.ax_.scatter([i + 1], [validation[i]], label=label, **style))


def _joined(name, part):
    return f"{name}, {part}" if name else part
