"""What users do to processes: threads, forks, pools of processes, Ctrl-C, and leaving. Each in a process of its own."""

import multiprocessing
import os

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

PRELUDE = """
import faulthandler, os, random, signal, sys, threading, time
import numpy as np
import threadpoolctl
from scipy import sparse
import fastml.runtime._blas_limit, fastml.runtime._threads
from fastml import SoftmaxClassifier

faulthandler.dump_traceback_later(200, exit=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it

def rows(n, d, n_classes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(np.float32)
    return X, (X @ rng.normal(size=(d, n_classes)).astype(np.float32)).argmax(axis=1)

def fit(name, n_jobs=4, max_iter=None):
    X, y = DATA["dense" if "dense" in name else "sparse"]
    if "lbfgs" in name:
        options = {"solver": "lbfgs", "max_iter": max_iter or 5}
    else:  # steps so large that they go to the threads
        options = {"batch_size": 4096, "max_iter": max_iter or 2}
    model = SoftmaxClassifier(random_state=0, n_jobs=n_jobs, **options).fit(X, y)
    return model.coef_.tobytes() + model.intercept_.tobytes()

def sparsely(X):
    return sparse.csr_array(X * (X > 1))

NAMES = "dense minibatch", "dense lbfgs", "sparse minibatch", "sparse lbfgs"
X, y = rows(8192, 64, 100)
DATA = {"dense": (X, y), "sparse": (sparsely(X), y)}

def blas_threads():
    return [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]

def at_rest():
    limit = fastml.runtime._blas_limit._limit
    return not limit.holders and not limit.before and not limit.lock.locked()

def workers_work():
    barrier = threading.Barrier(2, timeout=60)
    fastml.runtime.run_tasks(lambda task, slot: barrier.wait(), 2, 2)

BLAS = blas_threads()
"""


def test_eight_threads_fit_as_one(run_script):
    run_script(
        PRELUDE
        + """
alone, results = {}, []

def fit_all(first):  # the very first fits, too: eight threads compile the same kernels
    results.append({name: fit(name) for name in NAMES[first % 4:] + NAMES[:first % 4]})

threads = [threading.Thread(target=fit_all, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert at_rest() and blas_threads() == BLAS
alone = {name: fit(name, n_jobs=1) for name in NAMES}
assert len(results) == 8
for result in results:
    assert [name for name in NAMES if result[name] != alone[name]] == []
workers_work()
"""
    )


@needs_fork
def test_fork(run_script):
    """After a fit, in the middle of fits of another thread, and from inside of one."""
    run_script(
        PRELUDE
        + """
expected = {name: fit(name) for name in NAMES}

def in_child(check):
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)
        try:
            check()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def check():
    assert at_rest() and blas_threads() == BLAS
    for name in NAMES:
        assert fit(name) == expected[name]
    assert at_rest() and blas_threads() == BLAS
    workers_work()

in_child(check)
in_child(lambda: in_child(check))

stop = threading.Event()

def fit_on():
    while not stop.is_set():
        for name in NAMES:
            fit(name)

other = threading.Thread(target=fit_on)
other.start()
for _ in range(6):
    time.sleep(random.uniform(0, 0.1))
    in_child(check)
stop.set()
other.join()

with fastml.runtime.blas_limited():
    in_child(check)
assert at_rest() and blas_threads() == BLAS
"""
    )


METHODS = sorted({"fork", "spawn", "forkserver"} & set(multiprocessing.get_all_start_methods()))


def test_multiprocessing(run_script):
    run_script(
        PRELUDE
        + """
import concurrent.futures, multiprocessing

if __name__ == "__main__":
    expected = [fit(name) for name in NAMES]
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            assert list(executor.map(fit, NAMES)) == expected, method
    assert [fit(name) for name in NAMES] == expected
""",
        *METHODS,
    )


def test_grid_search_under_joblib(run_script):
    run_script(
        PRELUDE
        + """
import joblib
from sklearn.model_selection import GridSearchCV

def threads():
    return fastml.runtime.thread_count()

def search(X, y, n_jobs):
    grid = {"alpha": [1e-4, 1e-2], "solver": ["minibatch", "lbfgs"]}
    model = SoftmaxClassifier(max_iter=3, batch_size=2048, random_state=0)
    model = GridSearchCV(model, grid, n_jobs=n_jobs, cv=2).fit(X, y)
    return model.cv_results_["mean_test_score"].tolist(), model.best_estimator_.coef_.tobytes()

if __name__ == "__main__":
    expected = [search(*data, n_jobs=1) for data in DATA.values()]
    for backend in "loky", "threading", "multiprocessing":
        with joblib.parallel_config(backend=backend):
            assert [search(*data, n_jobs=2) for data in DATA.values()] == expected, backend
            counts = set(joblib.Parallel(n_jobs=2)(joblib.delayed(threads)() for _ in range(4)))
        assert counts == {max(joblib.cpu_count() // 2, 1) if backend == "loky" else 1}, counts
        assert at_rest() and blas_threads() == BLAS
    workers_work()
""",
        OMP_NUM_THREADS=None,
    )


