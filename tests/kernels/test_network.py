"""Networks against their definition: forward, backward, losses, and epochs inside a kernel against steps outside."""

import naive
import numpy as np
import pytest
from numba import config
from scipy.sparse import csr_array

from fastml.kernels._loss_tile import ABSOLUTE, BINARY_CROSS_ENTROPY, SOFTMAX, SQUARED, settings
from fastml.optim import SGD, Adam, AdamW
from fastml.training import network as networks
from fastml.training import network_problem
from fastml.training.minibatch import MiniBatches
from fastml.training.network import ACTIVATIONS, Network
from fastml.training.network_problem import NetworkProblem

N = 13 if config.DISABLE_JIT else 301
DOUBLE = np.dtype(np.float64)


def make(sizes, dtype=np.float64, n=N, **options):
    """Sparse and dense rows, and a network with parameters that are not those of a start."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, sizes[0])) * (rng.random((n, sizes[0])) < 0.5)).astype(dtype)
    network = Network(sizes, dtype=dtype, **options)
    values = network.start("auto", 0)
    values[: network.n_trained] += (0.2 * rng.standard_normal(network.n_trained)).astype(dtype)
    return X, network, values


def check_gradient(network, grad, expected, **tolerance):
    for got, truth in zip(network.layers(grad), expected, strict=True):
        for name, array in truth.items():
            np.testing.assert_allclose(got[name], array, err_msg=name, **tolerance)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_its_definition(activation, batch_norm, monkeypatch):
    monkeypatch.setattr(networks, "_LANE_ROWS", 5)
    for sizes, dropout, output in ((4, 7, 1, 3), 0.3, "identity"), ((5, 6, 2), 0.0, "tanh"), ((3, 2), 0.0, "sigmoid"):
        options = {"activation": activation, "output_activation": output, "dropout": dropout}
        X, network, values = make(sizes, batch_norm=batch_norm, **options)
        upstream = np.random.default_rng(1).standard_normal((N, sizes[-1]))
        truth = naive.Network(network.layers(values), activation, output, dropout, 5, 6)
        expected, gradient = truth.forward(X), truth.backward(upstream)
        for rows in X, csr_array(X):
            moved, grad = values.copy(), np.full(network.n_values, np.nan)
            past = network.forward(rows, moved, 5, 6)
            np.testing.assert_allclose(past.output, expected, rtol=1e-10, atol=1e-12)
            network.backward(past, upstream, grad)
            check_gradient(network, grad, gradient, rtol=1e-9, atol=1e-10)
            assert np.isnan(grad[network.n_trained :]).all()
            np.testing.assert_array_equal(moved[: network.n_trained], values[: network.n_trained])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_coefficients_of_many_outputs_lie_output_by_output(batch_norm, monkeypatch):
    X, network, values = make((4, 6, 3), activation="tanh", batch_norm=batch_norm)
    monkeypatch.setattr(networks, "_WIDE", 3)
    wide = Network((4, 6, 3), activation="tanh", batch_norm=batch_norm, dtype=np.float64)
    twin = np.full(wide.n_values, np.nan)
    for ours, theirs in zip(wide.layers(twin), network.layers(values), strict=True):
        for name, array in theirs.items():
            ours[name][...] = array
    np.testing.assert_array_equal(wide.layers(twin)[-1]["coef"].T.ravel(), twin[24:42])
    np.testing.assert_allclose(wide.predict(X, twin), network.predict(X, values), rtol=1e-10)
    results = []
    for one, parameters in (network, values), (wide, twin):
        past, grad = one.forward(X, parameters), np.empty(one.n_values)
        one.backward(past, np.ones((N, 3)), grad)
        results.append(np.concatenate([past.output.ravel(), *(layer["coef"].ravel() for layer in one.layers(grad))]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-9, atol=1e-12)


def test_float32_stays_float32():
    X, network, values = make((4, 7, 3), np.float32, activation="gelu", batch_norm=True)
    past, grad = network.forward(X, values), np.empty(network.n_values, np.float32)
    upstream = np.ones((N, 3), np.float32)
    network.backward(past, upstream, grad)
    truth = naive.Network(network.layers(values), "gelu")
    np.testing.assert_allclose(past.output, truth.forward(X), rtol=1e-4, atol=1e-5)
    check_gradient(network, grad, truth.backward(upstream), rtol=2e-3, atol=2e-3)
    assert past.output.dtype == network.predict(X, values).dtype == np.float32


def test_prediction_uses_running_moments_and_no_dropout():
    X, network, values = make((4, 7, 3), activation="tanh", batch_norm=True, dropout=0.5)
    for step in range(60):
        network.forward(X, values, 0, step)
    hidden = network.layers(values)[0]
    z = X @ hidden["coef"]
    np.testing.assert_allclose(hidden["mean"], z.mean(axis=0), rtol=0.01, atol=0.01)
    np.testing.assert_allclose(hidden["variance"], z.var(axis=0, ddof=1), rtol=0.02)
    x = (z - hidden["mean"]) / np.sqrt(hidden["variance"] + 1e-5)
    last = network.layers(values)[1]
    expected = np.tanh(x * hidden["scale"] + hidden["intercept"]) @ last["coef"] + last["intercept"]
    for rows in X, csr_array(X):
        np.testing.assert_allclose(network.predict(rows, values), expected, rtol=1e-10, atol=1e-12)


def test_a_batch_of_one_row_gives_numbers():
    X, network, values = make((4, 7, 3), batch_norm=True, n=1)
    past, grad = network.forward(X, values), np.empty(network.n_values)
    network.backward(past, np.ones((1, 3)), grad)
    assert np.isfinite(grad[: network.n_trained]).all()
    assert np.isfinite(values).all()


LOSSES = {
    "softmax": (SOFTMAX, "identity", False),
    "soft targets": (SOFTMAX, "identity", True),
    "binary": (BINARY_CROSS_ENTROPY, "identity", True),
    "squared": (SQUARED, "tanh", True),
    "absolute": (ABSOLUTE, "identity", True),
}


def problem_of(name, X, network, seed=3):
    kind, _, is_matrix = LOSSES[name]
    rng = np.random.default_rng(2)
    target, K = rng.integers(0, network.n_outputs, len(X)), network.n_outputs
    if is_matrix:
        target = rng.dirichlet(np.ones(K), len(X))
    rows = csr_array(X) if seed % 2 else X
    return NetworkProblem(rows, target, rng.random(len(X)) + 0.1, network, settings(DOUBLE, kind), seed=seed)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("wide", [False, True])
def test_loss_and_gradient(name, wide, monkeypatch):
    monkeypatch.setattr(networks, "_WIDE", 3 if wide else 100)
    for seed in 2, 3:  # dense and sparse
        X, network, values = make((4, 5, 3), activation="elu", output_activation=LOSSES[name][1])
        problem = problem_of(name, X, network, seed)
        rows, grad = np.arange(N), np.empty(network.n_trained)
        loss = problem.batch_loss_grad(rows, values, grad)
        np.testing.assert_allclose(problem.loss(values), loss, rtol=1e-12)
        outputs, kind = network.predict(X, values), LOSSES[name][0]
        function = {SOFTMAX: naive.softmax_cross_entropy, BINARY_CROSS_ENTROPY: naive.binary_cross_entropy}
        function |= {SQUARED: naive.squared_error, ABSOLUTE: naive.absolute_error}
        losses = function[kind](outputs, problem.data.target, problem.data.weights[0])
        np.testing.assert_allclose(loss, losses.sum() / N, rtol=1e-12)
        expected = naive.finite_differences(lambda v: problem.loss(v), values)  # noqa: B023
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("optimizer", [Adam(0.01), AdamW(0.01, max_grad_norm=0.1), AdamW(0.01), SGD(0.1)])
def test_epochs_in_the_kernel_equal_steps_outside(optimizer, batch_norm, monkeypatch):
    monkeypatch.setattr(networks, "_LANE_ROWS", 4)
    monkeypatch.setattr(networks, "_CHUNK", 8)
    monkeypatch.setattr(network_problem, "_SHARED", 0)
    results = []
    for small, wide, seed in (1e9, 100, 2), (1e9, 100, 3), (0, 100, 2), (0, 100, 3), (0, 3, 2), (0, 3, 3):
        monkeypatch.setattr(NetworkProblem, "kernel_limit", small)
        monkeypatch.setattr(networks, "_WIDE", wide)
        X, network, _ = make((4, 7, 5, 3), activation="tanh", batch_norm=batch_norm, dropout=0.2, n_threads=2)
        start = network.start("auto", 0)
        problem = problem_of("softmax", X, network, seed)
        problem.seed = 7
        steps = MiniBatches(problem, optimizer, start, batch_size=max(N // 3, 2), l2=0.01, l1=1e-3)
        losses = [steps.epoch(np.arange(N)) for _ in range(2)]
        layers = [array.ravel() for layer in network.layers(start) for array in layer.values()]
        results.append(np.concatenate([losses, *layers]))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-8, atol=1e-10)
