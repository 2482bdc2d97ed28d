"""Numbers too small for full precision count as zero inside a kernel that says so, and nowhere else."""

import platform

import numpy as np
import pytest
from numba import config

from fastml.kernels._denormals import flush_denormals, restore
from fastml.kernels._jit import kernel
from fastml.optim import Adam

pytestmark = pytest.mark.skipif(
    config.DISABLE_JIT or platform.machine().lower() not in ("x86_64", "amd64"), reason="where it is compiled for x86"
)


@kernel
def halve(x, out):
    mode = flush_denormals()
    for i in range(x.shape[0]):
        out[i, 0] = x[i] * x.dtype.type(0.5)
    restore(mode)
    for i in range(x.shape[0]):
        out[i, 1] = x[i] * x.dtype.type(0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inside_and_outside(dtype):
    tiny = np.finfo(dtype).tiny
    x = np.array([4 * tiny, tiny, tiny / 4], dtype)
    out = np.empty((3, 2), dtype)
    halve(x, out)
    np.testing.assert_array_equal(out, [[2 * tiny] * 2, [0, tiny / 2], [0, tiny / 8]])
    np.testing.assert_array_equal(x / 2, [2 * tiny, tiny / 2, tiny / 8])  # nor is NumPy's mode another one


def test_moments_die_away():
    """The second moment of a parameter that has no gradient any more becomes zero, and not a denormal."""
    params, gradient = [np.ones(64, np.float32)], [np.full(64, 1e-18, np.float32)]
    optimizer = Adam(1e-3)
    state = optimizer.init(params)
    optimizer.update(params, gradient, state)
    assert not state.second[0].any()
