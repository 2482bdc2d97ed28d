"""The faces of the losses of sampled candidates, and what the correction by log q is for."""

import itertools

import naive
import numpy as np
import pytest
from scipy.sparse import csr_array

from fastml.functional import (
    linear_softmax_cross_entropy_grad,
    negative_sampling_loss,
    negative_sampling_loss_grad,
    sampled_softmax_cross_entropy,
    sampled_softmax_cross_entropy_grad,
    softmax,
)

rng = np.random.default_rng(0)
N_CLASSES = 6
X = rng.standard_normal((5, 3))
W = rng.standard_normal((N_CLASSES, 3))
b = rng.standard_normal(N_CLASSES)
y = np.array([0, 1, 2, 2, 5])
negatives = np.array([3, 0, 2, 0, 0])
log_q = rng.standard_normal(N_CLASSES)
keys = rng.standard_normal((5, 3))
own_negatives = rng.standard_normal((5, 2, 3))
NAN, INF = np.nan, np.inf


def changed(array, value, at=0):
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize("remove_accidental_hits", [True, False])
def test_softmax_gradients_are_those_of_the_loss(remove_accidental_hits):
    options = {"negatives": negatives, "log_q": log_q, "remove_accidental_hits": remove_accidental_hits}
    result = sampled_softmax_cross_entropy_grad(X, W, b, y, **options)

    def total(X, W, b):
        return naive.sampled_softmax_cross_entropy(X, W, b, y, **options).sum()

    np.testing.assert_allclose(result.X, naive.finite_differences(lambda x: total(x, W, b), X), atol=1e-7)
    np.testing.assert_allclose(result.W, naive.finite_differences(lambda w: total(X, w, b), W), atol=1e-7)
    np.testing.assert_allclose(result.b, naive.finite_differences(lambda v: total(X, W, v), b), atol=1e-7)
    np.testing.assert_allclose(result.loss, sampled_softmax_cross_entropy(X, W, b, y, **options), rtol=1e-14)


def test_negative_sampling_gradients_are_those_of_the_loss():
    result = negative_sampling_loss_grad(X, keys, own_negatives)
    arrays = {"queries": X, "keys": keys, "negatives": own_negatives}
    for name, array in arrays.items():
        expected = naive.finite_differences(
            lambda x, name=name: naive.negative_sampling_loss(**{**arrays, name: x}).sum(), array
        )
        np.testing.assert_allclose(getattr(result, name), expected, atol=1e-7)
    np.testing.assert_array_equal(result.loss, negative_sampling_loss(X, keys, own_negatives))


def test_all_other_classes_as_negatives_are_the_full_softmax():
    """Each class once: with hits removed these are all classes."""
    ours = sampled_softmax_cross_entropy_grad(X, W, b, y, negatives=np.arange(N_CLASSES))
    for got, wanted in zip(ours, linear_softmax_cross_entropy_grad(X, W, b, y), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-14)


def test_a_repeated_negative_counts_as_often():
    one = sampled_softmax_cross_entropy(X, W, b, y, negatives=[3, 4])
    heavier = b + np.log(3) * (np.arange(N_CLASSES) == 3)  # log k on the logit is k of them
    thrice = sampled_softmax_cross_entropy(X, W, b, y, negatives=[3, 4, 3, 3])
    np.testing.assert_allclose(thrice, sampled_softmax_cross_entropy(X, W, heavier, y, negatives=[3, 4]))
    assert (thrice > one).all()


def test_accidental_hits_are_masked_as_in_a_dense_softmax():
    z = np.column_stack([(X * W[y]).sum(axis=1) + b[y], X @ W[negatives].T + b[negatives]])
    z[:, 1:][negatives == y[:, None]] = -np.inf
    expected = naive.softmax_cross_entropy(z, np.zeros(5, int))
    np.testing.assert_allclose(sampled_softmax_cross_entropy(X, W, b, y, negatives=negatives), expected)


