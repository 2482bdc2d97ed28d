"""What a bug report needs to know about this machine."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from joblib import cpu_count
from threadpoolctl import threadpool_info

from fastml.kernels._jit import cache_folder
from fastml.kernels._machine import cpu_features, cpu_name, llvm_version
from fastml.runtime import thread_count

_PACKAGES = ("numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl", "numba", "llvmlite", "matplotlib", "pyarrow")
_SETTINGS = ("MKL_", "NUMBA_", "OMP_", "OPENBLAS_")  # beginnings of names in the environment
_VECTOR_FEATURES = ("sse2", "avx", "avx2", "fma", "avx512", "neon", "sve")


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _libraries():
    """The thread pools of other libraries, one line each: ``openblas 0.3.30, 2 threads (numpy.libs)``."""
    lines = []
    for pool in threadpool_info():
        name = " ".join(filter(None, (pool["internal_api"], pool["version"])))
        lines.append(f"{name}, {pool['num_threads']} threads: {pool['filepath']}")
    return lines or ["none loaded"]


def _settings():
    """What the environment says of threads, BLAS and Numba."""
    names = sorted(name for name in os.environ if name.startswith(_SETTINGS))
    return " ".join(f"{name}={os.environ[name]}" for name in names) or "nothing set of threads, BLAS or Numba"


def _facts():
    """Pairs of a label and what there is to say."""
    from fastml import __version__

    yield "fastml", __version__
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for package in _PACKAGES:
        yield package, _installed(package)
    yield "LLVM", llvm_version()
    yield "platform", platform.platform()
    yield "CPU", cpu_name()
    yield "vector units", " ".join(name for name in cpu_features() if name.startswith(_VECTOR_FEATURES))
    yield "cores", f"{os.cpu_count()}, of which this process may use {cpu_count()}"
    yield "threads", f"{thread_count()}, a pool of fastml's own: Numba's threading layer is not used"
    for line in _libraries():
        yield "thread pool", line
    yield "kernel cache", cache_folder() or "no writable folder: kernels are compiled anew in each process"
    yield "environment", _settings()


def show_versions():
    """Print versions, the processor, cores and threads, BLAS, the folder of compiled kernels, and settings of them.

    Add its output to a bug report.

    Examples
    --------
    >>> import fastml
    >>> fastml.show_versions()  # doctest: +ELLIPSIS
    fastml         ...
    """
    for label, value in _facts():
        print(f"{label:<14} {value}")
