"""Threads that share a kernel call: each task is done once, phases follow each other, and nobody is waited for."""

import threading
import time

import numpy as np
import pytest
from numba import config

from fastml.kernels import _team
from fastml.kernels._jit import kernel
from fastml.kernels._team import claim, complete
from fastml.runtime import run_team

N_PHASES = 300 if not config.DISABLE_JIT else 20


@kernel
def run(board, sizes, done, order):
    """Tasks of as many phases as there are sizes; ``order`` has what the phase before had left undone."""
    for phase in range(sizes.shape[0]):
        n = sizes[phase]
        task = claim(board, phase, n)
        while task >= 0:
            if phase > 0:
                for other in range(sizes[phase - 1]):
                    order[phase, task] += done[phase - 1, other] != 1
            done[phase, task] += 1
            complete(board, phase, n)
            task = claim(board, phase, n)


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_phases(n_threads):
    sizes = np.random.default_rng(0).integers(1, 6, N_PHASES)
    for _ in range(5):
        board, done, order = np.zeros(16, np.int64), np.zeros((N_PHASES, 5), int), np.zeros((N_PHASES, 5), int)
        threads = [threading.Thread(target=run, args=(board, sizes, done, order)) for _ in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        np.testing.assert_array_equal(done, np.arange(5) < sizes[:, np.newaxis])
        assert not order.any()
        run(board, sizes, done, order)  # who comes when all is over has nothing to do
        assert done.sum() == sizes.sum()


def test_nobody_waits_for_a_thread_that_failed():
    """One claims a task and raises; the other waits for its end, and is told that there will be none."""

    def fail(board, slot):
        if claim(board, 0, 1) < 0:
            return
        time.sleep(0.05)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_team(fail, 2)


def test_who_waits_long_lets_others_run(monkeypatch):
    """Some reads with pauses, then none: the core may be what the other one needs."""
    was_offered, found, board = threading.Event(), [], np.zeros(16, np.int64)
    monkeypatch.setattr(_team, "_READS", 2)
    monkeypatch.setattr(_team, "_let_others_run", was_offered.set)
    assert claim(board, 0, 1) == 0
    waiting = threading.Thread(target=lambda: found.append(claim(board, 0, 1)))
    waiting.start()
    assert was_offered.wait(60)
    complete(board, 0, 1)
    waiting.join(60)
    assert found == [-1]
