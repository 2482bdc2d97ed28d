"""Machine code is kept where that is possible, never served stale, and never the reason of an error."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target

import fastml
from fastml.kernels import _jit

compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")

# Prints how many functions were compiled, and a result that ``kernels/_math.py`` has a part in.
SCRIPT = """
import json, sys
import numpy as np
from numba.core import event
from fastml import functional
from fastml.kernels._jit import cache_folder
with event.install_recorder("numba:compile") as recorder:
    result = functional.log_sum_exp(np.zeros((2, 3), np.float32))[0]
print(json.dumps([len(recorder.buffer), float(result), cache_folder()]))
"""
LOG_3 = pytest.approx(np.log(3), rel=1e-6)

# ---------------------------------------------------------------------------------------------------- whole processes


@pytest.fixture
def package(tmp_path):
    """A copy of the package that may be edited."""
    source = Path(fastml.__file__).parent
    copy = tmp_path / "site" / "fastml"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def compute(run_script, package):
    def run(**environment):
        environment = {"PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": None, **environment}
        return tuple(json.loads(run_script(SCRIPT, **environment)))

    return run


def cached(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.suffix == ".nbc")


@compiled_only
def test_edited_source_is_never_served_stale(compute, package):
    """Not even one that lies in another file than the kernel, and kept its time of modification."""
    n_compiled, result, folder = compute()
    assert n_compiled > 0
    assert result == LOG_3
    assert Path(folder) == package / "kernels" / "__pycache__"
    assert compute()[:2] == (0, LOG_3)
    files = cached(package)

    math = package / "kernels" / "_math.py"
    original, times = math.read_text(encoding="utf-8"), math.stat()
    more = "\n\n_exact_log = log\n\n\n@exact_point\ndef log(x):\n    return _exact_log(x) + type(x)(1)\n"
    math.write_text(original + more, encoding="utf-8")
    os.utime(math, ns=(times.st_atime_ns, times.st_mtime_ns))
    n_compiled, result, _ = compute()
    assert n_compiled > 0
    assert result == pytest.approx(1 + np.log(3), rel=1e-6)
    assert cached(package) == files  # what is stale makes room


@compiled_only
def test_damaged_files_are_compiled_anew(compute, tmp_path):
    folder = tmp_path / "kept here"
    assert compute(NUMBA_CACHE_DIR=str(folder))[1] == LOG_3
    files = cached(folder)
    assert files
    for path in files:
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    n_compiled, result, used = compute(NUMBA_CACHE_DIR=str(folder))
    assert n_compiled > 0
    assert result == LOG_3
    assert Path(used).is_relative_to(folder)
    assert cached(folder) == files


def test_no_folder_to_write_to(run_script, package):
    """Read-only site-packages, no home: both in a way that stops root, too."""
    for folder in package.rglob("*"):
        if folder.is_dir():
            (folder / "__pycache__").touch()
    out = run_script(
        """
from sklearn.datasets import load_iris
from fastml import SoftmaxClassifier
from fastml.kernels._jit import cache_folder
X, y = load_iris(return_X_y=True)
print(cache_folder(), SoftmaxClassifier(random_state=0).fit(X, y).score(X, y) > 0.9)
""",
        PYTHONPATH=str(package.parent),
        PYTHONDONTWRITEBYTECODE="1",
        NUMBA_CACHE_DIR="/proc/nonexistent",
        HOME="/proc/nonexistent",
        XDG_CACHE_HOME=None,
    )
    assert out.split() == ["None", "True"]
    assert not cached(package.parent.parent)


def test_disabled_compiler(compute):
    assert compute(NUMBA_DISABLE_JIT="1")[:2] == (0, LOG_3)


# -------------------------------------------------------------------------------------------------------- its pieces


def double(x, out):
    for i in range(x.shape[0]):
        out[i] = 2 * x[i]


def call(kernel):
    out = np.empty(3)
    kernel(np.ones(3), out)
    assert (out == 2).all()
    return kernel


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_jit, "cache_folder", lambda: str(tmp_path))
    return tmp_path


def found(kernel):
    """Whether the cache has machine code for the only signature of this kernel."""
    (sig,) = kernel.signatures
    return kernel._cache.load_overload(sig, cpu_target.target_context) is not None


DAMAGES = {
    "empty": lambda data: b"",
    "no digest": lambda data: b"garbage",
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: data[:100] + bytes(len(data) - 100),
    "another digest": lambda data: b"0" + data[1:] if data[:1] != b"0" else b"1" + data[1:],
    "a pickle": lambda data: pickle.dumps("something else"),
}


@compiled_only
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen(folder, damage):
    kernel = call(_jit.kernel(double))
    (path,) = cached(folder)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert not found(kernel)


@compiled_only
def test_every_setting_has_a_file_of_its_own(folder, monkeypatch):
    call(_jit.kernel(double))
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", not numba.config.BOUNDSCHECK)
    other = call(_jit.kernel(double))
    assert len(cached(folder)) == 2
    monkeypatch.setattr(numba.config, "OPT", 1)
    assert not found(other)


@compiled_only
def test_kernels_of_one_name_are_not_mixed_up(folder):
    def times(factor):
        def product(x, out):
            for i in range(x.shape[0]):
                out[i] = factor * x[i]

        return _jit.kernel(product)

    out = np.empty(3)
    for factor in 2, 3, 4:
        times(factor)(np.ones(3), out)
        assert (out == factor).all()
    assert len(cached(folder)) == 3


@compiled_only
@pytest.mark.parametrize("step", ["write_bytes", "replace", "unlink"])
def test_a_full_disk_is_no_error(folder, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, step, full)
    call(_jit.kernel(double))
    if step != "unlink":
        assert not list(folder.iterdir())


@compiled_only
def test_a_folder_that_went_away_is_no_error(folder, monkeypatch):
    kernel = _jit.kernel(double)
    monkeypatch.setattr(_jit, "cache_folder", lambda: str(folder / "gone"))
    call(kernel)


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """Neither HOME nor an entry in the list of users, and the package is not writable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(_jit, "InTreeCacheLocator", _jit.UserProvidedCacheLocator)


@pytest.mark.usefixtures("no_home")
def test_no_folder_in_the_current_one(tmp_path):
    assert _jit.cache_folder.__wrapped__() is None
    assert not list(tmp_path.iterdir())


def test_cache_dir_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert Path(_jit.cache_folder.__wrapped__()).is_relative_to(tmp_path)
