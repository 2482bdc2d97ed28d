"""BLAS on one thread while blocks run, so that its pool and ours do not fight for the same cores."""

import os
import threading
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


class _BlasLimit:
    """Knows who wants BLAS on one thread: the first holder limits it, the last puts it back.

    An interrupt may come between any two steps, so ``before`` is known before anything is changed, and both
    ``acquire`` and ``release`` may be broken off and called again.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.holders = set()
        self.libraries = None
        self.before = []  # pairs of a library and its number of threads, while it is limited

    def acquire(self, holder):
        with self.lock:
            self.holders.add(holder)
            if not self.before:
                if self.libraries is None:  # looking for the loaded libraries takes milliseconds: once
                    self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
                self.before = [(library, library.get_num_threads()) for library in self.libraries]
                for library in self.libraries:
                    library.set_num_threads(1)

    def release(self, holder):
        with self.lock:
            self.holders.discard(holder)
            if not self.holders:
                self.restore()

    def restore(self):
        for library, n_threads in self.before:
            library.set_num_threads(n_threads)
        self.before = []


_limit = _BlasLimit()


def _renew_after_fork():
    """The child has none of the threads that would have put the limit back."""
    _limit.restore()
    _limit.__init__()  # in place: the thread that forked may be inside of ``blas_limited``


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


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
