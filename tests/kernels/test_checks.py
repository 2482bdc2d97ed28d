import numpy as np
import pytest

from fastml.kernels import checks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite(dtype, bad):
    values, found = np.full(300, np.finfo(dtype).max, dtype), np.zeros(1, np.int8)
    checks.non_finite(0, 300, values, found)
    assert found[0] == 0
    values[250] = bad
    checks.non_finite(0, 250, values, found)
    assert found[0] == 0
    checks.non_finite(250, 300, values, found)
    checks.non_finite(0, 100, values, found)
    assert found[0] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probability_faults(dtype):
    target = np.full((8, 4), 0.25, dtype)
    target[1, 2] = np.nan
    target[2, 3] = np.inf
    target[3] = 0.5, -0.5, 0.5, 0.5
    target[4] = 0.5, 0.5, 0.5, 0.5
    target[5] = 0, 0, 0, 0
    target[6] = 1, 0, 0, 0
    target[7] = 0.25 + 1e-4
    fault = np.full(8, 9, np.int8)
    checks.probability_faults(0, 8, target, dtype(1e-3), fault)
    expected = [0, checks.NOT_FINITE, checks.NOT_FINITE, checks.NEGATIVE, checks.NOT_ONE, checks.NOT_ONE, 0, 0]
    assert fault.tolist() == expected
    checks.probability_faults(7, 8, target, dtype(1e-6), fault)
    assert fault[7] == checks.NOT_ONE
