"""BLAS on one thread while blocks run, so that its pool and ours do not fight for the same cores."""

import os
import threading
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


class _BlasLimit:
    """Counts the calls that want BLAS on one thread: the first limits it, the last puts it back."""

    def __init__(self):
        self.lock = threading.Lock()
        self.holders = 0
        self.controller = None
        self.limiter = None

    def acquire(self):
        with self.lock:
            if self.holders == 0:
                if self.controller is None:  # looking for the loaded libraries takes milliseconds: once
                    self.controller = ThreadpoolController().select(user_api="blas")
                self.limiter = self.controller.limit(limits=1)
            self.holders += 1

    def release(self):
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                self.limiter.restore_original_limits()
                self.limiter = None


_limit = _BlasLimit()


def _renew_after_fork():
    """The child has none of the threads that would have put the limit back."""
    global _limit
    if _limit.limiter is not None:
        _limit.limiter.restore_original_limits()
    _limit = _BlasLimit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


@contextmanager
def blas_limited():
    """Keep BLAS on one thread inside the block; nested and concurrent uses are counted."""
    limit = _limit
    limit.acquire()
    try:
        yield
    finally:
        limit.release()
