"""Softmax cross-entropy, value and gradient: fastml, in-place NumPy, PyTorch eager and compiled, JAX.

``pytest benchmarks/bench_softmax.py`` times each on its own; ``python benchmarks/bench_softmax.py`` takes them in
turns and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, is_installed, jax, jax_step, machine, torch, use_all_threads

from fastml.functional import softmax_cross_entropy_grad
from fastml.kernels import softmax as kernels
from fastml.runtime import run_blocks

SHAPES = [(8192, 1000), (65536, 10), (4096, 32768)]
SMALL = {(8192, 1000): (64, 1000), (65536, 10): (500, 10), (4096, 32768): (8, 32768)}
OPERATIONS = 5  # an element: maximum, subtraction, exponential, sum, product


def data(shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])


def in_numpy(z, y):
    """The baseline: one array of the size of the logits, everything else in place."""
    rows = np.arange(len(z))
    grad = z - z.max(axis=1, keepdims=True)
    loss = -grad[rows, y]
    np.exp(grad, out=grad)
    total = grad.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    grad /= total
    grad[rows, y] -= 1
    return loss, grad


def torch_step(loss_function, z, y):
    """Forward and backward pass; losses are summed, as the gradient is of their sum."""
    use_all_threads()
    logits, labels = torch.from_numpy(z).requires_grad_(), torch.from_numpy(y)

    def step():
        logits.grad = None
        loss = loss_function(logits, labels, reduction="sum")
        loss.backward()
        return loss.detach().numpy(), logits.grad.numpy()

    return step


def make_fastml(z, y):
    return lambda: softmax_cross_entropy_grad(z, y)


def make_kernel(z, y):
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


def make_numpy(z, y):
    return lambda: in_numpy(z, y)


def make_torch(z, y):
    return torch_step(torch.nn.functional.cross_entropy, z, y)


def make_torch_compile(z, y):
    torch._dynamo.reset()
    return torch_step(torch.compile(torch.nn.functional.cross_entropy, dynamic=False), z, y)


def make_jax(z, y):
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


def check(result, z, y):
    """Against the baseline; peers return the sum of the losses."""
    loss, grad = in_numpy(z, y)
    np.testing.assert_allclose(np.sum(result[0]), loss.sum(), rtol=1e-4)
    for block in range(0, len(z), 512):
        part = slice(block, block + 512)
        np.testing.assert_allclose(result[1][part], grad[part], atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_softmax_cross_entropy_grad(benchmark, record, small, shape, name):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    if small:
        shape = SMALL[shape]
    benchmark.group = f"softmax_cross_entropy_grad {shape[0]}x{shape[1]}"
    z, y = data(shape)
    function = MAKERS[name](z, y)
    check(function(), z, y)
    benchmark.pedantic(function, rounds=15, warmup_rounds=1)
    record(bytes_moved=2 * z.nbytes, operations=OPERATIONS * z.size)


def main():
    """Print the ratios, taken in turns."""
    limits = machine()
    print(f"{N_THREADS} threads; " + ", ".join(f"{name} {value:.1f}" for name, value in limits.items()), flush=True)
    names = [name for name in MAKERS if is_installed(name)]
    for shape in SHAPES:
        z, y = data(shape)
        functions = {name: MAKERS[name](z, y) for name in names}
        for function in functions.values():
            check(function(), z, y)
        seconds = compare(functions, rounds=3 if z.size > 2**26 else 15)
        print(f"{shape[0]}x{shape[1]}")
        for name, median in seconds.items():
            rate = 2 * z.nbytes / median / 1e9
            ratio = median / seconds["fastml"]
            print(f"  {name:14} {1e3 * median:8.2f} ms {ratio:6.2f}x {rate:6.1f} GB/s", flush=True)


if __name__ == "__main__":
    main()
