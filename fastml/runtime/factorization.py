"""How steps of matrix factorization run: a stretch of batches is prepared at once, then each takes two sweeps of tasks.

Rows of a batch are shared out over the threads, each row to one task: the bits do not depend on how.
"""

import numpy as np

from fastml.kernels import factorization as kernels
from fastml.runtime._threads import run_tasks
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
        self.interactions, self.n_threads, self.size, self.n_negatives = interactions, n_threads, size, n_negatives
        self.bits = max(int(interactions.n_items - 1).bit_length(), 1)
        self.room = [self._batch(n_slots) for _ in range(n_batches)]
        self.counts = np.empty((n_batches, 2), np.int64)
        self.keys = np.empty((n_threads, 2, n_slots + _DIGITS), np.uint64)
        self.grad = aligned((n_threads, -(-n_factors // 16) * 16), dtype)[:, :n_factors]
        old = aligned((size, n_factors), dtype)
        self.work = kernels.Work(aligned((size, 1 + n_negatives), dtype), old, np.empty(size))

    def _batch(self, n_slots):
        """Memory of one batch."""
        sizes = self.size, self.size, self.size + 1, n_slots, n_slots, n_slots + 1
        items = np.empty((self.size, 1 + self.n_negatives), np.int64)
        return items, [np.empty(n, np.int64) for n in sizes]

    def prepare(self, order, pool, seed, number):
        """Batches of the entries in ``order``, the ``number``-th of a fit and following; ``pool`` as they are long."""
        starts = range(0, len(order), self.size)
        batches = []
        for start, (items, arrays) in zip(starts, self.room, strict=False):
            entries = order[start : start + self.size]
            batches.append(kernels.Batch(entries, items[: len(entries)], *arrays))

        def run(b, slot):
            span = slice(starts[b] * self.n_negatives, (starts[b] + self.size) * self.n_negatives)
            scratch = *self.keys[slot], self.counts[b]
            kernels.prepare(self.interactions, pool[span], seed, number + b, self.bits, batches[b], *scratch)

        run_tasks(run, len(batches), self.n_threads)
        return batches

    def step(self, b, batch, users, items, step):
        """Update both tables by a batch, the b-th that was prepared; returns the sum of its losses."""
        n_users, n_items = self.counts[b]
        both = (
            (n_users, kernels.step_users, (users, items)),
            (n_items, kernels.step_items, (items,)),
        )
        for n_rows, kernel, tables in both:
            n_tasks = min(self.n_threads, n_rows)  # no more: to pass a kernel its arrays takes as long as 50 rows

            def run(task, slot, n_rows=n_rows, kernel=kernel, tables=tables, n_tasks=n_tasks):
                span = n_rows * task // n_tasks, n_rows * (task + 1) // n_tasks
                kernel(*span, self.interactions, batch, *tables, step, self.work, self.grad[slot])

            run_tasks(run, n_tasks, self.n_threads)
        return float(self.work.losses[: len(batch.entries)].sum())
