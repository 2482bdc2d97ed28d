"""The update rules: what they do to parameters and moments, over any range of them."""

import functools

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
ADAMW_SETTINGS = [{}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1}]
ADAGRAD_SETTINGS = [{}, {"epsilon": 1e-3, "weight_decay": 0.1}]
RMSPROP_SETTINGS = [{}, {"momentum": 0.9}, {"rho": 0.9, "momentum": 0.5, "epsilon": 1e-3, "weight_decay": 0.1}]
BY_RULE = {
    rules.SGD: SGD_SETTINGS,
    rules.ADAM: ADAM_SETTINGS,
    rules.ADAMW: ADAMW_SETTINGS,
    rules.ADAGRAD: ADAGRAD_SETTINGS,
    rules.RMSPROP: RMSPROP_SETTINGS,
}
CASES = [(rule, settings) for rule, choices in BY_RULE.items() for settings in choices]
ADAMS = rules.ADAM, rules.ADAMW


def hyper_of(rule, settings, dtype):
    """The settings as kernels take them."""
    if rule in ADAMS:
        keep = settings.get("beta_1", 0.9), settings.get("beta_2", 0.999)
    else:
        keep = settings.get("momentum", 0), settings.get("rho", 0.99 if rule == rules.RMSPROP else 1)
    others = settings.get("epsilon", 1e-8), settings.get("nesterov", False), settings.get("weight_decay", 0)
    return np.array([*keep, *others], dtype)


def moments_of(rule, settings, n, dtype):
    """Empty where the rule has no use for one."""
    has_first = rule in ADAMS or settings.get("momentum", 0) > 0
    return np.zeros(n if has_first else 0, dtype), np.zeros(n if rule != rules.SGD else 0, dtype)


def adaptive(rule, w, g, state, rate, step, *, rho=0.99, momentum=0.0, epsilon=1e-8, weight_decay=0.0, l1=0.0):
    """AdaGrad and RMSProp; the threshold of L1 is that of a coordinate's step."""
    g = g + weight_decay * w
    v, s = (0, 0) if state is None else state
    s = s + g**2 if rule == rules.ADAGRAD else rho * s + (1 - rho) * g**2
    v = momentum * v + g / (np.sqrt(s) + epsilon)
    return naive.shrink(w - rate * v, rate * l1 / (1 - momentum) / (np.sqrt(s) + epsilon)), (v, s)


def adamw(w, g, state, rate, step, *, weight_decay=0.0, **settings):
    return naive.adam(w - rate * weight_decay * w, g, state, rate, step, **settings)


DEFINITIONS = {
    rules.SGD: naive.sgd,
    rules.ADAM: naive.adam,
    rules.ADAMW: adamw,
    rules.ADAGRAD: functools.partial(adaptive, rules.ADAGRAD),
    rules.RMSPROP: functools.partial(adaptive, rules.RMSPROP),
}


def run(rule, settings, w, gradients, rates, l1=0.0, factor=1.0):
    """Parameters after one update with each gradient."""
    kind = w.dtype.type
    w, moments = w.copy(), moments_of(rule, settings, len(w), kind)
    for step, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        scalars = rule, rate, step, hyper_of(rule, settings, kind), kind(l1), kind(factor)
        kernels.update(0, len(w), w, g, *moments, *scalars)
    return w, moments


