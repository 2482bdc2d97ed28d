"""``python -m fastml``: the tour, info, warmup, and errors in one line."""

import gzip
import io
import os
import re
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastml
from fastml.__main__ import main
from fastml._cli import CommandError
from fastml._cli.idx import read_fashion_mnist, read_idx
from fastml._cli.progress import Progress

pytest.importorskip("matplotlib")

COMMAND = [sys.executable, "-m", "fastml"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fastml.__file__).parents[1])}
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def idx_bytes(array):
    array = np.asarray(array, np.uint8)
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images(tmp_path):
    """A folder with the four files: three classes of 3x3 images that a linear model can tell apart."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for part, n_rows in (("train", 90), ("t10k", 30)):
        y = np.arange(n_rows) % 3
        X = rng.integers(60, size=(n_rows, 3, 3))
        X[np.arange(n_rows), y, y] += 150
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(X)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(y))
    return folder


def run(*command, **options):
    """The result of a command as text, whatever its exit code."""
    options = {"env": ENVIRONMENT, "capture_output": True, "text": True, "check": False} | options
    return subprocess.run(command, **options)


def start(*command, **options):
    """A command that is running, with its output in pipes; it heeds Ctrl-C even if the tests run in the background."""
    if sys.platform != "win32":
        options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, **options)


def assert_one_line_error(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err), captured.err
    assert captured.err.startswith("fastml: ")


def test_tour_in_a_pipe(tmp_path):
    result = run(*COMMAND, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "\r" not in result.stdout
    assert "\x1b" not in result.stdout
    assert "13/13  best rate, all rows" in result.stdout
    assert float(re.search(r"Test accuracy: ([\d.]+)", result.stdout)[1]) >= 0.96
    assert float(re.search(r"([\d.]+) times as fast", result.stdout)[1]) > 1
    picture = tmp_path / "fastml_loss_curve.png"
    assert f"The loss curve: {picture}\n" in result.stdout
    assert picture.read_bytes().startswith(PNG_MAGIC)


def test_tour_of_idx_files(images, tmp_path, capsys):
    output = tmp_path / "picture.of.mine"
    assert main(["tour", "--fashion-mnist", str(images), "--output", str(output)]) == 0
    assert "90 rows to learn from, 30 to test on, 9 features, 3 classes" in capsys.readouterr().out
    assert output.read_bytes().startswith(PNG_MAGIC)


def test_output_is_checked_first_and_left_alone(images, tmp_path, capsys):
    output = tmp_path / "picture.png"
    output.write_bytes(b"kept")
    assert_one_line_error(capsys, ["--output", str(output), "--fashion-mnist", str(tmp_path / "no")], "no folder")
    assert output.read_bytes() == b"kept"
    assert_one_line_error(capsys, ["--output", str(tmp_path / "a.png"), "--fashion-mnist", "no"], "no folder no")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "no/such/folder/a.png"], r"cannot write .*a\.png: No such file"),
        (["--output", "."], "cannot write .*: Is a directory"),
        (["--fashion-mnist", "no_such_folder"], "there is no folder no_such_folder"),
        (["--fashion-mnist", "."], "there is no train-images-idx3-ubyte.gz"),
        (["dance"], "invalid choice: 'dance'"),
        (["--loud"], "unrecognized arguments: --loud"),
        (["--output"], "expected one argument"),
        (["info", "--output", "a.png"], "info takes no options"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line_error(capsys, arguments, message)


def test_error_in_a_process(tmp_path):
    result = run(*COMMAND, "--fashion-mnist", "no", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "fastml: there is no folder no\n"


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("train-images-idx3-ubyte.gz", gzip.compress(b"\0" * 999, mtime=0)[:-9], "damaged or cut short"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(bytes(range(256)), mtime=0)[:12] + b"junk" * 9,
            "damaged or cut short",
        ),
        ("train-images-idx3-ubyte.gz", b"\x1f\x8bnot gzip at all", "cannot read|damaged"),
        ("train-images-idx3-ubyte.gz", b"", "no such idx file: it begins with , not 00000803"),
        ("train-images-idx3-ubyte.gz", idx_bytes(np.zeros(90)), "begins with 00000801, not 00000803"),
        ("train-images-idx3-ubyte.gz", idx_bytes(np.zeros((90, 3, 3)))[:9], "header has 9 of 16 bytes"),
        (
            "train-images-idx3-ubyte.gz",
            idx_bytes(np.zeros((90, 3, 3)))[:-1],
            "holds 809 items where its header says 810",
        ),
        ("train-images-idx3-ubyte.gz", idx_bytes(np.zeros((90, 3, 3))) + b"x", "holds 811 items"),
        ("train-images-idx3-ubyte.gz", idx_bytes(np.zeros((90, 0, 3))), "there are no images"),
        ("train-images-idx3-ubyte.gz", idx_bytes(np.zeros((90, 3, 2))), "differ in size: 6 and 9 pixels"),
        ("train-labels-idx1-ubyte", idx_bytes(np.zeros(89)), "has 90 images and .* has 89 labels"),
        ("train-labels-idx1-ubyte", idx_bytes(np.zeros(90)), "needs two or more classes"),
    ],
)
def test_broken_files(name, contents, message, images):
    (images / name).write_bytes(contents)
    with pytest.raises(CommandError, match=message) as caught:
        read_fashion_mnist(images)
    assert "\n" not in str(caught.value)


def test_reads_plain_and_gzipped_files(images):
    X_train, X_test, y_train, y_test = read_fashion_mnist(images)
    assert (X_train.shape, X_test.shape, X_train.dtype) == ((90, 9), (30, 9), np.float32)
    np.testing.assert_array_equal(y_train, np.arange(90) % 3)
    np.testing.assert_array_equal(read_idx(images / "t10k-labels-idx1-ubyte", 1), y_test)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(images):
    (images / "t10k-labels-idx1-ubyte").chmod(0)
    with pytest.raises(CommandError, match=r"cannot read .*: Permission denied"):
        read_fashion_mnist(images)


def test_info(capsys):
    assert main(["info"]) == 0
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert told["fastml"] == fastml.__version__
    assert told["numpy"] == np.__version__
    assert {"python", "scikit-learn", "numba", "CPU", "cores", "threads", "kernel", "environment"} <= set(told)


def compiled_by(action):
    """Names and signatures of the kernels that some code compiles or loads from the cache."""
    code = f"""
