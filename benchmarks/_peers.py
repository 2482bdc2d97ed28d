"""What benchmarks share: peers that may be absent, side-by-side timing, and the limits of the machine."""

import functools
import statistics
import time
import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from _memory import MemoryWatch
from numba import njit
from sklearn.exceptions import ConvergenceWarning

import fastml
from fastml.runtime import run_blocks, run_tasks, thread_count

try:
    import torch
except ImportError:
    torch = None
try:
    import jax
except ImportError:
    jax = None

N_THREADS = thread_count()
PEAKS = {}  # package of an estimator: the most bytes beyond what was there in the fit of it that was timed last
_BLOCK = 2**18
_PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "torch", "jax", "implicit", "irspack")


def peer_versions():
    """Versions of fastml, of what it stands on and of the peers that are installed."""
    versions = {"fastml": fastml.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            pass
    return versions


def is_installed(name):
    """Whether a candidate can run: ``torch.compile`` needs torch, ``numpy`` is there."""
    return {"torch": torch, "jax": jax}.get(name.partition(".")[0], np) is not None


def use_all_threads():
    """Give PyTorch the threads that fastml has."""
    if torch is not None:
        torch.set_num_threads(N_THREADS)


def jax_step(loss_of, *arrays, fixed=()):
    """Value of ``loss_of(*arrays, *fixed)`` and gradients by ``arrays`` under ``jax.jit``, on the cores it finds."""
    step = jax.jit(jax.value_and_grad(loss_of, argnums=tuple(range(len(arrays)))))
    inside = [jax.numpy.asarray(array) for array in (*arrays, *fixed)]

    def run():
        loss, grads = jax.block_until_ready(step(*inside))
        return np.asarray(loss), *map(np.asarray, grads)

    return run


def compare(functions, rounds):
    """Median seconds of each named function, taken in turns, so that a slow moment of the machine hits all of them.

    A turn is a loop, as training is: what is timed comes after some calls that are not, in which the threads of the
    last candidate stop spinning and those of this one find their cores. Of calls that take seconds one is timed.
    """
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            is_long = time.perf_counter() > begin + 1
            while time.perf_counter() < begin + 0.05:
                function()
            for _ in range(1 if is_long else 3):
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def timed(function, repeats=1):
    """Result, and the least seconds of a call."""
    best, peak = np.inf, 0
    for _ in range(repeats):
        with MemoryWatch() as watch, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = time.perf_counter()
            result = function()
            best = min(best, time.perf_counter() - start)
        peak = max(peak, watch.extra or 0)
    PEAKS[type(result).__module__.partition(".")[0]] = peak or None
    return result, best


def medians_in_turns(*functions, rounds=5):
    """Median seconds of each function, called in turns: of fits, which a slow moment of the machine would spoil."""
    seconds = [[timed(function)[1] for function in functions] for _ in range(rounds)]
    return np.median(seconds, axis=0)


def print_comparisons(comparisons, wanted):
    """Print the median of three ratios for each comparison whose name holds one of the ``wanted`` words.

    A comparison is (function, data, options); the function gives seconds of the peer, seconds of fastml, a note, and
    perhaps how many passes over the data fastml made.
    """
    print(f"{N_THREADS} threads")
    for name, (function, data, options) in comparisons.items():
        if wanted and not any(word in name for word in wanted):
            continue
        arrays = data()
        results = sorted((function(*arrays, **options) for _ in range(3)), key=lambda r: r[0] / r[1])
        theirs, ours, note, *_ = results[1]
        ratios = ", ".join(f"{r[0] / r[1]:.1f}" for r in results)
        print(f"{name:40} {theirs:7.3f} s {ours:7.3f} s {theirs / ours:5.1f}x  (all: {ratios})  {note}", flush=True)


@njit(nogil=True, fastmath={"contract"})
def _triad(start, stop, a, b, c):
    x, y, z = a[start:stop], b[start:stop], c[start:stop]
    for i in range(len(x)):
        z[i] = x[i] + np.float32(3) * y[i]


def triad(n, a, b, c):
    """``c = a + 3 b`` on all threads."""
    run_blocks(_triad, n, _BLOCK, N_THREADS, a, b, c)


def copy(n, source, target):
    """``target = source`` on all threads, in the blocks that kernels run in."""

    def block(task, slot):
        part = slice(task * _BLOCK, (task + 1) * _BLOCK)
        np.copyto(target[part], source[part])

    run_tasks(block, -(-n // _BLOCK), N_THREADS)


@functools.cache
def machine(n=2**27, size=2048):
    """Limits of this machine: GB/s of copies (one read, one write) and of the triad, GFLOP/s of sgemm."""
    a, b, c = (np.full(n, 1, np.float32) for _ in range(3))
    x = np.ones((size, size), np.float32)
    y = np.empty_like(x)
    seconds = compare(
        {
            "copy": lambda: copy(n, a, c),
            "copy_to_new_memory": lambda: copy(n, a, np.empty_like(a)),
            "triad": lambda: triad(n, a, b, c),
            "sgemm": lambda: np.matmul(x, x, out=y),
        },
        rounds=7,
    )
    work = {"copy": 8 * n, "copy_to_new_memory": 8 * n, "triad": 12 * n, "sgemm": 2 * size**3}
    return {name: work[name] / seconds[name] / 1e9 for name in work}
