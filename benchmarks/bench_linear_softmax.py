"""Linear layer with softmax cross-entropy, with all gradients and alone: fastml, NumPy, PyTorch, JAX.

``pytest benchmarks/bench_linear_softmax.py`` times each on its own; ``python benchmarks/bench_linear_softmax.py`` takes
them in turns and prints the ratios.
"""

import sys

import numpy as np
import pytest
from _peers import N_THREADS, compare, is_installed, jax, jax_step, machine, torch, use_all_threads

from fastml import functional

SHAPES = [(256, 128, 1000), (4096, 128, 1000), (2048, 256, 32768), (4096, 64, 100_000)]  # rows, features, classes
CASES = [("linear_softmax_cross_entropy_grad", shape) for shape in SHAPES]
CASES += [("linear_softmax_cross_entropy", (4096, 128, 1000))]
SMALL = {shape: (37, 16, min(shape[2], 5000)) for shape in SHAPES}


def data(shape):
    n, d, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    W = rng.standard_normal((n_classes, d), dtype=np.float32) / np.float32(np.sqrt(d))
    return X, W, rng.standard_normal(n_classes, dtype=np.float32), rng.integers(0, n_classes, n)


def in_numpy(X, W, b, y):
    """The baseline: the logits are one array, and everything else happens in it."""
    loss, z, total = value_in_numpy(X, W, b, y)
    z /= total
    z[np.arange(len(X)), y] -= 1
    return loss, z @ W, z.T @ X, z.sum(axis=0)


def value_in_numpy(X, W, b, y):
    """The losses; exponentials of the logits, and the sums of these."""
    z = X @ W.T
    z += b
    z -= z.max(axis=1, keepdims=True)
    loss = -z[np.arange(len(X)), y]
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    return loss, z, total


def torch_step(loss_function, name, X, W, b, y):
    """Losses alone; or forward and backward pass, in which they are summed, as the gradients are of their sum."""
    use_all_threads()
    is_grad, labels = name.endswith("_grad"), torch.from_numpy(y)
    leaves = [torch.from_numpy(a).requires_grad_(is_grad) for a in (X, W, b)]

    def value():
        with torch.no_grad():
            return loss_function(*leaves, labels, "none").numpy()

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss = loss_function(*leaves, labels, "sum")
        loss.backward()
        return loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)

    return step if is_grad else value


def two_functions(X, W, b, y, reduction):
    functional = torch.nn.functional
    return functional.cross_entropy(functional.linear(X, W, b), y, reduction=reduction)


def make_fastml(name, *arrays):
    function = getattr(functional, name)
    return lambda: function(*arrays)


def make_numpy(name, *arrays):
    return (lambda: in_numpy(*arrays)) if name.endswith("_grad") else lambda: value_in_numpy(*arrays)[0]


def make_torch(name, *arrays):
    return torch_step(two_functions, name, *arrays)


def make_torch_fused(name, *arrays):
    fused = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if fused is None:
        pytest.skip("this PyTorch has no linear_cross_entropy")
    return torch_step(lambda X, W, b, y, reduction: fused(X, W, y, linear_bias=b, reduction=reduction), name, *arrays)


def make_torch_compile(name, *arrays):
    torch._dynamo.reset()
    return torch_step(torch.compile(two_functions, dynamic=False), name, *arrays)


def make_jax(name, X, W, b, y):
    def loss_of(X, W, b, y):
        logits = X @ W.T + b
        return (jax.nn.logsumexp(logits, axis=1) - logits[jax.numpy.arange(len(y)), y]).sum()

    return jax_step(loss_of, X, W, b, fixed=(y,))


MAKERS = {
    "fastml": make_fastml,
    "numpy": make_numpy,
    "torch": make_torch,
    "torch.linear_cross_entropy": make_torch_fused,
    "torch.compile": make_torch_compile,
    "jax": make_jax,
}


def is_candidate(name, maker):
    """JAX is compared where gradients are wanted."""
    return is_installed(maker) and (name.endswith("_grad") or maker != "jax")


def check(result, name, arrays):
    """Against the baseline; peers return the sum of the losses beside gradients."""
    if not name.endswith("_grad"):
        return np.testing.assert_allclose(result, value_in_numpy(*arrays)[0], rtol=1e-4, atol=1e-4)
    loss, *grads = in_numpy(*arrays)
    np.testing.assert_allclose(np.sum(result[0]), loss.sum(), rtol=1e-4)
    for ours, theirs in zip(result[1:], grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def work(name, arrays, shape):
    """Bytes that are moved at least, and operations: of one product, with gradients of three."""
    is_grad = name.endswith("_grad")
    return (1 + is_grad) * sum(a.nbytes for a in arrays[:3]), (2 + 4 * is_grad) * int(np.prod(shape))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_linear_softmax_cross_entropy(benchmark, record, small, name, shape, maker):
    if not is_candidate(name, maker):
        pytest.skip(f"{maker} is not installed, or has no {name}")
    shape = SMALL[shape] if small else shape
    benchmark.group = f"{name} {'x'.join(map(str, shape))}"
    arrays = data(shape)
    function = MAKERS[maker](name, *arrays)
    check(function(), name, arrays)
    benchmark.pedantic(function, rounds=5 if np.prod(shape) > 1e9 else 25, warmup_rounds=1)
    record(*work(name, arrays, shape))


def main(shapes):
    """Print the ratios, taken in turns, and the share of the rate of sgemm."""
    sgemm = machine()["sgemm"]
    print(f"{N_THREADS} threads; sgemm {sgemm:.0f} GFLOP/s", flush=True)
    for name, shape in [("linear_softmax_cross_entropy_grad", shape) for shape in shapes] or CASES:
        arrays = data(shape)
        functions = {maker: make(name, *arrays) for maker, make in MAKERS.items() if is_candidate(name, maker)}
        for function in functions.values():
            check(function(), name, arrays)
        seconds = compare(functions, rounds=3 if np.prod(shape) > 1e9 else 15)
        print(name, "x".join(map(str, shape)))
        for maker, median in seconds.items():
            rate = work(name, arrays, shape)[1] / median / 1e9
            share, ratio = rate / sgemm, median / seconds["fastml"]
            print(
                f"  {maker:27} {1e3 * median:8.2f} ms {ratio:6.2f}x {rate:6.0f} GFLOP/s {share:5.2f} of sgemm",
                flush=True,
            )


if __name__ == "__main__":
    main([tuple(map(int, shape.split("x"))) for shape in sys.argv[1:]])
