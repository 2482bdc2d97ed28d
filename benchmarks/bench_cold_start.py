"""The first minute: importing fastml, a first fit where nothing is compiled yet, and one where all is in the cache.

``pytest benchmarks/bench_cold_start.py --benchmark-json=start.json`` runs each in processes of its own with a
``NUMBA_CACHE_DIR`` of its own; ``python benchmarks/bench_cold_start.py`` prints seconds.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPEATS = 5
IMPORTS = {"import fastml": "fastml", "import sklearn.linear_model": "sklearn.linear_model", "import torch": "torch"}
FITS = {  # the estimator's name, and a fit
    'SoftmaxClassifier(solver="minibatch")': ("SoftmaxClassifier", "SoftmaxClassifier(max_iter=5).fit(X, y)"),
    'SoftmaxClassifier(solver="lbfgs")': ("SoftmaxClassifier", 'SoftmaxClassifier(solver="lbfgs").fit(X, y)'),
    'LogisticClassifier(solver="lbfgs")': ("LogisticClassifier", 'LogisticClassifier(solver="lbfgs").fit(X, y)'),
    "LinearRegressor()": ("LinearRegressor", "LinearRegressor(max_iter=5).fit(X, y)"),
    "MLPClassifier()": ("MLPClassifier", "MLPClassifier(max_iter=5).fit(X, y)"),
    "WALS()": ("WALS", "WALS(max_iter=2).fit(seen)"),
    "TwoTower()": ("TwoTower", "TwoTower(max_iter=2).fit(X, X)"),
    "SampledMF()": ("SampledMF", "SampledMF(max_iter=2).fit(seen)"),
}
TIMED_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
TIMED_FITS = """
import json, time, warnings
import numpy as np
from scipy.sparse import random_array
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, y = rng.standard_normal((1000, 20), dtype=np.float32), np.arange(1000) % 5
seen = random_array((1000, 500), density=0.02, format="csr", dtype=np.float32, rng=rng)
from fastml import {name}
seconds = []
for _ in range(2):
    start = time.perf_counter()
    {fit}
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""
ROOT = Path(__file__).resolve().parents[1]


def run(code, cache):
    """What a new process prints, as JSON."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def import_seconds(module, repeats=REPEATS):
    """Median seconds of an import in a new process, after one that fills the caches of the system."""
    with tempfile.TemporaryDirectory() as cache:
        seconds = [run(TIMED_IMPORT.format(module), cache) for _ in range(1 + repeats)]
    return {"import": statistics.median(seconds[1:])}


def fit_seconds(name, fit, repeats=REPEATS):
    """Seconds of a first fit with nothing compiled, of one with all in the cache, and of the next in that process."""
    code = TIMED_FITS.format(name=name, fit=fit)
    with tempfile.TemporaryDirectory() as cache:
        compiling = run(code, cache)[0]
        first, second = zip(*(run(code, cache) for _ in range(repeats)), strict=True)
    return {"empty cache": compiling, "full cache": statistics.median(first), "next": statistics.median(second)}


def exists(name):
    """Whether fastml has this estimator."""
    import fastml

    return hasattr(fastml, name)


@pytest.mark.parametrize("what", IMPORTS)
def test_import(benchmark, small, what):
    module = IMPORTS[what]
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed")
    benchmark.group = f"cold start: {what}"
    found = benchmark.pedantic(lambda: import_seconds(module, 1 if small else REPEATS), rounds=1)
    benchmark.extra_info["cold_start"] = found


@pytest.mark.parametrize("what", FITS)
def test_first_fit(benchmark, small, what):
    if small or not exists(FITS[what][0]):
        pytest.skip("compiles for seconds and asserts nothing, or there is no such estimator")
    benchmark.group = f"cold start: {what}"
    benchmark.extra_info["cold_start"] = benchmark.pedantic(lambda: fit_seconds(*FITS[what]), rounds=1)


def main():
    """Print seconds."""
    for what, module in IMPORTS.items():
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            print(f"{what:40} {import_seconds(module)['import']:.2f} s", flush=True)
    for what, (name, fit) in FITS.items():
        if exists(name):
            print(f"{what:40}", ", ".join(f"{k} {v:.3f} s" for k, v in fit_seconds(name, fit).items()), flush=True)


if __name__ == "__main__":
    main()