import importlib, pkgutil
from sklearn.datasets import load_iris
import fastml.kernels
from fastml import SoftmaxClassifier
from fastml._cli.warmup import run_warmup
{action}
for name in [module.name for module in pkgutil.iter_modules(fastml.kernels.__path__)]:
    for function in vars(importlib.import_module("fastml.kernels." + name)).values():
        for signature in getattr(function, "signatures", ()):
            print("kernel", name, function.__name__, *signature)
"""
    result = run(sys.executable, "-W", "ignore", "-c", code)
    assert result.returncode == 0, result.stderr
    return {line for line in result.stdout.splitlines() if line.startswith("kernel")}


def test_warmup_leaves_fits_nothing_to_compile():
    ahead = compiled_by("run_warmup()")
    for solver in ("minibatch", "lbfgs"):
        fit = f"SoftmaxClassifier(solver={solver!r}, max_iter=5).fit(X, y).predict_proba(X)"
        needed = compiled_by(f"X, y = load_iris(return_X_y=True); {fit}")
        assert needed
        assert needed <= ahead


def test_warmup_tells_its_steps(monkeypatch, capsys):
    monkeypatch.setattr("fastml._cli.warmup._steps", lambda dtype: [(f"a step in {dtype.__name__}", lambda: None)])
    monkeypatch.setattr("fastml._cli.warmup.cache_folder", lambda: None)
    assert main(["warmup"]) == 0
    first, second, seconds, folder = capsys.readouterr().out.splitlines()
    assert first.startswith("    1/2  a step in float32, ")
    assert second.startswith("    2/2  a step in float64, ")
    assert re.fullmatch(r"2 steps in 0\.\d s", seconds)
    assert folder.startswith("Kernels are kept in no folder, for none can be written")


def test_version_and_help(capsys):
    for argument, told in (("--version", f"fastml {fastml.__version__}"), ("--help", "--fashion-mnist FOLDER")):
        with pytest.raises(SystemExit) as caught:
            main([argument])
        assert not caught.value.code
        assert told in capsys.readouterr().out


def test_interrupt(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(fastml, "show_versions", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "\nfastml: interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_interrupt_in_a_process(tmp_path):
    process = start(*COMMAND, cwd=tmp_path)
    assert process.stdout.readline().startswith("fastml")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert (process.returncode, errors) == (130, "\nfastml: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other pipes")
def test_reader_that_went_away():
    process = start(*COMMAND, "info")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    progress = Progress(total=4)
    with progress.step("first"):
        pass
    drawn = sys.stdout.getvalue().split("\r\x1b[2K")
    assert drawn[1] == f"   [{'.' * 24}] 0/4  first"
    assert drawn[2] == f"   [{'#' * 6}{'.' * 18}] 1/4  first"
    progress.close()
    assert sys.stdout.getvalue().endswith("\r\x1b[2K")


def test_lines_in_a_pipe(capsys):
    progress = Progress(total=2)
    with progress.step("first"):
        pass
    progress.close()
    assert re.fullmatch(r"    1/2  first, 0\.0\d s\n", capsys.readouterr().out)
