"""Waiting for a flag to change."""

import threading
import time

import numpy as np

from fastml.kernels.waiting import wait_for_change


def test_a_flag_that_has_changed_is_not_waited_for():
    start = time.perf_counter()
    wait_for_change(np.ones(1, np.int64), 0, 10**12, 2)
    assert time.perf_counter() - start < 5


def test_the_wait_has_an_end():
    wait_for_change(np.zeros(1, np.int64), 0, 100, 10**12)


def test_a_change_in_another_thread_is_seen():
    flag = np.zeros(1, np.int64)
    thread = threading.Thread(target=wait_for_change, args=(flag, 0, 10**12, 0), daemon=True)
    wait_for_change(flag, 1, 1, 0)  # compiled
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    flag[0] = 7
    thread.join(10)
    assert not thread.is_alive()
