"""BLAS on one thread while blocks run, so that its pool and ours do not fight for the same cores.

Most BLAS libraries have one number of threads for the process, which the first caller limits and the last one
puts back. OpenBLAS on OpenMP has one for each thread: there every caller limits its own.
"""

import os
import threading
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


def _set(library, n_threads):
    # Since 3.8 threadpoolctl obeys one thread only, the first that set a number; ours may end in another one.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(n_threads)


def _numbers(libraries):
    return [(library, library.get_num_threads()) for library in libraries]


def _restore(numbers):
    for library, n_threads in numbers:
        _set(library, n_threads)


class _BlasLimit:
    """Knows who wants BLAS on one thread.

    An interrupt may come between any two steps, so the numbers to restore are kept before anything is changed, and
    what was broken off may be called again.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        self.lock = threading.Lock()
        self.shared = self.per_thread = None  # libraries
        self.before = []  # numbers of the shared libraries, while anybody holds the limit
        self.holders = {}  # their own numbers, of the libraries that have one per thread

    def find_libraries(self):
        if self.per_thread is None:  # takes milliseconds: once
            libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            layers = [(getattr(library, "threading_layer", None), library) for library in libraries]
            self.shared = [library for layer, library in layers if layer != "openmp"]
            self.per_thread = [library for layer, library in layers if layer == "openmp"]

    def acquire(self, holder):
        with self.lock:
            self.find_libraries()
            self.holders[holder] = _numbers(self.per_thread)
            if not self.before:
                self.before = _numbers(self.shared)
            for library, _ in self.holders[holder] + self.before:
                _set(library, 1)

    def release(self, holder):
        with self.lock:
            _restore(self.holders.get(holder, ()))
            self.holders.pop(holder, None)
            if not self.holders:
                _restore(self.before)
                self.before = []

    def limit_worker(self):
        with self.lock:
            self.find_libraries()
            for library in self.per_thread:
                _set(library, 1)


_limit = _BlasLimit()


def _renew_after_fork():
    """The child has none of the threads that would have put the limit back."""
    _restore(_limit.before)
    _limit.reset()  # in place: the thread that forked may be inside of ``blas_limited``


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


def limit_worker():
    """Called by a thread that does nothing but blocks: where BLAS has a number of threads for each, it gets one."""
    _limit.limit_worker()


@contextmanager
def blas_limited():
    """Keep BLAS on one thread inside the block; nested and concurrent uses are counted."""
    holder, interrupt = object(), None
    try:
        _limit.acquire(holder)
        yield
    finally:
        while True:
            try:
                _limit.release(holder)
                break
            except KeyboardInterrupt as error:  # not before the limit is gone
                interrupt = error
        if interrupt is not None:
            raise interrupt
