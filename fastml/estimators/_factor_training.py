"""The fit that recommenders share: users held out, epochs, callbacks, and where a warm start begins."""

import numpy as np

from fastml.estimators._fitting import CallbackTasks
from fastml.estimators._interactions import hold_out
from fastml.estimators._progress import Progress
from fastml.estimators._recommender import FactorModel
from fastml.functional._sparse import canonical_csr
from fastml.training.wals import Factors


class FactorTraining(FactorModel):
    """Base of the recommenders whose factors are learned epoch by epoch.

    A subclass names the parts of its objective (``_parts``) and what helps where it is not finite (``_cure``).
    """

    def _train(self, problem, factors, held_out, given, attributes):
        """Epochs, and the attributes of what they came to; returns as ``_iterate`` does.

        ``attributes(factors)`` are those of a model, ``given`` the X and y of ``fit``.
        """
        score = None if held_out is None else lambda now: self._ndcg(*held_out, now)
        progress = Progress(self, score)
        tasks = CallbackTasks(self, self.max_iter, attributes, *given, None)
        with tasks.fit():
            interrupt = self._iterate(problem, factors, progress, tasks)
            history, kept = progress.whole
            self.__dict__.update(attributes(kept))
            self.loss_curve_, self.n_iter_ = np.array([parts for parts, _ in history]), len(history)
            self.validation_scores_ = [score for _, score in history] if self.early_stopping else None
        return interrupt

    def _last_factors(self, X, *wanted):
        """Those of the last fit, for a warm start on X; ``wanted``: the number of factors, and what else must agree."""
        last, wanted = self._factors(), (*X.shape, *wanted)
        feedback = "implicit" if last.item_biases is None else "explicit"
        given = (len(last.users), *last.items.shape, feedback)[: len(wanted)]
        if wanted != given:
            what = "n_factors and feedback" if len(wanted) > 3 else "n_factors"
            raise ValueError(
                f"warm_start needs the same users x items, {what}: the last fit had {given}, now it is {wanted}; "
                "set warm_start=False to start afresh."
            )
        *arrays, mean = last
        return Factors(*(None if array is None else array.astype(X.dtype) for array in arrays), mean)

    def _iterate(self, problem, factors, progress, tasks):
        """Epochs until one of all says to stop; returns a KeyboardInterrupt that is to be raised later, or None."""
        try:
            for _ in range(self.max_iter):
                tasks.begin_iteration(factors)
                factors, parts = problem.epoch(factors)
                stop = progress.record(parts, factors)
                if tasks.end_iteration(factors) or stop:
                    break
        except KeyboardInterrupt as interrupt:
            if self.keep_on_interrupt and progress.whole[0]:
                return interrupt
            raise
        return None

    def _split(self, X, random_state):
        """Ids of the users to train on, and the rows of the others, each split for the score, or None."""
        if not self.early_stopping:
            return slice(None), None
        eligible = np.flatnonzero(np.diff(X.indptr) >= 2)
        held_out = random_state.permutation(eligible)[: int(np.ceil(self.validation_fraction * len(eligible)))]
        train = np.setdiff1d(np.arange(X.shape[0]), held_out)
        if not (len(held_out) and rows_of(X, train).nnz):
            raise ValueError(
                f"early_stopping: {len(eligible)} users have two entries or more in X (users x items), too few to hold "
                "some out and train on others; lower validation_fraction or set early_stopping=False."
            )
        return train, hold_out(rows_of(X, held_out))


def rows_of(X, ids):
    """Some rows of a CSR; X itself for a slice, which is all of them."""
    return X if isinstance(ids, slice) else canonical_csr(X[ids])
