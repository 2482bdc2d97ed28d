"""How steps of matrix factorization run: the batches of a stretch are prepared at once, then each takes two sweeps.

Rows of a batch are shared out over the threads, each row to one task: the bits do not depend on how.
"""

import numpy as np

from fastml.kernels import factorization as kernels
from fastml.runtime._threads import run_team
from fastml.runtime.wals import aligned

_DIGITS = 256


class Stretch:
    """Room for some batches of ``size`` interactions with ``n_negatives`` each, and what is made in it.

    Parameters
    ----------
    interactions : Interactions
    n_batches, size, n_negatives, n_factors, n_threads : int
    dtype : numpy dtype
    """

    def __init__(self, interactions, n_batches, size, n_negatives, n_factors, n_threads, dtype):
        n_slots = size * (1 + n_negatives)
        self.interactions, self.n_threads = interactions, n_threads
        self.bits = max(int(interactions.n_items - 1).bit_length(), 1)
        sizes = size, size, size + 1, n_slots, n_slots, n_slots + 1, 2
        arrays = [np.empty((n_batches, n), np.int64) for n in sizes]
        none, items = np.empty(0, np.int64), np.empty((n_batches, size, 1 + n_negatives), np.int64)
        self.room = kernels.Stretch(none, none, items, np.empty((n_batches, size), dtype), *arrays)
        grad = aligned((n_threads, -(-n_factors // 16) * 16), dtype)[:, :n_factors]
        self.scratch = kernels.Scratch(np.empty((n_threads, 2, n_slots + _DIGITS), np.uint64), grad)
        old = aligned((size, n_factors), dtype)
        self.work = kernels.Work(aligned((size, 1 + n_negatives), dtype), old, np.empty(size))

    def steps(self, order, pool, seed, number, users, items, rule, rates):
        """Update both tables by the batches of the entries in ``order``; returns the sum of the losses of each.

        ``pool`` has a draw for each negative, ``number`` is that of the first batch in a fit, ``rule`` says loss,
        optimizer and its ``hyper``. Batches beyond the ``rates`` are prepared only.
        """
        plan = kernels.Plan(seed, number, self.bits, *rule, rates, np.empty(len(rates)))
        stretch = self.room._replace(order=order, pool=pool)

        def run(board, slot):
            kernels.steps(slot, board, plan, self.interactions, stretch, users, items, self.work, self.scratch)

        run_team(run, self.n_threads)
        return plan.losses
