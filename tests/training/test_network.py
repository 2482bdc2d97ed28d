"""Networks: layout, start, PyTorch's gradients, and the same bits on any number of threads."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from fastml.kernels._loss_tile import SOFTMAX, settings
from fastml.optim import Adam
from fastml.training import network_problem
from fastml.training.minibatch import MiniBatches
from fastml.training.network import ACTIVATIONS, Network
from fastml.training.network_problem import NetworkProblem


def make(sizes, n=200, **options):
    rng = np.random.default_rng(0)
    network = Network(sizes, dtype=np.float64, **options)
    values = network.start("auto", 0)
    values[: network.n_trained] += 0.1 * rng.standard_normal(network.n_trained)
    return rng.standard_normal((n, sizes[0])), network, values


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_equals_that_of_torch(activation, batch_norm):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    X, network, values = make((13, 17, 8, 5), activation=activation, batch_norm=batch_norm, dropout=0.25)
    upstream, grad = np.random.default_rng(1).standard_normal((200, 5)), np.empty(network.n_values)
    masks = _masks(network, values, X)
    past = network.forward(X, values, 3, 4)
    network.backward(past, upstream, grad)
    function = {
        "identity": lambda z: z,
        "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
        "prelu": lambda z: functional.prelu(z, leaf["slope"]),
        **{name: getattr(functional, name) for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu")},
    }[activation]
    h, leaves = torch.tensor(X), []
    for k, layer in enumerate(network.layers(values)):
        leaf = {name: torch.tensor(np.ascontiguousarray(array), requires_grad=True) for name, array in layer.items()}
        leaves.append(leaf)
        h = h @ leaf["coef"]
        if "scale" in leaf:
            h = functional.batch_norm(h, None, None, leaf["scale"], leaf["intercept"], True, 0.1, 1e-5)
        else:
            h = h + leaf["intercept"]
        h = function(h) * torch.tensor(masks[k]) if k < 2 else h
    (h * torch.tensor(upstream)).sum().backward()
    np.testing.assert_allclose(past.output, h.detach().numpy(), rtol=1e-10, atol=1e-10)
    for leaf, got in zip(leaves, network.layers(grad), strict=True):
        for name in leaf.keys() & {"coef", "intercept", "scale", "slope"}:
            np.testing.assert_allclose(got[name], leaf[name].grad.numpy(), rtol=1e-10, atol=1e-10, err_msg=name)


def _masks(network, values, X):
    """The masks of step 4 under seed 3, as they show in a network of the same shape whose hidden units are all 1."""
    twin = Network(network.sizes, activation="sigmoid", dropout=network.dropout, dtype=np.float64)
    ones = np.zeros(twin.n_values)
    for layer in twin.layers(ones):
        layer["intercept"][...] = 50
    past = twin.forward(X, ones, 3, 4)
    work, n, total = past.batch.work, len(X), twin.net.total
    masks, place = [], total * n
    for width in network.sizes[1:-1]:
        masks.append(work[place : place + n * width].reshape(n, width).copy())
        place += n * width
    assert abs(masks[0].mean() - 1) < 0.05
    assert set(masks[0].ravel().tolist()) == {0.0, 4 / 3}
    return masks


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_one_thread_equals_many_bit_for_bit(sparse, batch_norm, monkeypatch):
    monkeypatch.setattr(network_problem, "_SHARED", 0)
    results = []
    for n_threads in 1, 2, 16:
        options = {"batch_norm": batch_norm, "dropout": 0.3, "n_threads": n_threads}
        X, network, values = make((13, 40, 9, 5), 700, **options)
        target = np.random.default_rng(2).integers(0, 5, 700)
        rows = csr_array(X) if sparse else X
        loss = settings(np.dtype(np.float64), SOFTMAX)
        problem = NetworkProblem(rows, target, np.ones(700), network, loss, seed=1)
        steps = MiniBatches(problem, Adam(), values, batch_size=300, l2=1e-3, l1=0)
        losses = [steps.epoch(np.arange(700)) for _ in range(2)]
        results.append((values.tobytes(), network.predict(rows, values).tobytes(), losses, problem.loss(values)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_start(activation):
    network = Network((30, 40, 50), activation=activation, batch_norm=True)
    values = network.start("auto", 0)
    assert values.dtype == np.float32
    saturates = activation in ("identity", "sigmoid", "tanh")
    np.testing.assert_array_equal(values, network.start("glorot" if saturates else "he", 0))
    for layer in network.layers(values):
        n_in, n_out = layer["coef"].shape
        factor = 2 if activation == "sigmoid" else 6
        bound = math.sqrt(factor / (n_in + n_out)) if saturates else math.sqrt(6 / n_in)
        assert 0.98 * bound < np.abs(layer["coef"]).max() <= bound
        assert not layer["intercept"].any()
    hidden = network.layers(values)[0]
    assert (hidden["scale"] == 1).all()
    assert (hidden["variance"] == 1).all()
    assert ("slope" in hidden) == (activation == "prelu")


def test_coefficients_come_first_and_running_moments_last():
    network = Network((3, 4, 5), activation="prelu", batch_norm=True)
    assert network.n_coef == 3 * 4 + 4 * 5
    assert network.n_trained == network.n_coef + (4 + 5) + 4 + 4
    assert network.n_values == network.n_trained + 2 * 4
    values = np.arange(network.n_values, dtype=np.float32)
    hidden, last = network.layers(values)
    np.testing.assert_array_equal(hidden["coef"].ravel(), values[:12])
    np.testing.assert_array_equal(last["coef"].ravel(), values[12:32])
    np.testing.assert_array_equal([*hidden["mean"], *hidden["variance"]], values[network.n_trained :])


def test_untouched_columns_have_no_gradient():
    X, network, values = make((6, 4, 2), 5)
    X[:, [1, 4]] = 0
    grad = np.full(network.n_values, np.nan)
    network.backward(network.forward(csr_array(X), values), np.ones((5, 2)), grad)
    assert not network.layers(grad)[0]["coef"][[1, 4]].any()


def test_dropout_draws_anew_each_step_and_not_in_prediction():
    X, network, values = make((6, 30, 2), 50, dropout=0.5)
    first, again, other = (network.forward(X, values, 1, step).output for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    many = np.mean([network.forward(X, values, 1, step).output for step in range(400)], axis=0)
    np.testing.assert_allclose(many, network.predict(X, values), atol=0.4)
