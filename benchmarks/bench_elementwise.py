"""Softmax and its logarithm, activations and their derivatives: fastml, in-place NumPy, PyTorch.

``pytest benchmarks/bench_elementwise.py`` times each on its own; ``python benchmarks/bench_elementwise.py`` takes them
in turns and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, is_installed, torch, use_all_threads
from scipy.special import erf

from fastml import functional

WIDE, NARROW, LONG = (8192, 1000), (65536, 10), (16_000_000,)
SMALL = {WIDE: (64, 1000), NARROW: (500, 10), LONG: (100_000,)}


def numpy_softmax(z):
    e = z - z.max(axis=1, keepdims=True)
    np.exp(e, out=e)
    e /= e.sum(axis=1, keepdims=True)
    return e


def numpy_log_sum_exp(z):
    top = z.max(axis=1, keepdims=True)
    e = z - top
    np.exp(e, out=e)
    return np.log(e.sum(axis=1)) + top[:, 0]


def numpy_log_softmax(z):
    return z - numpy_log_sum_exp(z)[:, None]


def numpy_sigmoid(z):
    """Within 1e-7; expit, which keeps its digits in the tails, takes five times as long."""
    s = z * np.float32(0.5)
    np.tanh(s, out=s)
    s += 1
    s *= np.float32(0.5)
    return s


def numpy_sigmoid_grad(z, upstream):
    s = numpy_sigmoid(z)
    slope = 1 - s
    slope *= s
    slope *= upstream
    return slope


def numpy_tanh_grad(z, upstream):
    slope = np.tanh(z)
    np.square(slope, out=slope)
    np.subtract(1, slope, out=slope)
    slope *= upstream
    return slope


def numpy_relu(z):
    return np.maximum(z, 0)


def numpy_relu_grad(z, upstream):
    slope = np.empty_like(z)
    np.greater(z, 0, out=slope, casting="unsafe")  # a fifth of the time of np.where
    slope *= upstream
    return slope


def numpy_prelu(z, slope=0.25):
    below = z * np.float32(slope)
    return np.maximum(below, z, out=below)


def numpy_prelu_grad(z, upstream, slope=0.25):
    slopes = np.empty_like(z)
    np.greater(z, 0, out=slopes, casting="unsafe")
    slopes *= np.float32(1 - slope)
    slopes += np.float32(slope)
    slopes *= upstream
    return slopes


def numpy_leaky_relu(z):
    return numpy_prelu(z, 0.01)


def numpy_leaky_relu_grad(z, upstream):
    return numpy_prelu_grad(z, upstream, 0.01)


def numpy_elu(z):
    """Below zero exp(z) - 1 is more than z."""
    below = np.minimum(z, 0)
    np.expm1(below, out=below)
    return np.maximum(below, z, out=below)


def numpy_elu_grad(z, upstream):
    slope = np.minimum(z, 0)
    np.exp(slope, out=slope)
    slope *= upstream
    return slope


def normal_cdf(z):
    share = z * np.float32(0.5**0.5)
    erf(share, out=share)
    share += 1
    share *= np.float32(0.5)
    return share


def numpy_gelu(z):
    share = normal_cdf(z)
    share *= z
    return share


def numpy_gelu_grad(z, upstream):
    slope = np.square(z)
    slope *= np.float32(-0.5)
    np.exp(slope, out=slope)
    slope *= np.float32(1 / np.sqrt(2 * np.pi))
    slope *= z
    slope += normal_cdf(z)
    slope *= upstream
    return slope


IN_NUMPY = {name.removeprefix("numpy_"): function for name, function in globals().items() if name.startswith("numpy_")}
IN_NUMPY |= {"tanh": np.tanh}
ROWWISE = {"softmax": 5, "log_softmax": 5, "log_sum_exp": 4}  # operations an element
POINTWISE = {"sigmoid": 3, "tanh": 3, "sigmoid_grad": 6, "tanh_grad": 6}
POINTWISE |= {"relu": 1, "leaky_relu": 2, "prelu": 2, "elu": 3, "gelu": 3}
POINTWISE |= {"relu_grad": 2, "leaky_relu_grad": 3, "prelu_grad": 3, "elu_grad": 4, "gelu_grad": 7}
CASES = [(name, shape) for name in ROWWISE for shape in (WIDE, NARROW)] + [(name, LONG) for name in POINTWISE]


def data(name, shape):
    """The input, and what a derivative is multiplied with."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(1 + name.endswith("_grad"))]


