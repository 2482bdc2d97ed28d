"""InfoNCE, with all gradients and alone, in one direction and in both: fastml, NumPy, PyTorch eager and compiled, JAX.

``pytest benchmarks/bench_contrastive.py`` times each on its own; ``python benchmarks/bench_contrastive.py`` takes them
in turns and prints the ratios; with the word ``memory``, the peak of fastml's memory at sizes whose logits fit nowhere.
"""

import itertools
import sys

import numpy as np
import pytest
from _memory import MemoryWatch
from _peers import N_THREADS, compare, is_installed, jax, jax_step, machine, timed, torch, use_all_threads

from fastml import functional

DIRECTIONS = {"one": False, "both": True}
SHAPES = [(1024, 128), (4096, 128), (16384, 128)]  # pairs, features
CASES = [("info_nce_grad", shape) for shape in SHAPES] + [("info_nce", (4096, 128))]
LARGE_SHAPES = [(65536, 128), (131072, 64)]  # for memory
TEMPERATURE = 0.07


def data(shape):
    """Unit rows, and keys not far from their queries."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal(shape, dtype=np.float32)
    keys = queries + rng.standard_normal(shape, dtype=np.float32)
    return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, keys)]


def in_numpy(queries, keys, is_symmetric):
    """The baseline: the logits are one array, and what can happen in it does."""
    rows = np.arange(len(queries))
    loss, z, total, back = value_in_numpy(queries, keys, is_symmetric)
    z /= total
    if is_symmetric:
        back /= back.sum(axis=0)
        z += back
        z /= 2
    z[rows, rows] -= 1
    z *= np.float32(1 / TEMPERATURE)
    return loss, z @ keys, z.T @ queries


def value_in_numpy(queries, keys, is_symmetric):
    """The losses; exponentials of the logits of queries and their sums, exponentials of the logits of keys or None."""
    z, back = queries @ keys.T, None
    z *= np.float32(1 / TEMPERATURE)
    own, tops = z.diagonal().copy(), z.max(axis=1, keepdims=True)
    loss = tops[:, 0] - own
    if is_symmetric:
        tops_back = z.max(axis=0)
        back = z - tops_back
        np.exp(back, out=back)
        loss += np.log(back.sum(axis=0)) + tops_back - own
    z -= tops
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    if is_symmetric:
        loss /= 2
    return loss, z, total, back


def make_fastml(name, queries, keys, is_symmetric):
    function = getattr(functional, name)
    options = {"temperature": TEMPERATURE, "similarity": "dot", "symmetric": is_symmetric}
    if name == "info_nce":
        return lambda: function(queries, keys, **options)
    return lambda: function(queries, keys, **options)[:3]


def make_numpy(name, *arrays):
    return (lambda: in_numpy(*arrays)) if name.endswith("_grad") else lambda: value_in_numpy(*arrays)[0]


def torch_step(wrap, name, queries, keys, is_symmetric):
    """Losses alone; or forward and backward pass, in which they are summed, as the gradients are of their sum."""
    use_all_threads()
    is_grad, labels = name.endswith("_grad"), torch.arange(len(queries))
    leaves = [torch.from_numpy(a).requires_grad_(is_grad) for a in (queries, keys)]
    reduction, cross_entropy = "sum" if is_grad else "none", torch.nn.functional.cross_entropy

    def loss_of(queries, keys):
        logits = queries @ keys.T / TEMPERATURE
        loss = cross_entropy(logits, labels, reduction=reduction)
        return (loss + cross_entropy(logits.T, labels, reduction=reduction)) / 2 if is_symmetric else loss

    function = wrap(loss_of)

    def value():
        with torch.no_grad():
            return function(*leaves).numpy()

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss = function(*leaves)
        loss.backward()
        return loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)

    return step if is_grad else value


def make_torch(*arguments):
    return torch_step(lambda function: function, *arguments)


def make_torch_compile(*arguments):
    torch._dynamo.reset()
    return torch_step(lambda function: torch.compile(function, dynamic=False), *arguments)


def make_jax(name, queries, keys, is_symmetric):
    def loss_of(queries, keys):
        logits = queries @ keys.T / TEMPERATURE
        loss = (jax.nn.logsumexp(logits, axis=1) - jax.numpy.diag(logits)).sum()
        if not is_symmetric:
            return loss
        return (loss + (jax.nn.logsumexp(logits, axis=0) - jax.numpy.diag(logits)).sum()) / 2

    return jax_step(loss_of, queries, keys)


MAKERS = {
    "fastml": make_fastml,
    "numpy": make_numpy,
    "torch": make_torch,
    "torch.compile": make_torch_compile,
    "jax": make_jax,
}


VALUE_MAKERS = ("fastml", "numpy", "torch", "torch.compile")


def is_candidate(name, maker):
    return is_installed(maker) and (name.endswith("_grad") or maker in VALUE_MAKERS)


def check(result, name, expected):
    """Against the baseline; peers return the sum of the losses beside gradients."""
    if not name.endswith("_grad"):
        return np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.sum(result[0]), expected[0].sum(), rtol=1e-4)
    for ours, theirs in zip(result[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def work(name, n, d):
    """Bytes that are moved at least, and operations: of one product, with gradients of three."""
    is_grad = name.endswith("_grad")
    return (1 + is_grad) * 8 * n * d, (2 + 4 * is_grad) * n * n * d


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_info_nce(benchmark, record, small, name, shape, directions, maker):
    if not is_candidate(name, maker):
        pytest.skip(f"{maker} is not installed, or has no {name}")
    n, d = (67, 16) if small else shape
    benchmark.group = f"{name} {n}x{d}, directions: {directions}"
    arrays = *data((n, d)), DIRECTIONS[directions]
    function = MAKERS[maker](name, *arrays)
    check(function(), name, make_numpy(name, *arrays)())
    benchmark.pedantic(function, rounds=5, warmup_rounds=1)
    record(*work(name, n, d))


def print_memory():
    """Peaks beyond the inputs; the logits alone would be 16 and 64 GiB."""
    for shape in LARGE_SHAPES:
        for directions, is_symmetric in DIRECTIONS.items():
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal(shape, dtype=np.float32) for _ in range(2)]
            functional.info_nce_grad(*(rows[:1024] for rows in arrays), symmetric=is_symmetric)  # compiled before
            with MemoryWatch() as watch:
                _, seconds = timed(
                    lambda arrays=arrays, both=is_symmetric: functional.info_nce_grad(*arrays, symmetric=both)
                )
            size = f"{shape[0]} x {shape[1]}, directions: {directions}"
            print(f"{size:30} {watch.extra / 2**20:6.0f} MiB beyond the inputs, {seconds:.1f} s", flush=True)


def main(words):
    """Print the ratios, taken in turns, and the share of the rate of sgemm."""
    if "memory" in words:
        return print_memory()
    sgemm = machine()["sgemm"]
    print(f"{N_THREADS} threads; sgemm {sgemm:.0f} GFLOP/s", flush=True)
    for (name, (n, d)), (directions, is_symmetric) in itertools.product(CASES, DIRECTIONS.items()):
        if words and not {str(n), directions} & set(words):
            continue
        arrays = *data((n, d)), is_symmetric
        functions = {maker: make(name, *arrays) for maker, make in MAKERS.items() if is_candidate(name, maker)}
        expected = functions["numpy"]()
        for function in functions.values():
            check(function(), name, expected)
        seconds = compare(functions, rounds=2 if n > 8192 else 9)
        seconds["sgemm alone"] = work(name, n, d)[1] / 1e9 / sgemm
        print(f"{name} {n} x {d}, directions: {directions}")
        for maker, median in seconds.items():
            ratio, share = median / seconds["fastml"], seconds["sgemm alone"] / median
            print(f"  {maker:14} {1e3 * median:9.2f} ms {ratio:6.2f}x {share:5.2f} of sgemm", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
