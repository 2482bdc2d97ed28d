"""What may import what, and what ``import fastml`` must not do."""

import ast
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import fastml
from fastml._optional import require

PACKAGE = Path(fastml.__file__).parent
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
KERNELS_MAY_IMPORT = {"numpy", "numba", "llvmlite", "scipy", *sys.stdlib_module_names}


def imported(path):
    """Dotted names of everything that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run_python(code, **environment):
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", FILES)
def test_floors(name):
    """Kernels know nothing above them, Numba is spoken there only, scikit-learn's private names in one file only."""
    names = set(imported(FILES[name]))
    if name.startswith("kernels"):
        foreign = {n for n in names if not n.startswith("fastml.kernels.")}
        assert {n.partition(".")[0] for n in foreign} <= KERNELS_MAY_IMPORT
    else:
        assert not {n for n in names if n.partition(".")[0] in {"numba", "llvmlite"}}
    if name != "_sklearn_compat.py":
        parts = [n.split(".") for n in names if n.startswith("sklearn.")]
        assert not [p for p in parts if "experimental" in p or any(part.startswith("_") for part in p)]


def test_import_changes_nothing_global():
    """Neither the environment, nor warnings, nor Numba's settings, nor threads, nor NumPy's error handling."""
    state = """
import os, signal, sys, threading, warnings
import numba, numpy, scipy.linalg.cython_blas, scipy.optimize, sklearn.base, sklearn.utils.validation, threadpoolctl

def state():
    return {
        "environment": dict(os.environ),
        "warnings": [str(f) for f in warnings.filters],
        "numba": {k: str(v) for k, v in vars(numba.config).items() if k.isupper()},
        "numba threads": numba.get_num_threads(),
        "pools": sorted((p["filepath"], p["num_threads"]) for p in threadpoolctl.threadpool_info()),
        "threads": threading.active_count(),
        "numpy": [str(numpy.geterr()), numpy.geterrcall(), str(numpy.get_printoptions())],
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "recursion": sys.getrecursionlimit(),
        "scikit-learn": str(sklearn.get_config()),
    }

before = state()
import fastml
from fastml import *
after = state()
assert before == after, {k: (before[k], after[k]) for k in before if before[k] != after[k]}
"""
    run_python(state)


def test_import_is_light_and_compiles_nothing(tmp_path):
    code = """
import json, sys
import numba, sklearn.base
from numba.core import event
before = set(sys.modules)
with event.install_recorder("numba:compile") as recorder:
    import fastml
heavy = {"matplotlib", "pandas", "torch", "dask", "pytest"}
print(json.dumps([len(recorder.buffer), sorted(heavy & (set(sys.modules) - before))]))
"""
    assert json.loads(run_python(code, NUMBA_CACHE_DIR=str(tmp_path))) == [0, []]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_import_time():
    """At most 40 % on top of what Numba and scikit-learn take, in seconds of the processor."""
    seconds = {"numba, sklearn.base": [], "numba, sklearn.base, fastml": []}
    for _ in range(5):
        for modules, measured in seconds.items():
            measured.append(float(run_python(f"import {modules}, time; print(time.process_time())")))
    base, ours = map(statistics.median, seconds.values())
    assert ours <= 1.4 * base, seconds


@pytest.mark.parametrize("name", fastml.__all__)
def test_public_names_exist(name):
    assert getattr(fastml, name) is not None
    assert name in dir(fastml)


def test_version():
    assert fastml.__version__.count(".") == 2


def test_missing_optional_dependency():
    with pytest.raises(ImportError, match=r'^The dance needs no_such_module: pip install "fastml\[display\]"'):
        require("no_such_module.part", extra="display", feature="The dance")
    assert require("json", extra="display", feature="The dance") is json