INTERRUPTED = {
    "whole epochs in a kernel": ("dense", 300_000, 32, 10, {"batch_size": 64}),
    "whole epochs of CSR": ("sparse", 300_000, 32, 10, {"batch_size": 64}),
    "steps in threads": ("dense", 40_000, 64, 500, {"batch_size": 10_000}),
    "steps in threads of CSR": ("sparse", 40_000, 64, 500, {"batch_size": None}),
    "lbfgs": ("dense", 200_000, 64, 20, {"solver": "lbfgs"}),
    "lbfgs of CSR": ("sparse", 200_000, 64, 20, {"solver": "lbfgs"}),
}


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c(run_script):
    out = run_script(
        PRELUDE
        + """
expected = {name: fit(name) for name in NAMES}
for name, (kind, n, d, n_classes, options) in eval(sys.argv[1]).items():
    X, y = rows(n, d, n_classes)
    X = X if kind == "dense" else sparsely(X)
    options = {"max_iter": 10**6, "tol": 0.0, "alpha": 0.0, "n_iter_no_change": 10**6, "n_jobs": 2, **options}
    SoftmaxClassifier(**{**options, "max_iter": 1}).fit(X, y)
    model, sent = SoftmaxClassifier(**options), []
    before = dict(vars(model))

    def press():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.4, press).start()
    try:
        model.fit(X, y)
    except KeyboardInterrupt:
        print(time.perf_counter() - sent[0])
    else:
        raise AssertionError(f"{name} was not interrupted")
    assert vars(model) == before, name
    assert at_rest() and blas_threads() == BLAS, name
    workers_work()
assert all(fit(name) == expected[name] for name in NAMES)
""",
        INTERRUPTED,
    )
    seconds = [float(line) for line in out.split()]
    assert len(seconds) == len(INTERRUPTED)
    assert max(seconds) < 4  # one on a machine that does nothing else


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_at_any_time(run_script):
    """Hundreds of interrupts at random times in short fits: nothing is ever left locked, limited or half-fitted."""
    out = run_script(
        PRELUDE
        + """
import fastml.training.problem

sys.unraisablehook = lambda report: None  # an interrupt may hit a destructor, anybody's
fastml.training.problem.Problem.kernel_limit = 0  # small steps in threads
signal.signal(signal.SIGALRM, signal.default_int_handler)
X, y = rows(600, 16, 5)
DATA = {"dense": (X, y), "sparse": (sparsely(X), y)}
expected, lasts = {}, {}
for name in NAMES:
    expected[name] = fit(name)
    start = time.perf_counter()
    fit(name)
    lasts[name] = time.perf_counter() - start
counts, end = {name: 0 for name in NAMES}, time.monotonic() + 4
while time.monotonic() < end or min(counts.values()) < 5:
    for name in NAMES:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1.2 * lasts[name]))
            fit(name)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            counts[name] += 1
        assert at_rest(), name
assert blas_threads() == BLAS
assert all(fit(name) == expected[name] for name in NAMES)
workers_work()
assert threading.active_count() < 10
print(sum(counts.values()))
"""
    )
    assert int(out) >= 20


@needs_fork
def test_leaving_while_blocks_run(run_script):
    """The interpreter goes away while workers sleep, and while they and a daemon thread are in a block.

    The daemon thread does not fit, as the checks of a fit go through C++ of NumPy and SciPy, which before Python 3.14
    may abort where a thread is ended.
    """
    run_script(
        PRELUDE
        + """
from fastml import functional

expected = [fit(name) for name in NAMES]
X, y = DATA["dense"]
W = np.zeros((100, 64), np.float32)

def run_on():
    while True:
        functional.linear_softmax_cross_entropy_grad(X, W, None, y)

faulthandler.cancel_dump_traceback_later()  # in a fork it would wait for its own thread
for i in range(8):
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)
        if i:
            threading.Thread(target=run_on, daemon=True).start()
            time.sleep(random.uniform(0, 0.2))
        else:
            fit("dense minibatch")
        sys.exit(7)
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 7, status
"""
    )
