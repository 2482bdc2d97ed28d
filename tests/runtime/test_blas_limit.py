import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import threadpoolctl

import fastml.runtime._blas_limit as module
from fastml.runtime import blas_limited


def blas_threads():
    return {p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    """More than one thread to limit, on any machine, and everything put back afterwards."""
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("BLAS has one thread only")
        yield
        assert blas_threads() == {2}
        assert not module._limit.holders


def test_one_thread_inside():
    with blas_limited():
        assert blas_threads() == {1}


def test_nested():
    with blas_limited():
        with blas_limited():
            pass
        assert blas_threads() == {1}


def test_the_callers_own_limit_is_put_back():
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        with blas_limited():
            pass
        assert blas_threads() == {1}


def test_error_inside():
    with pytest.raises(ZeroDivisionError), blas_limited():
        raise ZeroDivisionError


def test_block_that_is_never_left():
    generator = (None for _ in [0] if blas_limited().__enter__() is None)
    next(generator)
    assert blas_threads() == {2}  # nobody can leave it any more, so it is over


def test_released_by_another_thread_than_limited_it():
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with blas_limited():
            inside.set()
            leave.wait()

    other = threading.Thread(target=hold)
    with blas_limited():
        other.start()
        inside.wait()
    assert blas_threads() == {1}
    leave.set()
    other.join()


def in_another_thread(function):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def test_limit_from_another_thread_than_set_the_number():
    """threadpoolctl obeys the thread that was first to set a number, here the main thread."""

    def inside():
        with blas_limited():
            return blas_threads()

    assert in_another_thread(inside) == {1}


def test_other_threads_may_still_set_limits():
    """We are never that thread."""
    if hasattr(threadpoolctl.OpenBLASController, "clear_controlling_thread"):
        threadpoolctl.OpenBLASController.clear_controlling_thread(force=True)

    def inside():
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            return blas_threads()

    with blas_limited():
        pass
    assert in_another_thread(inside) == {1}


class PerThread:
    """Like OpenBLAS on OpenMP, where each thread has its own number of threads."""

    threading_layer = "openmp"

    def __init__(self):
        self.local = threading.local()

    def get_num_threads(self):
        return getattr(self.local, "number", 4)

    def set_num_threads(self, number):
        self.local.number = number


def test_library_with_a_number_for_each_thread(monkeypatch):
    limit, library, barrier = module._BlasLimit(), PerThread(), threading.Barrier(2, timeout=60)
    limit.shared, limit.per_thread = [], [library]
    monkeypatch.setattr(module, "_limit", limit)
    seen = []

    def hold():
        with blas_limited():
            barrier.wait()  # both are inside
            inside = library.get_num_threads()
            barrier.wait()  # the other one, who was first, is out
            barrier.wait()
        seen.append((inside, library.get_num_threads()))

    def work():
        module.limit_worker()
        with blas_limited():
            pass
        seen.append(library.get_num_threads())

    for function in work, hold:
        other = threading.Thread(target=function)
        with blas_limited():
            other.start()
            if function is hold:
                barrier.wait()
                barrier.wait()
            assert library.get_num_threads() == 1
        assert library.get_num_threads() == 4
        if function is hold:
            barrier.wait()
        other.join()
    assert seen == [1, (1, 4)]


@pytest.mark.parametrize("step", ["_numbers", "_set", "_restore"])
@pytest.mark.parametrize("call", range(8))
def test_interrupted(monkeypatch, step, call):
    """A signal that is handled just before or after BLAS is asked for, or told, its number of threads."""
    calls, original = iter(range(10**6)), getattr(module, step)

    def interrupted(*args):
        now = next(calls)
        if now == call:
            raise KeyboardInterrupt
        result = original(*args)
        if now == call + 1:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(module, step, interrupted)
    try:
        with blas_limited():
            pass
    except KeyboardInterrupt:
        pass


def test_signals_at_any_time(run_script):
    run_script(
        """
import random, signal, time
import numpy, threadpoolctl
import fastml.runtime._blas_limit as module
from fastml.runtime import blas_limited

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
controller = threadpoolctl.ThreadpoolController().select(user_api="blas")
with controller.limit(limits=2):
    start = time.perf_counter()
    for _ in range(200):
        with blas_limited():
            pass
    once = (time.perf_counter() - start) / 200
    n_interrupts, end = 0, time.monotonic() + 2
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-5 + 3 * once))
            for _ in range(100):
                with blas_limited():
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            n_interrupts += 1
        assert not module._limit.holders and not module._limit.before and not module._limit.lock.locked()
        assert all(library.get_num_threads() == 2 for library in controller.lib_controllers)
assert n_interrupts > 100, n_interrupts
"""
    )
