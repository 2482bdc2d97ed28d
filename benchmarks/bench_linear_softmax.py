"""Linear layer with softmax cross-entropy, value and all gradients: fastml, NumPy, PyTorch eager and compiled.

``pytest benchmarks/bench_linear_softmax.py`` times each on its own; ``python benchmarks/bench_linear_softmax.py`` takes
them in turns and prints the ratios.
"""

import sys

import numpy as np
import pytest
from _peers import N_THREADS, compare, machine, torch, use_all_threads

from fastml.functional import linear_softmax_cross_entropy_grad

SHAPES = [(256, 128, 1000), (4096, 128, 1000), (2048, 256, 32768), (4096, 64, 100_000)]  # rows, features, classes
SMALL = {shape: (37, 16, min(shape[2], 5000)) for shape in SHAPES}


def data(shape):
    n, d, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    W = rng.standard_normal((n_classes, d), dtype=np.float32) / np.float32(np.sqrt(d))
    return X, W, rng.standard_normal(n_classes, dtype=np.float32), rng.integers(0, n_classes, n)


def in_numpy(X, W, b, y):
    """The baseline: the logits are one array, and everything else happens in it."""
    rows = np.arange(len(X))
    z = X @ W.T
    z += b
    z -= z.max(axis=1, keepdims=True)
    loss = -z[rows, y]
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    z /= total
    z[rows, y] -= 1
    return loss, z @ W, z.T @ X, z.sum(axis=0)


def torch_step(loss_function, X, W, b, y):
    """Forward and backward pass; losses are summed, as the gradients are of their sum."""
    use_all_threads()
    leaves, labels = [torch.from_numpy(a).requires_grad_() for a in (X, W, b)], torch.from_numpy(y)

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss = loss_function(*leaves, labels)
        loss.backward()
        return loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)

    return step


def two_functions(X, W, b, y):
    functional = torch.nn.functional
    return functional.cross_entropy(functional.linear(X, W, b), y, reduction="sum")


def make_fastml(*arrays):
    return lambda: linear_softmax_cross_entropy_grad(*arrays)


def make_numpy(*arrays):
    return lambda: in_numpy(*arrays)


def make_torch(*arrays):
    return torch_step(two_functions, *arrays)


def make_torch_fused(*arrays):
    fused = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if fused is None:
        pytest.skip("this PyTorch has no linear_cross_entropy")
    return torch_step(lambda X, W, b, y: fused(X, W, y, linear_bias=b, reduction="sum"), *arrays)


def make_torch_compile(*arrays):
    torch._dynamo.reset()
    return torch_step(torch.compile(two_functions, dynamic=False), *arrays)


MAKERS = {
    "fastml": make_fastml,
    "numpy": make_numpy,
    "torch": make_torch,
    "torch.linear_cross_entropy": make_torch_fused,
    "torch.compile": make_torch_compile,
}


def check(result, arrays):
    """Against the baseline; peers return the sum of the losses."""
    loss, *grads = in_numpy(*arrays)
    np.testing.assert_allclose(np.sum(result[0]), loss.sum(), rtol=1e-4)
    for ours, theirs in zip(result[1:], grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_linear_softmax_cross_entropy_grad(benchmark, record, small, shape, name):
    if name.startswith("torch"):
        pytest.importorskip("torch")
    shape = SMALL[shape] if small else shape
    benchmark.group = "linear_softmax_cross_entropy_grad " + "x".join(map(str, shape))
    arrays = data(shape)
    function = MAKERS[name](*arrays)
    check(function(), arrays)
    benchmark.pedantic(function, rounds=5 if np.prod(shape) > 1e9 else 25, warmup_rounds=1)
    record(bytes_moved=2 * sum(a.nbytes for a in arrays[:3]), operations=6 * int(np.prod(shape)))


def main(shapes):
    """Print the ratios, taken in turns, and the share of the rate of sgemm."""
    sgemm = machine()["sgemm"]
    print(f"{N_THREADS} threads; sgemm {sgemm:.0f} GFLOP/s", flush=True)
    names = [name for name in MAKERS if torch is not None or not name.startswith("torch")]
    for shape in shapes:
        arrays = data(shape)
        functions = {name: MAKERS[name](*arrays) for name in names}
        for function in functions.values():
            check(function(), arrays)
        seconds = compare(functions, rounds=3 if np.prod(shape) > 1e9 else 15)
        print("x".join(map(str, shape)))
        for name, median in seconds.items():
            rate = 6 * np.prod(shape) / median / 1e9
            share, ratio = rate / sgemm, median / seconds["fastml"]
            print(
                f"  {name:27} {1e3 * median:8.2f} ms {ratio:6.2f}x {rate:6.0f} GFLOP/s {share:5.2f} of sgemm",
                flush=True,
            )


if __name__ == "__main__":
    main([tuple(map(int, shape.split("x"))) for shape in sys.argv[1:]] or SHAPES)