def make_fastml(name, *arrays):
    function = getattr(functional, name)
    return lambda: function(*arrays)


def make_numpy(name, *arrays):
    return lambda: IN_NUMPY[name](*arrays)


def torch_forward(name):
    functional = torch.nn.functional
    return {
        "softmax": lambda z: torch.softmax(z, 1),
        "log_softmax": lambda z: torch.log_softmax(z, 1),
        "log_sum_exp": lambda z: torch.logsumexp(z, 1),
        "leaky_relu": lambda z: functional.leaky_relu(z, 0.01),
        "prelu": lambda z: functional.prelu(z, torch.tensor([0.25])),
    }.get(name) or getattr(functional, name)


def torch_backward(name):
    """Of PReLU too what autograd calls where the slope is not learned: fastml has the gradient of z only."""
    aten = torch.ops.aten
    return {
        "sigmoid": lambda upstream, z: aten.sigmoid_backward(upstream, torch.sigmoid(z)),
        "tanh": lambda upstream, z: aten.tanh_backward(upstream, torch.tanh(z)),
        "relu": lambda upstream, z: aten.threshold_backward(upstream, z, 0),
        "leaky_relu": lambda upstream, z: aten.leaky_relu_backward(upstream, z, 0.01, False),
        "prelu": lambda upstream, z: aten.leaky_relu_backward(upstream, z, 0.25, False),
        "elu": lambda upstream, z: aten.elu_backward(upstream, 1, 1, 1, False, z),
        "gelu": lambda upstream, z: aten.gelu_backward(upstream, z),
    }[name]


def make_torch(name, *arrays):
    """A derivative is what autograd calls: of sigmoid and tanh, from the value of the forward pass."""
    use_all_threads()
    z, *upstream = map(torch.from_numpy, arrays)
    if upstream:
        backward = torch_backward(name.removesuffix("_grad"))
        return lambda: backward(*upstream, z).numpy()
    forward = torch_forward(name)
    return lambda: forward(z).numpy()


MAKERS = {"fastml": make_fastml, "numpy": make_numpy, "torch": make_torch}


def check(result, name, arrays):
    np.testing.assert_allclose(result, IN_NUMPY[name](*arrays), rtol=1e-4, atol=1e-5)


def moved(name, arrays):
    """Bytes of the inputs and of the result."""
    result = arrays[0][..., 0] if name == "log_sum_exp" else arrays[0]
    return sum(array.nbytes for array in arrays) + result.nbytes


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_function(benchmark, record, small, name, shape, maker):
    if not is_installed(maker):
        pytest.skip(f"{maker} is not installed")
    shape = SMALL[shape] if small else shape
    benchmark.group = f"{name} {'x'.join(map(str, shape))}"
    arrays = data(name, shape)
    function = MAKERS[maker](name, *arrays)
    check(function(), name, arrays)
    benchmark.pedantic(function, rounds=15, warmup_rounds=1)
    record(bytes_moved=moved(name, arrays), operations={**ROWWISE, **POINTWISE}[name] * arrays[0].size)


def main():
    """Print the ratios, taken in turns."""
    print(f"{N_THREADS} threads")
    makers = {name: make for name, make in MAKERS.items() if is_installed(name)}
    for name, shape in CASES:
        arrays = data(name, shape)
        functions = {maker: make(name, *arrays) for maker, make in makers.items()}
        for function in functions.values():
            check(function(), name, arrays)
        seconds = compare(functions, rounds=7)
        times = ", ".join(f"{who} {1e3 * s:.2f} ms {s / seconds['fastml']:.2f}x" for who, s in seconds.items())
        print(f"{name:14} {'x'.join(map(str, shape)):10} {times}", flush=True)


if __name__ == "__main__":
    main()
