import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import fastml

_FOLDER = str(Path(fastml.__file__).parent.parent)


@pytest.fixture
def run_script(tmp_path):
    """Run a script in a process of its own and return what it prints; a crash, a hang or an error fails the test."""

    if numba.config.DISABLE_JIT:
        pytest.skip("scripts take compiled kernels")

    def run(script, *arguments, timeout=240, **environment):
        path = tmp_path / "script.py"  # a file: multiprocessing imports the main module again
        path.write_text(script, encoding="utf-8")
        environment = {"PYTHONPATH": _FOLDER, **environment}
        environment = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
        command = [sys.executable, "-X", "faulthandler", "-W", "ignore", str(path), *map(str, arguments)]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=tmp_path, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert not result.stderr, result.stderr
        return result.stdout

    return run
