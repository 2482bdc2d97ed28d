"""The update rules: what they do to parameters and moments, over any range of them."""

import naive
import numpy as np
import pytest

from fastml.kernels import _rules as rules
from fastml.kernels import optimizers as kernels

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}
SGD_SETTINGS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
]
ADAM_SETTINGS = [{}, {"beta_1": 0.0}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}, {"weight_decay": 0.1}]
CASES = [(rules.SGD, s) for s in SGD_SETTINGS] + [(rules.ADAM, s) for s in ADAM_SETTINGS]


def hyper_of(rule, settings, dtype):
    """The settings as kernels take them."""
    if rule == rules.SGD:
        values = settings.get("momentum", 0), 0, 0, settings.get("nesterov", False)
    else:
        defaults = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, **settings}
        values = defaults["beta_1"], defaults["beta_2"], defaults["epsilon"], 0
    return np.array([*values, settings.get("weight_decay", 0)], dtype)


def moments_of(rule, settings, n, dtype):
    """Empty where the rule has no use for one."""
    has_first = rule == rules.ADAM or settings.get("momentum", 0) > 0
    return np.zeros(n if has_first else 0, dtype), np.zeros(n if rule == rules.ADAM else 0, dtype)


def run(rule, settings, w, gradients, rates, l1=0.0, factor=1.0):
    """Parameters after one update with each gradient."""
    kind = w.dtype.type
    w, moments = w.copy(), moments_of(rule, settings, len(w), kind)
    for step, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        scalars = rule, rate, step, hyper_of(rule, settings, kind), kind(l1), kind(factor)
        kernels.update(0, len(w), w, g, *moments, *scalars)
    return w, moments


def expected(rule, settings, w, gradients, rates, l1=0.0, factor=1.0):
    w, state, update = w.astype(np.float64), None, naive.sgd if rule == rules.SGD else naive.adam
    for step, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        w, state = update(w, factor * g.astype(np.float64), state, rate, step, l1=l1, **settings)
    return w


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("l1", [0.0, 0.02])
@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_updates(rule, settings, l1, factor, dtype):
    rng = np.random.default_rng(0)
    w, gradients, rates = (
        rng.standard_normal(37).astype(dtype),
        rng.standard_normal((6, 37)).astype(dtype),
        0.3 / np.arange(1, 7),
    )
    got, _ = run(rule, settings, w, gradients, rates, l1, factor)
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got,
        expected(rule, settings, w, gradients, rates, l1, factor),
        rtol=20 * TOLERANCE[dtype],
        atol=20 * TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_only_its_range_is_written_and_parts_make_the_whole(rule, settings, dtype):
    rng = np.random.default_rng(1)
    w, g = rng.standard_normal((2, 50)).astype(dtype)
    whole, _ = run(rule, settings, w, [g], [0.1], l1=0.01)
    first, second = moments_of(rule, settings, 50, dtype)
    scalars = rule, 0.1, 1, hyper_of(rule, settings, dtype), dtype(0.01), dtype(1)
    part = w.copy()
    kernels.update(10, 30, part, g, first, second, *scalars)
    outside = np.r_[:10, 30:50]
    np.testing.assert_array_equal(part[outside], w[outside])
    for moment in first, second:
        assert not moment[outside[: len(moment)]].any()
    kernels.update(0, 10, part, g, first, second, *scalars)
    kernels.update(30, 50, part, g, first, second, *scalars)
    np.testing.assert_allclose(part, whole, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "settings"), [CASES[0], CASES[2], CASES[5]])
def test_l1_leaves_real_zeros_and_no_negative_side(rule, settings, dtype):
    w = np.array([0.5, -0.5, 1e-3, -1e-3, 0.0], dtype)
    still = [np.zeros_like(w)] * 40
    got, _ = run(rule, settings, w, still, [0.1] * 40, l1=0.2)
    np.testing.assert_array_equal(got, np.zeros_like(w))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_nan_stays_where_it_is(rule, settings, dtype):
    w, g = np.ones((2, 20), dtype)
    g[7] = np.nan
    got, _ = run(rule, settings, w, [g], [0.1], l1=0.01)
    np.testing.assert_array_equal(np.isnan(got), np.arange(20) == 7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 64, 1000])
def test_sum_of_squares(n, dtype):
    g = np.random.default_rng(2).standard_normal(n).astype(dtype)
    sums = np.full(-(-n // 64), np.nan)
    for start in range(0, n, 64):
        kernels.sum_of_squares(start, min(start + 64, n), 64, g, sums)
    np.testing.assert_allclose(sums.sum(), (g.astype(np.float64) ** 2).sum(), rtol=1e-13)


def test_sum_of_squares_does_not_overflow_in_single_precision():
    sums = np.zeros(1)
    kernels.sum_of_squares(0, 2, 64, np.array([1e30, 1e30], np.float32), sums)
    np.testing.assert_allclose(sums, 2e60, rtol=1e-6)
