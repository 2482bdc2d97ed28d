"""Softmax cross-entropy, with its gradient and alone: fastml, in-place NumPy, PyTorch eager and compiled, JAX.

``pytest benchmarks/bench_softmax.py`` times each on its own; ``python benchmarks/bench_softmax.py`` takes them in
turns and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, is_installed, jax, jax_step, machine, torch, use_all_threads

from fastml import functional
from fastml.kernels import softmax as kernels
from fastml.runtime import run_blocks

SHAPES = [(8192, 1000), (65536, 10), (4096, 32768)]
SMALL = {(8192, 1000): (64, 1000), (65536, 10): (500, 10), (4096, 32768): (8, 32768)}
CASES = [("softmax_cross_entropy_grad", shape) for shape in SHAPES] + [("softmax_cross_entropy", (8192, 1000))]
OPERATIONS = 5  # an element: maximum, subtraction, exponential, sum, product; the last one for the gradient only


def data(shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])


def in_numpy(z, y):
    """The baseline: one array of the size of the logits, everything else in place."""
    loss, grad, total = value_in_numpy(z, y)
    grad /= total
    grad[np.arange(len(z)), y] -= 1
    return loss, grad


def value_in_numpy(z, y):
    """The losses; exponentials of the logits, and the sums of these."""
    e = z - z.max(axis=1, keepdims=True)
    loss = -e[np.arange(len(z)), y]
    np.exp(e, out=e)
    total = e.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    return loss, e, total


def torch_step(loss_function, name, z, y):
    """Losses alone; or forward and backward pass, in which they are summed, as the gradient is of their sum."""
    use_all_threads()
    is_grad, logits, labels = name.endswith("_grad"), torch.from_numpy(z), torch.from_numpy(y)

    def value():
        with torch.no_grad():
            return loss_function(logits, labels, reduction="none").numpy()

    def step():
        logits.grad = None
        loss = loss_function(logits, labels, reduction="sum")
        loss.backward()
        return loss.detach().numpy(), logits.grad.numpy()

    logits.requires_grad_(is_grad)
    return step if is_grad else value


def make_fastml(name, z, y):
    function = getattr(functional, name)
    return lambda: function(z, y)


def make_kernel(name, z, y):
    """The kernel alone, into memory that is there already: what fastml pays for new memory is the difference."""
    loss, grad, weight = np.empty(len(z), z.dtype), np.zeros_like(z), np.ones(len(z), z.dtype)
    one = z.dtype.type(1)
    if z.shape[1] <= 32:
        kernel, block, scalars = kernels.narrow_cross_entropy_grad, 2**16 // z.shape[1], (one,)
    else:
        kernel, block, scalars = kernels.cross_entropy_grad, 2**18 // z.shape[1], (one * 0, one)

    def run():
        run_blocks(kernel, len(z), block, N_THREADS, z, y, weight, *scalars, loss, grad)
        return loss, grad

    return run


def make_numpy(name, z, y):
    return (lambda: in_numpy(z, y)) if name.endswith("_grad") else lambda: value_in_numpy(z, y)[0]


def make_torch(name, z, y):
    return torch_step(torch.nn.functional.cross_entropy, name, z, y)


def make_torch_compile(name, z, y):
    torch._dynamo.reset()
    return torch_step(torch.compile(torch.nn.functional.cross_entropy, dynamic=False), name, z, y)


def make_jax(name, z, y):
    def loss_of(logits):
        rows = jax.numpy.arange(len(y))
        return (jax.nn.logsumexp(logits, axis=1) - logits[rows, y]).sum()

    return jax_step(loss_of, z)


MAKERS = {
    "fastml": make_fastml,
    "kernel": make_kernel,
    "numpy": make_numpy,
    "torch": make_torch,
    "torch.compile": make_torch_compile,
    "jax": make_jax,
}


VALUE_MAKERS = ("fastml", "numpy", "torch", "torch.compile")


def is_candidate(name, maker):
    return is_installed(maker) and (name.endswith("_grad") or maker in VALUE_MAKERS)


def check(result, name, z, y):
    """Against the baseline; peers return the sum of the losses beside a gradient."""
    if not name.endswith("_grad"):
        return np.testing.assert_allclose(result, value_in_numpy(z, y)[0], rtol=1e-4, atol=1e-5)
    loss, grad = in_numpy(z, y)
    np.testing.assert_allclose(np.sum(result[0]), loss.sum(), rtol=1e-4)
    for block in range(0, len(z), 512):
        part = slice(block, block + 512)
        np.testing.assert_allclose(result[1][part], grad[part], atol=1e-6)


def work(name, z):
    """Bytes that are moved at least, and operations."""
    is_grad = name.endswith("_grad")
    return (1 + is_grad) * z.nbytes, (OPERATIONS - (not is_grad)) * z.size


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_softmax_cross_entropy(benchmark, record, small, name, shape, maker):
    if not is_candidate(name, maker):
        pytest.skip(f"{maker} is not installed, or has no {name}")
    if small:
        shape = SMALL[shape]
    benchmark.group = f"{name} {shape[0]}x{shape[1]}"
    z, y = data(shape)
    function = MAKERS[maker](name, z, y)
    check(function(), name, z, y)
    benchmark.pedantic(function, rounds=15, warmup_rounds=1)
    record(*work(name, z))


def main():
    """Print the ratios, taken in turns."""
    limits = machine()
    print(f"{N_THREADS} threads; " + ", ".join(f"{name} {value:.1f}" for name, value in limits.items()), flush=True)
    for name, shape in CASES:
        z, y = data(shape)
        functions = {maker: make(name, z, y) for maker, make in MAKERS.items() if is_candidate(name, maker)}
        for function in functions.values():
            check(function(), name, z, y)
        seconds = compare(functions, rounds=3 if z.size > 2**26 else 15)
        print(f"{name} {shape[0]}x{shape[1]}")
        for maker, median in seconds.items():
            rate = work(name, z)[0] / median / 1e9
            ratio = median / seconds["fastml"]
            print(f"  {maker:14} {1e3 * median:8.2f} ms {ratio:6.2f}x {rate:6.1f} GB/s", flush=True)


if __name__ == "__main__":
    main()
