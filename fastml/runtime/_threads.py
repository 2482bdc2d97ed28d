"""The one thread pool: blocks of rows on plain threads, the caller among them.

A caller never waits for a free worker. It offers its job to idle workers, takes blocks itself until none is
left, and waits only for blocks that are already running. So fits from many threads cannot deadlock, an
interrupt stops after the running blocks, and work is split the same way for any number of threads.

Who waits, a worker for its next job or a caller for the last blocks, looks for about 100 microseconds without the
GIL before it goes to sleep: to wake a thread takes some 20 microseconds, twice a job. Who sees a change pauses a
little, so that it does not come for the GIL while the other still runs Python code: that would put it to sleep.
"""

import functools
import os
import threading
from collections import deque
from numbers import Integral
from queue import SimpleQueue

import joblib
import numpy as np
from joblib.parallel import get_active_backend

from fastml.kernels.waiting import wait_for_change
from fastml.runtime._blas_limit import limit_worker

_READS = 4000  # of a flag, with a pause after each: 100 microseconds
_CALLER_STARTS, _WORKER_ENDS = 200, 80  # pauses in which the other one leaves Python for its kernel, or its sleep


cpu_count = functools.cache(joblib.cpu_count)  # joblib reads the limits of the control group anew: 80 us a call


class _Job:
    """Tasks 0..n_tasks-1 of one call, shared by the caller and the workers that join it.

    An interrupt may raise in the main thread between any two steps of Python code, but not inside of a built-in
    lock or queue: a ``Condition`` or a ``Semaphore``, which are Python code, could stay locked for ever.
    """

    def __init__(self, function, n_tasks, n_threads):
        self.function = function
        self.pending = iter(range(n_tasks))  # next() on it is atomic under the GIL
        self.free_slots = list(range(n_threads - 1, 0, -1))  # slot 0 is the caller's
        self.lock = threading.Lock()
        self.n_helping = 0
        self.helping = threading.Lock()  # held while any worker takes part
        self.n_helped = np.zeros(1, np.int64)
        self.error = None

    def join(self):
        """A worker takes part, unless all hands are there or the job is over."""
        with self.lock:
            if not self.free_slots:
                return
            slot = self.free_slots.pop()
            if self.n_helping == 0:
                self.helping.acquire()
            self.n_helping += 1
        try:
            self.work(slot)
        except BaseException as error:
            self.stop()
            self.error = error
        with self.lock:
            self.n_helping -= 1
            if self.n_helping == 0:
                self.helping.release()
            self.n_helped[0] += 1

    def work(self, slot):
        """Do tasks until none is left."""
        for task in self.pending:
            self.function(task, slot)

    def stop(self):
        """Nobody begins another task."""
        deque(self.pending, maxlen=0)

    def finish(self):
        """Let nobody begin a task, and wait for those that are running: they write to the caller's arrays."""
        interrupt = None
        while True:
            try:
                self.stop()
                with self.lock:
                    self.free_slots.clear()
                    n_helped, is_running = int(self.n_helped[0]), self.n_helping > 0
                if is_running:
                    wait_for_change(self.n_helped, n_helped, _READS, _WORKER_ENDS)
                with self.helping:
                    break
            except KeyboardInterrupt as error:
                interrupt = error
        self.function = None  # an offer that nobody took yet keeps no array alive
        if interrupt is not None:
            raise interrupt


class _Pool:
    """Daemon threads that wait until a job is offered; no more than there are other cores do so awake."""

    def __init__(self):
        self.offers = SimpleQueue()
        self.n_workers = 0
        self.awake = threading.Semaphore(cpu_count() - 1)
        self.n_offered = np.zeros(1, np.int64)
        self.growing = threading.Lock()

    def offer(self, job, n_helpers):
        if self.n_workers < n_helpers:
            self.grow(n_helpers)
        for _ in range(min(n_helpers, self.n_workers)):
            self.offers.put(job)
        self.n_offered[0] += 1

    def grow(self, n_workers):
        wait_for_change(self.n_offered, 0, 0, 0)  # compiled before there are threads to compile it
        with self.growing:
            while self.n_workers < n_workers:
                try:
                    threading.Thread(target=self.serve, name="fastml-worker", daemon=True).start()
                except RuntimeError:  # the system gives no more threads: those that are there do the work
                    return
                self.n_workers += 1

    def serve(self):
        limit_worker()
        while True:
            n_offered = int(self.n_offered[0])
            if self.offers.empty() and self.awake.acquire(blocking=False):
                wait_for_change(self.n_offered, n_offered, _READS, _CALLER_STARTS)
                self.awake.release()
            self.offers.get().join()


_pool = _Pool()


def _renew_after_fork():
    """Threads do not survive a fork: the child starts its own."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def thread_count(n_jobs=None):
    """How many threads ``n_jobs`` stands for.

    ``None`` is what joblib is configured to; outside of joblib all cores, as scikit-learn's own compiled loops
    take; and inside a joblib worker one, unless ``OMP_NUM_THREADS`` (which joblib sets for its processes) allows
    more. ``-1`` is all cores, ``-2`` all but one.
    """
    if n_jobs is None:
        backend, n_jobs = get_active_backend()
        if n_jobs is None:
            allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
            if allowed.isdecimal() and int(allowed) > 0:
                return min(cpu_count(), int(allowed))
            return 1 if backend.nesting_level else cpu_count()
    if not isinstance(n_jobs, Integral):
        raise TypeError(f"n_jobs must be an integer or None, got {n_jobs!r}.")
    if n_jobs == 0:
        raise ValueError("n_jobs=0 has no meaning: use None, a positive number of threads, or -1 for all cores.")
    return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)


def run_tasks(function, n_tasks, n_threads):
    """Call ``function(task, slot)`` for each task; ``slot`` (below ``n_threads``) tells whose scratch to use."""
    n_threads = min(n_threads, n_tasks)
    if n_threads <= 1:
        for task in range(n_tasks):
            function(task, 0)
        return
    job = _Job(function, n_tasks, n_threads)
    try:
        _pool.offer(job, n_threads - 1)
        job.work(0)
    finally:
        job.finish()
    error, job.error = job.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback holds this frame: the two would keep each other, and the arrays, alive


def run_team(function, n_threads):
    """Call ``function(board, slot)`` on up to so many threads, which share one kernel call at this board."""
    board = np.zeros(16, np.int64)

    def run(task, slot):
        try:
            function(board, slot)
        except BaseException:
            board[0] = -1  # no phase: nobody waits for a task that will not be completed
            raise

    run_tasks(run, n_threads, n_threads)


def run_blocks(kernel, n_rows, block, n_threads, *args):
    """Call ``kernel(start, stop, *args)`` for the blocks of ``block`` rows that make up ``n_rows``."""

    def run(task, slot):
        kernel(task * block, min((task + 1) * block, n_rows), *args)

    run_tasks(run, -(-n_rows // block), n_threads)