def expected(rule, settings, w, gradients, rates, l1=0.0, factor=1.0):
    w, state, update = w.astype(np.float64), None, DEFINITIONS[rule]
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
@pytest.mark.parametrize(("rule", "settings"), [CASES[0], CASES[2], CASES[5], CASES[9], CASES[12], CASES[14]])
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
    sums = np.full((-(-n // 64), 1), np.nan)
    for k, start in enumerate(range(0, n, 64)):
        kernels.sum_of_squares(start, min(start + 64, n), g, sums[k])
    np.testing.assert_allclose(sums.sum(), (g.astype(np.float64) ** 2).sum(), rtol=1e-13)


def test_sum_of_squares_does_not_overflow_in_single_precision():
    sums = np.zeros(1)
    kernels.sum_of_squares(0, 2, np.array([1e30, 1e30], np.float32), sums)
    np.testing.assert_allclose(sums, 2e60, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_checked_updates(rule, settings, dtype):
    rng = np.random.default_rng(3)
    w, g = rng.standard_normal((2, 50)).astype(dtype)
    whole, moments = run(rule, settings, w, [g], [0.1])
    mine, arguments = moments_of(rule, settings, 50, dtype), (rule, 0.1, 1, hyper_of(rule, settings, dtype))
    for bad in np.nan, np.inf, -np.inf:
        spoilt, kept = g.copy(), w.copy()
        spoilt[49] = bad
        assert not kernels.checked_update(kept, spoilt, *mine, *arguments)
        np.testing.assert_array_equal(kept, w)
        assert not any(m.any() for m in mine)
    assert kernels.checked_update(w, g, *mine, *arguments)
    for got, wanted in zip((w, *mine), (whole, *moments), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=20 * TOLERANCE[dtype], atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_the_point_that_other_kernels_call(rule, settings, dtype):
    w, g = np.random.default_rng(6).standard_normal((2, 20)).astype(dtype)
    whole, _ = run(rule, settings, w, [g], [0.1], l1=0.01)
    scalars = 0.1, 1, hyper_of(rule, settings, dtype), dtype(0.01), dtype(1)
    rules.apply_rule(rule, w, g, *moments_of(rule, settings, 20, dtype), *scalars)
    np.testing.assert_allclose(w, whole, rtol=20 * TOLERANCE[dtype], atol=20 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", range(0, 20, 3))
def test_any_place_within_a_cache_line(lead, dtype):
    memory, g = np.arange(60, dtype=dtype), np.ones(60, dtype)
    first, second = moments_of(rules.SGD, {}, 60, dtype)
    for stop in lead, lead + 1, 60:
        w = memory.copy()
        scalars = rules.SGD, 1.0, 1, hyper_of(rules.SGD, {}, dtype), dtype(0), dtype(1)
        kernels.update(lead, stop, w, g, first, second, *scalars)
        expected = memory.copy()
        expected[lead:stop] -= 1
        np.testing.assert_array_equal(w, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_duplicates_are_summed(dtype):
    grads = np.random.default_rng(4).standard_normal((6, 5)).astype(dtype)
    bounds, order = np.array([0, 1, 4, 6]), np.array([2, 0, 3, 5, 1, 4])
    total, sums = np.full((3, 5), np.nan, dtype), np.full(2, np.nan)
    for start in 0, 2:
        kernels.sum_duplicates(start, min(start + 2, 3), 2, bounds, order, grads, total, sums)
    expected = np.array([grads[2], grads[0] + grads[3] + grads[5], grads[1] + grads[4]])
    np.testing.assert_allclose(total, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(
        sums, [(expected[:2].astype(float) ** 2).sum(), (expected[2].astype(float) ** 2).sum()], rtol=1e-6
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_updates_of_rows(rule, settings, dtype):
    rng = np.random.default_rng(5)
    table, total = rng.standard_normal((6, 9)).astype(dtype), rng.standard_normal((3, 9)).astype(dtype)
    rows, w = np.array([1, 4, 5]), table.copy()
    moments = [m.reshape(6, -1 if m.size else 0) for m in moments_of(rule, settings, 54, dtype)]
    arguments = rule, 0.1, 3, hyper_of(rule, settings, dtype), dtype(0.5)
    kernels.update_rows(1, 3, rows, w, total, *moments, *arguments)
    for k, row in enumerate(rows):
        one, fresh = table[row].copy(), moments_of(rule, settings, 9, dtype)
        if k > 0:
            kernels.update(0, 9, one, total[k], *fresh, *arguments[:-1], dtype(0), dtype(0.5))
        np.testing.assert_allclose(w[row], one, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(w[[0, 2, 3]], table[[0, 2, 3]])