def test_classes_that_do_not_occur_are_not_touched():
    """Class 4 is neither drawn nor a target: whatever stands there, its gradient is 0."""
    holes = changed(W, NAN, 4), changed(b, INF, 4)
    result = sampled_softmax_cross_entropy_grad(X, *holes, y, negatives=negatives, log_q=changed(log_q, -INF, 4))
    expected = sampled_softmax_cross_entropy_grad(X, W, b, y, negatives=negatives, log_q=log_q)
    for got, wanted in zip(result, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert not result.W[4].any()
    assert result.W[[0, 1, 2, 3, 5]].all()


# ------------------------------------------------------------------------- what log q is for


SKEWED = np.array([0.4, 0.3, 0.12, 0.1, 0.05, 0.03])
UNIFORM = np.full(N_CLASSES, 1 / N_CLASSES)


@pytest.mark.parametrize("p", [UNIFORM, SKEWED])
def test_the_mean_of_many_gradients_is_that_of_the_full_softmax(p):
    """Negatives drawn with replacement; a log q with the wrong sign, or none, misses by far where p is skewed."""
    n_draws, m, draws = 300, 4000, np.random.default_rng(0)
    full, right = linear_softmax_cross_entropy_grad(X, W, b, y), np.log(m * p)
    grads = {"right": [], "negated": [], "none": []}
    for _ in range(n_draws):
        drawn = draws.choice(N_CLASSES, m, p=p)
        for name, correction in ("right", right), ("negated", -right), ("none", None):
            result = sampled_softmax_cross_entropy_grad(
                X, W, b, y, negatives=drawn, log_q=correction, remove_accidental_hits=False
            )
            grads[name].append(np.concatenate([result.X.ravel(), result.W.ravel(), result.b]))
    expected = np.concatenate([full.X.ravel(), full.W.ravel(), full.b])
    errors = {}
    for name, sample in grads.items():
        standard_error = np.std(sample, axis=0) / np.sqrt(n_draws)
        errors[name] = np.abs(np.mean(sample, axis=0) - expected) / standard_error
    assert errors["right"].max() < 4.5  # of 39 numbers
    if p is SKEWED:
        assert np.median(errors["negated"]) > 100
        assert np.median(errors["none"]) > 100


def expected_gradient(samples, options):
    """Over (probability, negatives), and over targets that follow the model itself: there the full gradient is 0."""
    p = softmax(X[:1] @ W.T + b)[0]
    rows, total = np.tile(X[0], (N_CLASSES, 1)), np.zeros_like(W)
    for probability, drawn in samples:
        result = sampled_softmax_cross_entropy_grad(
            rows, W, b, np.arange(N_CLASSES), negatives=drawn, sample_weight=probability * p, **options
        )
        total += result.W
    return total


@pytest.mark.parametrize("kind", ["with replacement", "each on its own"])
def test_the_correction_of_both_sides_is_exact(kind):
    """However few are drawn: the model that is right has no gradient, on average over targets and all samples."""
    if kind == "with replacement":
        log_q, hits = np.log(2 * SKEWED), False
        samples = [(SKEWED[[i, j]].prod(), [i, j]) for i, j in itertools.product(range(N_CLASSES), repeat=2)]
    else:
        log_q, hits = np.log(2 * SKEWED), True
        masks = np.array(list(itertools.product([False, True], repeat=N_CLASSES)))[1:]  # of none there is no gradient
        samples = [(np.where(mask, 2 * SKEWED, 1 - 2 * SKEWED).prod(), np.flatnonzero(mask)) for mask in masks]
    exact = expected_gradient(samples, {"log_q": log_q, "remove_accidental_hits": hits})
    np.testing.assert_allclose(exact, 0, atol=1e-14)
    for wrong in -log_q, None:
        assert np.abs(expected_gradient(samples, {"log_q": wrong, "remove_accidental_hits": hits})).max() > 0.05


# ------------------------------------------------------------------------- precision, types, errors


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_error_budget(scale):
    """Our float32 error is no larger than that of the plain float32 computation, by more than a little."""
    X, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((255, 64), (507, 64)))
    X *= np.float32(scale)
    y, drawn = rng.integers(0, 507, 255), rng.integers(0, 507, 300)
    truth = naive.sampled_softmax_cross_entropy(X, W, None, y, drawn)
    z = np.column_stack([(X * W[y]).sum(axis=1), X @ W[drawn].T])
    z[:, 1:][drawn == y[:, None]] = -np.inf
    top = z.max(axis=1)
    plain = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[:, 0]
    ours = np.abs(sampled_softmax_cross_entropy(X, W, None, y, negatives=drawn) - truth)
    assert ours.max() <= 1.5 * np.abs(plain - truth).max() + 1e-6 * scale


def test_without_intercepts():
    result = sampled_softmax_cross_entropy_grad(X, W, None, y, negatives=negatives)
    assert result.b is None
    np.testing.assert_allclose(result.loss, naive.sampled_softmax_cross_entropy(X, W, None, y, negatives))


def test_dtypes_and_layouts():
    options = {"negatives": negatives.astype(np.int8), "log_q": log_q}
    single = sampled_softmax_cross_entropy_grad(X.astype("f"), W.astype("f"), b.astype("f"), y, **options)
    assert {field.dtype for field in single} == {np.dtype("f")}
    mixed = sampled_softmax_cross_entropy_grad(X, W.astype("f"), b, y, **options)
    assert {field.dtype for field in mixed} == {np.dtype("d")}
    locked = np.asfortranarray(W)
    locked.flags.writeable = False
    expected = sampled_softmax_cross_entropy_grad(X, W, b, y, **options)
    for got, wanted in zip(
        sampled_softmax_cross_entropy_grad(X.astype(">f8"), locked, b, y, **options), expected, strict=True
    ):
        np.testing.assert_array_equal(got, wanted)
    pair = negative_sampling_loss_grad(X.astype("f"), keys.astype("f"), own_negatives.astype("f"))
    assert {field.dtype for field in pair} == {np.dtype("f")}
    assert negative_sampling_loss(X.astype("f"), keys, own_negatives.astype("f")).dtype == np.float64


