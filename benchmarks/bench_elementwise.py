"""Softmax and its logarithm, activations and their derivatives: fastml, in-place NumPy, PyTorch.

``pytest benchmarks/bench_elementwise.py`` times each on its own; ``python benchmarks/bench_elementwise.py`` takes them
in turns and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, is_installed, torch, use_all_threads
from scipy.special import expit

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


def numpy_sigmoid_grad(z, upstream):
    s = expit(z)
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


IN_NUMPY = {name.removeprefix("numpy_"): function for name, function in globals().items() if name.startswith("numpy_")}
IN_NUMPY |= {"sigmoid": expit, "tanh": np.tanh}
ROWWISE = {"softmax": 5, "log_softmax": 5, "log_sum_exp": 4}  # operations an element
POINTWISE = {"sigmoid": 3, "tanh": 3, "sigmoid_grad": 6, "tanh_grad": 6}
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


def make_torch(name, *arrays):
    """A derivative is what autograd calls, from the value of the forward pass."""
    use_all_threads()
    z, *upstream = map(torch.from_numpy, arrays)
    forward = {
        "softmax": lambda: torch.softmax(z, 1),
        "log_softmax": lambda: torch.log_softmax(z, 1),
        "log_sum_exp": lambda: torch.logsumexp(z, 1),
        "sigmoid": lambda: torch.sigmoid(z),
        "tanh": lambda: torch.tanh(z),
    }[name.removesuffix("_grad")]
    if not upstream:
        return lambda: forward().numpy()
    backward = getattr(torch.ops.aten, f"{name.removesuffix('_grad')}_backward")
    return lambda: backward(upstream[0], forward()).numpy()


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
