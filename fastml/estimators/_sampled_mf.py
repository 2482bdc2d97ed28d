"""Matrix factorisation on interactions, trained with negatives."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastml._sklearn_compat import Interval, StrOptions, fit_context, with_callbacks
from fastml.estimators._factor_training import FactorTraining, rows_of
from fastml.estimators._fitting import unchanged_on_error
from fastml.estimators._interactions import check_not_negative, without_zeros
from fastml.optim import SGD, AdaGrad, Adam, Optimizer
from fastml.runtime import thread_count
from fastml.training.fold_in import fold_in
from fastml.training.sampled_mf import SampledMFProblem
from fastml.training.samplers import InBatchSampler, LogUniformSampler, PopularitySampler, Sampler, UniformSampler

_STEPS = 200  # of an epoch
_OPTIMIZERS = {"adam": Adam(0.005), "adagrad": AdaGrad(0.1), "sgd": SGD(0.05)}
_SAMPLERS = {
    "uniform": UniformSampler(),
    "popularity": PopularitySampler(),
    "log_uniform": LogUniformSampler(),
    "in_batch": InBatchSampler(),
}
_N_NEGATIVES = {"sampled_softmax": 512, "softmax": 1, "negative_sampling": 5, "bpr": 1}
_PAIRWISE = "negative_sampling", "bpr"


class SampledMF(FactorTraining):
    """Matrix factorisation trained with negatives: by sampled or full softmax, negative sampling, or BPR.

    X is users x items; its entries are weights c of interactions. With ``z_ui = w_u.h_i`` it lowers::

        sum_observed c (loss(u, i) + regularization / 2 (n_u^(nu - 1) |w_u|^2 + n_i^(nu - 1) |h_i|^2))

    divided by the sum of the weights, with ``nu = regularization_exponent``, and n the weight of a user's or an item's
    entries, relative to the mean of those that have any. The ``loss`` is

    - "softmax": ``log sum_j exp(z_uj) - z_ui`` over all items j;
    - "sampled_softmax": the same over i and ``n_negatives`` drawn items that a batch shares, where each logit is less
      by the logarithm of how often the item is expected among them, which makes up for the draw;
    - "negative_sampling": ``-log s(z_ui) - sum_j log s(-z_uj)`` with the logistic function s, over ``n_negatives``
      items j that the user has not, drawn for each interaction;
    - "bpr": the mean of ``-log s(z_ui - z_uj)`` over such items.

    A step takes ``batch_size`` interactions, and reads and writes the factors of the users and items that occur in it,
    no others. The same ``random_state`` gives the same bits for any ``n_jobs``.

    Parameters
    ----------
    n_factors : int, default=64
        Length of each factor; may exceed the number of users and items.
    loss : {"sampled_softmax", "softmax", "negative_sampling", "bpr"}, default="sampled_softmax"
        See above.
    n_negatives : int or None, default=None
        Negatives of a batch for "sampled_softmax", of an interaction for "negative_sampling" and "bpr"; not used by
        "softmax" and by in-batch sampled softmax. None: 512, 5 and 1.
    sampler : {"uniform", "popularity", "log_uniform", "in_batch"} or Sampler, default="uniform"
        Where negatives come from: ``UniformSampler()``, ``PopularitySampler(0.75)``, ``LogUniformSampler()`` or
        ``InBatchSampler()``, the items of the batch itself, of ``fastml.training.samplers``; or one of these with other
        parameters.
    correct_sampling_bias : bool, default=True
        Whether logits are corrected, only for "sampled_softmax". Without, an item that is drawn often is pushed down
        often.
    optimizer : {"adam", "adagrad", "sgd"} or Optimizer, default="adam"
        The rule of a step, ``Adam(0.005)``, ``AdaGrad(0.1)`` or ``SGD(0.05)`` of ``fastml.optim``; or one of these with
        other parameters. A step takes the gradient of the sum over its batch, with weights of mean 1.
    regularization : float, default=0.1
        See above.
    regularization_exponent : float, default=0.5
        nu above: 0 regularises all alike, 1 in proportion to their entries.
    batch_size : int or None, default=None
        Interactions of a step. None: an epoch has 200 steps, of 256 interactions at least and 4096 at most.
    max_iter : int, default=20
        Epochs at most.
    tol : float, default=0.0
        Stop when an epoch lowered the objective by less than this share of it; 0: never.
    init_scale : float, default=0.1
        Factors begin as normal numbers of standard deviation ``init_scale / sqrt(n_factors)``.
    n_recommendations : int, default=10
        Items that ``predict`` gives and ``score`` looks at.
    early_stopping : bool, default=False
        Hold out ``validation_fraction`` of the users, stop when ``n_iter_no_change`` epochs in a row did not raise
        their ``score``, keep the factors that were best, and fold the held-out users in to them.
    validation_fraction : float, default=0.1
        Share of the users with two entries or more that are held out for early stopping, in (0, 1).
    n_iter_no_change : int, default=3
        Patience of early stopping, in epochs.
    warm_start : bool, default=False
        Begin at the factors of the last fit, for X of the same shape; moments of the optimizer begin anew.
    keep_on_interrupt : bool, default=False
        What Ctrl-C leaves behind: the model after the last whole epoch, or, with False, the estimator as it was.
        KeyboardInterrupt is raised in either case.
    random_state : int, RandomState instance or None, default=None
        Seed of the first factors, the batches, the negatives, and the held-out users.
    n_jobs : int or None, default=None
        Threads. None: what joblib is configured to, otherwise all cores; -1: all cores.
    verbose : int, default=0
        1 prints a line an epoch.

    Attributes
    ----------
    user_factors_ : ndarray (n_users, n_factors)
        w, in the dtype of X; 0 for who has no entry.
    item_factors_ : ndarray (n_items, n_factors)
        h.
    user_biases_, item_biases_ : None
        There are none.
    mean_ : float
        0.
    loss_curve_ : ndarray (n_epochs, 2)
        The parts of the objective: the mean loss over each epoch, while factors change, and the regularization at its
        end. With ``early_stopping`` it is that of the other users.
    validation_scores_ : list of float or None
        Score of the held-out users after each epoch, with ``early_stopping``.
    n_iter_ : int
        Epochs done.
    n_features_in_ : int
        Number of items.
    feature_names_in_ : ndarray of str
        Names of the items, if X had any.

    Notes
    -----
    ``transform`` minimises what one user has in the objective, with the items fixed and the loss averaged over what is
    drawn: the full softmax for both softmaxes (uncorrected, with the logarithm of the expected counts added to the
    logits, which is what training then converges to), for the others the mean over the items that the user has not, by
    the probabilities of the sampler; for BPR with more than 2048 items, over 2048 draws that are the same for all
    users. That is convex, and its minimum depends on the row alone. ``user_factors_`` are what training came to.

    For the losses with negatives of their own, a user who has all items has nothing to tell: the factor is 0, and the
    entries do not count.

    An item without entries is only moved as a negative. Where it is never drawn, by "popularity" and "in_batch", its
    factor is 0, and so are its scores.

    There is no ``explain``: the factor of a user is no linear function of the row.

    References
    ----------
    S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme. BPR: Bayesian personalized ranking from implicit
    feedback. UAI 2009.

    X. Yi et al. Sampling-bias-corrected neural modeling for large corpus item recommendations. RecSys 2019.

    J. Wu et al. On the effectiveness of sampled softmax loss for item recommendation. TOIS 2024.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from fastml import SampledMF
    >>> X = csr_array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]])
    >>> model = SampledMF(n_factors=2, max_iter=300, random_state=0).fit(X)
    >>> ids, scores = model.recommend(csr_array([[1, 0, 0, 0, 0]]), k=1)
    >>> ids
    array([[1]])
    """

    _parts = "loss", "regularization"
    _cure = "Lower the learning rate of optimizer."
    _parameter_constraints = {
        **FactorTraining._parameter_constraints,
        "loss": [StrOptions({"sampled_softmax", "softmax", "negative_sampling", "bpr"})],
        "n_negatives": [Interval(Integral, 1, None, closed="left"), None],
        "sampler": [StrOptions(set(_SAMPLERS)), Sampler],
        "correct_sampling_bias": ["boolean"],
        "optimizer": [StrOptions(set(_OPTIMIZERS)), Optimizer],
        "regularization": [Interval(Real, 0, None, closed="left")],
        "regularization_exponent": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        n_factors=64,
        *,
        loss="sampled_softmax",
        n_negatives=None,
        sampler="uniform",
        correct_sampling_bias=True,
        optimizer="adam",
        regularization=0.1,
        regularization_exponent=0.5,
        batch_size=None,
        max_iter=20,
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
        self.loss = loss
        self.n_negatives = n_negatives
        self.sampler = sampler
        self.correct_sampling_bias = correct_sampling_bias
        self.optimizer = optimizer
        self.regularization = regularization
        self.regularization_exponent = regularization_exponent
        self.batch_size = batch_size
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

    def fit(self, X, y=None):
        """Learn factors from interactions.

        Parameters
        ----------
        X : array-like or sparse matrix (n_users, n_items)
            Users x items, weights >= 0; a 0 is no entry. float32 stays float32, everything else becomes float64; a copy
            is kept.
        y : None
            Ignored; here for scikit-learn.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad input or parameters, and where numbers overflow; the estimator is then as it was before.
        """
        interrupt = self._fit(X, y)
        if interrupt is not None:
            raise interrupt
        return self

    def transform(self, X):
        """Factors of users with these rows, given the items: the minimum of what a user has in the objective.

        Parameters
        ----------
        X : array-like or sparse matrix (n, n_items)
            Rows of users x items, known or new.

        Returns
        -------
        ndarray (n, n_factors)
            Factors, in the dtype of ``item_factors_``; 0 for a row without entries.

        Raises
        ------
        ValueError
            For bad input.
        """
        check_is_fitted(self)
        return self._fold_in(self._read(X), self._factors())[0]

    @unchanged_on_error
    def partial_fit(self, X_rows, user_ids=None):
        """Fold users in and remember their rows; items stay as they are.

        Each call copies what is stored, so pass many users at once.

        Parameters
        ----------
        X_rows : array-like or sparse matrix (n, n_items)
            The users' whole rows of users x items: they replace what was known.
        user_ids : array-like of int (n,), default=None
            Known users are replaced; new ones follow on the last known id without gaps. None: all rows are new.

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
        return self._partial_fit(X_rows, user_ids, lambda X: None)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

    @unchanged_on_error
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X, y):
        """Fit; returns the KeyboardInterrupt that ended it, if the model is to be kept nevertheless."""
        given = X, y
        X = self._read(X, reset=True)
        if not X.nnz:
            raise ValueError(f"X (users x items) of shape {X.shape} has no entries: there is nothing to learn from.")
        random_state = check_random_state(self.random_state)
        train, held_out = self._split(X, random_state)
        problem = self._problem(rows_of(X, train), random_state)
        factors = self._start(problem, X, train, random_state)
        self._expectation = problem.expectation()
        return self._train(problem, factors, held_out, given, lambda now: self._model(now, X, train))

    def _problem(self, X, random_state):
        optimizer = _OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer
        if optimizer.max_grad_norm is not None:
            raise ValueError(
                f"optimizer: SampledMF does not clip, got {optimizer!r}; rows are updated before the gradient of all "
                "is known. Set max_grad_norm=None and lower the learning rate."
            )
        sampler = _SAMPLERS[self.sampler] if isinstance(self.sampler, str) else self.sampler
        if self.loss in _PAIRWISE and not sampler.replacement:
            raise ValueError(
                f"sampler: with loss={self.loss!r} each interaction draws its own negatives, set replacement=True, got "
                f"{sampler!r}."
            )
        n_negatives = _N_NEGATIVES[self.loss] if self.n_negatives is None else self.n_negatives
        return SampledMFProblem(
            X,
            loss=self.loss,
            sampler=sampler,
            n_negatives=n_negatives,
            batch_size=self.batch_size or min(max(X.nnz // _STEPS, 256), 4096),
            regularization=self.regularization,
            regularization_exponent=self.regularization_exponent,
            correct_sampling_bias=self.correct_sampling_bias,
            optimizer=optimizer,
            seed=random_state.randint(2**31 - 1),
            n_threads=thread_count(self.n_jobs),
        )

    def _start(self, problem, X, train, random_state):
        """Factors to begin at."""
        if not (self.warm_start and hasattr(self, "item_factors_")):
            return problem.start(self.n_factors, self.init_scale, random_state)
        last = self._last_factors(X, self.n_factors)
        return problem.restart(last._replace(users=last.users[train]))

    def _model(self, factors, X, train):
        """Attributes of a model with these factors; users that were held out are folded in."""
        if self.early_stopping:
            users = np.empty((X.shape[0], factors.users.shape[1]), X.dtype)
            users[train] = factors.users
            held_out = np.setdiff1d(np.arange(X.shape[0]), train)
            users[held_out] = self._fold_in(rows_of(X, held_out), factors)[0]
            factors = factors._replace(users=users)
        return {**self._fitted(factors, X, None), "_expectation": self._expectation}

    def _check_values(self, X):
        check_not_negative(X, "X", "it is users x items, and values are weights of interactions")
        return without_zeros(X)

    def _fold_in(self, X, factors, weights=None):
        return fold_in(X, factors.items, self._expectation, thread_count(self.n_jobs)), None