BAD = [
    ({"X": changed(X, NAN)}, ValueError, "^X: expected finite"),
    ({"X": X[:, :2]}, ValueError, "^X: expected 3 columns"),
    ({"X": X[0]}, ValueError, "^X: expected 2 dimensions"),
    ({"X": csr_array(X)}, TypeError, "^X: expected a dense array"),
    ({"W": csr_array(W)}, TypeError, "^W: expected a dense array"),
    ({"W": changed(W, NAN, (3, 1))}, ValueError, "^W: expected finite .* at class 3"),
    ({"b": changed(b, INF, 5)}, ValueError, "^b: expected finite .* got inf at class 5"),
    ({"b": b[:2]}, ValueError, r"^b: expected shape \(6,\)"),
    ({"target": changed(y, 6)}, ValueError, r"^target: expected labels in 0\.\.5"),
    ({"target": y.astype(float)}, TypeError, "^target: expected integer"),
    ({"target": y[:4]}, ValueError, "^target: expected shape"),
    ({"negatives": []}, ValueError, "^negatives: expected shape .* at least one"),
    ({"negatives": 3}, ValueError, r"^negatives: expected shape \(n_negatives,\)"),
    ({"negatives": np.zeros((5, 2), int)}, ValueError, r"^negatives: expected shape \(n_negatives,\)"),
    ({"negatives": changed(negatives, 6)}, ValueError, r"^negatives: expected labels in 0\.\.5, got 6"),
    ({"negatives": changed(negatives, -1)}, ValueError, r"^negatives: expected labels in 0\.\.5, got -1"),
    ({"negatives": negatives.astype(float)}, TypeError, "^negatives: expected integer"),
    ({"log_q": log_q[:5]}, ValueError, r"^log_q: expected shape \(6,\)"),
    ({"log_q": changed(log_q, -INF, 3)}, ValueError, "^log_q: expected finite .* got -inf at class 3"),
    ({"log_q": changed(log_q, INF, 2)}, ValueError, "^log_q: expected finite .* got inf at class 2"),
    ({"log_q": changed(log_q, NAN, 5)}, ValueError, "^log_q: expected finite .* got nan at class 5"),
    ({"remove_accidental_hits": "no"}, TypeError, "^remove_accidental_hits: expected True or False"),
    ({"sample_weight": -np.ones(5)}, ValueError, "^sample_weight"),
    ({"X": 1e200 * X, "W": 1e200 * W}, ValueError, "^X, W: the logits of row 0 overflow"),
]


@pytest.mark.parametrize("function", [sampled_softmax_cross_entropy, sampled_softmax_cross_entropy_grad])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input_of_softmax(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"X": X, "W": W, "b": b, "target": y, "negatives": negatives, "log_q": log_q, **arguments})


BAD_PAIRS = [
    ({"queries": changed(X, NAN)}, ValueError, "^queries: expected finite"),
    ({"keys": changed(keys, INF)}, ValueError, "^keys: expected finite"),
    ({"negatives": changed(own_negatives, NAN)}, ValueError, "^negatives: expected finite"),
    ({"keys": keys[:4]}, ValueError, r"^keys: expected shape \(5, 3\)"),
    ({"negatives": own_negatives[0]}, ValueError, "^negatives: expected 3 dimensions"),
    ({"negatives": own_negatives[:4]}, ValueError, r"^negatives: expected shape \(5, n_negatives, 3\)"),
    ({"negatives": own_negatives[:, :, :2]}, ValueError, r"^negatives: expected shape \(5, n_negatives, 3\)"),
    ({"negatives": own_negatives[:, :0]}, ValueError, "^negatives has 0 columns"),
    ({"queries": X + 1j}, TypeError, "^queries: expected real numbers"),
    ({"sample_weight": np.ones(4)}, ValueError, "^sample_weight: expected shape"),
    ({"queries": 1e200 * X, "keys": 1e200 * keys}, ValueError, "^queries, keys, negatives: the logits of row . over"),
]


@pytest.mark.parametrize("function", [negative_sampling_loss, negative_sampling_loss_grad])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_PAIRS)
def test_bad_input_of_negative_sampling(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"queries": X, "keys": keys, "negatives": own_negatives, **arguments})
