"""Losses of single outputs and the KL divergence, value and gradient: fastml, in-place NumPy, PyTorch eager.

``pytest benchmarks/bench_pointwise.py`` times each on its own; ``python benchmarks/bench_pointwise.py`` takes them in
turns and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, torch, use_all_threads

from fastml import functional

SHAPES = [(16_000_000,), (1_000_000,), (1000,)]
KL_SHAPES = [(8192, 1000), (65536, 10)]
SMALL = {
    (16_000_000,): (100_000,),
    (1_000_000,): (10_000,),
    (1000,): (1000,),
    (8192, 1000): (64, 1000),
    (65536, 10): (500, 10),
}
POINTWISE = ["binary_cross_entropy", "squared_error", "absolute_error", "huber"]
CASES = [(name, shape) for name in POINTWISE for shape in SHAPES] + [("kl_divergence", shape) for shape in KL_SHAPES]
OPERATIONS = {"binary_cross_entropy": 8, "squared_error": 3, "absolute_error": 3, "huber": 6, "kl_divergence": 12}


def data(name, shape):
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape, dtype=np.float32)
    if name == "binary_cross_entropy":
        t = (t > 0).astype(np.float32)
    if name == "kl_divergence":
        t = functional.softmax(t)
    return z, t


def numpy_binary_cross_entropy(z, t):
    """Two arrays of the size of the logits for the results and two beside them, everything else in place."""
    e = np.abs(z)
    np.negative(e, out=e)
    np.exp(e, out=e)
    loss, grad = np.log1p(e), np.maximum(z, 0)
    loss += grad
    np.multiply(z, t, out=grad)
    loss -= grad
    np.add(e, 1, out=grad)
    np.copyto(e, 1, where=z >= 0)
    np.divide(e, grad, out=grad)
    grad -= t
    return loss, grad


def numpy_squared_error(z, t):
    grad = z - t
    loss = grad * grad
    loss *= np.float32(0.5)
    return loss, grad


def numpy_absolute_error(z, t):
    loss = z - t
    grad = np.sign(loss)  # in place it is slower
    np.abs(loss, out=loss)
    return loss, grad


def numpy_huber(z, t):
    """With the residual clipped to c, the loss is c (r - c / 2)."""
    loss = z - t
    grad = np.clip(loss, -1, 1)
    half = grad * np.float32(0.5)
    loss -= half
    loss *= grad
    return loss, grad


def numpy_kl_divergence(z, t):
    grad = z - z.max(axis=1, keepdims=True)
    grad -= np.log(np.exp(grad).sum(axis=1, keepdims=True))
    terms = np.log(t)
    terms -= grad
    terms *= t
    np.exp(grad, out=grad)
    grad -= t
    return terms.sum(axis=1), grad


IN_NUMPY = {name.removeprefix("numpy_"): function for name, function in globals().items() if name.startswith("numpy_")}


def torch_loss(name):
    """The loss of PyTorch, summed as the gradient is of the sum."""
    loss = torch.nn.functional
    return {
        "binary_cross_entropy": lambda z, t: loss.binary_cross_entropy_with_logits(z, t, reduction="sum"),
        "squared_error": lambda z, t: loss.mse_loss(z, t, reduction="sum") / 2,
        "absolute_error": lambda z, t: loss.l1_loss(z, t, reduction="sum"),
        "huber": lambda z, t: loss.huber_loss(z, t, reduction="sum"),
        "kl_divergence": lambda z, t: loss.kl_div(loss.log_softmax(z, dim=1), t, reduction="sum"),
    }[name]


def make_fastml(name, z, t):
    function = getattr(functional, name + "_grad")
    return lambda: function(z, t)


def make_numpy(name, z, t):
    return lambda: IN_NUMPY[name](z, t)


def make_torch(name, z, t):
    use_all_threads()
    loss_function, prediction, target = torch_loss(name), torch.from_numpy(z).requires_grad_(), torch.from_numpy(t)

    def step():
        prediction.grad = None
        loss = loss_function(prediction, target)
        loss.backward()
        return loss.detach().numpy(), prediction.grad.numpy()

    return step


MAKERS = {"fastml": make_fastml, "numpy": make_numpy, "torch": make_torch}


def check(result, name, z, t):
    """Against the baseline; PyTorch returns the sum of the losses."""
    loss, grad = IN_NUMPY[name](z, t)
    np.testing.assert_allclose(np.sum(result[0], dtype=np.float64), loss.sum(dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(result[1], grad, atol=1e-6)


def moved(name, z):
    """Bytes that are read and written at least: two inputs, the gradient, and the losses of single outputs."""
    return (3 if name == "kl_divergence" else 4) * z.nbytes


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_loss_grad(benchmark, record, small, name, shape, maker):
    if maker == "torch":
        pytest.importorskip("torch")
    if small:
        shape = SMALL[shape]
    benchmark.group = f"{name}_grad {'x'.join(map(str, shape))}"
    z, t = data(name, shape)
    function = MAKERS[maker](name, z, t)
    check(function(), name, z, t)
    benchmark.pedantic(function, rounds=15, warmup_rounds=1)
    record(bytes_moved=moved(name, z), operations=OPERATIONS[name] * z.size)


def main():
    """Print the ratios, taken in turns."""
    makers = [maker for maker in MAKERS if torch is not None or maker != "torch"]
    print(f"{N_THREADS} threads; time over that of fastml")
    print(f"{'':36}{'fastml':>12}" + "".join(f"{maker:>9}" for maker in makers[1:]) + f"{'GB/s':>8}")
    for name, shape in CASES:
        z, t = data(name, shape)
        functions = {maker: MAKERS[maker](name, z, t) for maker in makers}
        for function in functions.values():
            check(function(), name, z, t)
        seconds = compare(functions, rounds=3 if z.size > 2**23 else 15)
        own = seconds["fastml"]
        ratios = "".join(f"{seconds[maker] / own:8.2f}x" for maker in makers[1:])
        label = f"{name}_grad {'x'.join(map(str, shape))}"
        print(f"{label:36}{1e6 * own:9.0f} us{ratios}{moved(name, z) / own / 1e9:8.1f}", flush=True)


if __name__ == "__main__":
    main()
