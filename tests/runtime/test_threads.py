import gc
import threading
import time
import tracemalloc
import weakref

import joblib
import numpy as np
import pytest

from fastml.runtime import _threads, run_blocks, run_tasks, thread_count


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "fastml-worker"]


def idle():
    """Wait until no worker holds on to a job."""
    deadline = time.monotonic() + 30
    while not _threads._pool.offers.empty() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------- work


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 7, 300])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
def test_every_task_once_and_no_slot_twice_at_a_time(n_tasks, n_threads):
    done, busy = [], [threading.Lock() for _ in range(n_threads)]

    def task(number, slot):
        assert busy[slot].acquire(blocking=False)
        time.sleep(1e-4)
        done.append(number)
        busy[slot].release()

    run_tasks(task, n_tasks, n_threads)
    assert sorted(done) == list(range(n_tasks))


def test_blocks_cover_all_rows():
    seen = np.zeros(103, int)

    def kernel(start, stop, array):
        array[start:stop] += 1

    run_blocks(kernel, len(seen), 10, 4, seen)
    run_blocks(kernel, 0, 10, 4, seen)
    assert (seen == 1).all()


def both_meet():
    """A task that only returns once two threads are in it."""
    barrier = threading.Barrier(2, timeout=60)
    return lambda task, slot: barrier.wait()


def test_tasks_run_at_the_same_time():
    run_tasks(both_meet(), 2, 2)


@pytest.mark.parametrize("where", ["caller", "worker"])
def test_error_reaches_the_caller_and_stops_the_others(where):
    barrier, begun = threading.Barrier(2, timeout=60), []

    def task(number, slot):
        begun.append(number)
        if number < 2:
            barrier.wait()
            if (slot == 0) == (where == "caller"):
                raise ZeroDivisionError(where)
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError, match=where):
        run_tasks(task, 1000, 2)
    assert len(begun) < 100
    run_tasks(both_meet(), 2, 2)


def test_the_caller_waits_for_running_tasks_before_it_raises():
    barrier, ended = threading.Barrier(2, timeout=60), []

    def task(number, slot):
        barrier.wait()
        if slot == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_tasks(task, 2, 2)
    assert len(ended) == 1


def test_nested():
    results = np.zeros((8, 8))

    def outer(i, slot):
        def inner(j, slot):
            results[i, j] += 1

        run_tasks(inner, 8, 4)

    run_tasks(outer, 8, 4)
    assert (results == 1).all()


def test_many_callers():
    results = np.zeros((50, 200))

    def caller(i):
        def task(j, slot):
            results[i, j] += 1

        for _ in range(20):
            run_tasks(task, 200, 4)

    callers = [threading.Thread(target=caller, args=(i,), daemon=True) for i in range(50)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
        assert not thread.is_alive()
    assert (results == 20).all()


# ---------------------------------------------------------------------------------------------------------- leftovers


def test_many_jobs_leave_neither_threads_nor_memory():
    def jobs(n):
        for _ in range(n):
            run_tasks(lambda task, slot: None, 4, 3)
        idle()

    jobs(100)
    n_threads = threading.active_count()
    tracemalloc.start()
    try:
        jobs(100)
        before = tracemalloc.get_traced_memory()[0]
        jobs(3000)
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()
    assert threading.active_count() == n_threads


@pytest.mark.parametrize("fails", [False, True])
def test_arrays_are_let_go_without_the_garbage_collector(fails):
    array = np.zeros(3)
    gone = weakref.ref(array)
    barrier = threading.Barrier(2, timeout=60)

    def task(number, slot, array=array):
        if number < 2:
            barrier.wait()
        if slot and fails:
            raise ZeroDivisionError

    gc.disable()
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                run_tasks(task, 100, 2)
        else:
            run_tasks(task, 100, 2)
        del array, task
        idle()
        assert gone() is None
    finally:
        gc.enable()


def test_a_stale_offer_takes_no_worker_away():
    """Jobs that ended before a worker came must not delay those that follow, however many there are."""
    for _ in range(500):
        run_tasks(lambda task, slot: None, 2, 2)
    for _ in range(20):
        run_tasks(both_meet(), 2, 2)


# --------------------------------------------------------------------------------------------------------- no threads


def no_thread(self):
    raise RuntimeError("can't start new thread")


def test_without_any_thread_the_caller_does_the_work(monkeypatch):
    monkeypatch.setattr(_threads, "_pool", _threads._Pool())
    done = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        run_tasks(lambda task, slot: done.append((task, slot)), 5, 4)
    assert done == [(i, 0) for i in range(5)]
    run_tasks(both_meet(), 2, 2)  # later there are threads again


def test_fewer_threads_than_asked_for(monkeypatch):
    monkeypatch.setattr(_threads, "_pool", _threads._Pool())
    run_tasks(both_meet(), 2, 2)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    run_tasks(both_meet(), 2, 16)


def test_workers_are_daemons_and_as_many_as_asked_for():
    run_tasks(lambda task, slot: None, 100, 3)
    before = len(workers())
    assert before >= 2
    assert all(thread.daemon for thread in workers())
    run_tasks(lambda task, slot: None, 100, 2)
    assert len(workers()) == before


# ------------------------------------------------------------------------------------------------------------- n_jobs


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(_threads, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("n_jobs", "expected"),
    [(None, 4), (1, 1), (2, 2), (100, 100), (-1, 4), (-2, 3), (-4, 1), (-100, 1), (np.int64(3), 3), (True, 1)],
)
def test_n_jobs(n_jobs, expected):
    assert thread_count(n_jobs) == expected


@pytest.mark.parametrize(("n_jobs", "error"), [(0, ValueError), ("2", TypeError), (2.0, TypeError), ([2], TypeError)])
def test_bad_n_jobs(n_jobs, error):
    with pytest.raises(error, match="n_jobs"):
        thread_count(n_jobs)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("configured", "expected"), [(1, 1), (3, 3), (-1, 4), (-2, 3)])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib_configuration(backend, configured, expected):
    with joblib.parallel_config(backend=backend, n_jobs=configured):
        assert thread_count() == expected
        assert thread_count(2) == 2
    assert thread_count() == 4


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("3", 3), ("64", 4), ("2,1", 2), ("", 4), ("many", 4)])
def test_omp_num_threads(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert thread_count() == expected
    assert thread_count(-1) == 4


@pytest.mark.usefixtures("four_cores")
def test_one_thread_in_a_worker_of_joblib():
    counts = joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(thread_count)(n) for n in (None, 3, -1))
    assert counts == [1, 3, 4]
