"""InfoNCE with all gradients, in one direction and in both: fastml, NumPy, PyTorch eager and compiled, JAX.

``pytest benchmarks/bench_contrastive.py`` times each on its own; ``python benchmarks/bench_contrastive.py`` takes them
in turns and prints the ratios; with the word ``memory``, the peak of fastml's memory at sizes whose logits fit nowhere.
"""

import sys

import numpy as np
import pytest
from _memory import MemoryWatch
from _peers import N_THREADS, compare, is_installed, jax, jax_step, machine, timed, torch, use_all_threads

from fastml.functional import info_nce_grad

DIRECTIONS = {"one": False, "both": True}
SHAPES = [(1024, 128), (4096, 128), (16384, 128)]  # pairs, features
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
    rows, beta = np.arange(len(queries)), np.float32(1 / TEMPERATURE)
    z = queries @ keys.T
    z *= beta
    own, tops = z[rows, rows], z.max(axis=1, keepdims=True)
    back = np.exp(z - z.max(axis=0)) if is_symmetric else None
    loss = tops[:, 0] - own
    z -= tops
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    loss += np.log(total[:, 0])
    z /= total
    if is_symmetric:
        back /= back.sum(axis=0)
        loss = (loss - np.log(back[rows, rows])) / 2
        z += back
        z /= 2
    z[rows, rows] -= 1
    z *= beta
    return loss, z @ keys, z.T @ queries


def make_fastml(queries, keys, is_symmetric):
    options = {"temperature": TEMPERATURE, "similarity": "dot", "symmetric": is_symmetric}
    return lambda: info_nce_grad(queries, keys, **options)[:3]


def make_numpy(*arrays):
    return lambda: in_numpy(*arrays)


def torch_step(wrap, queries, keys, is_symmetric):
    """Forward and backward pass; losses are summed, as the gradients are of their sum."""
    use_all_threads()
    leaves, labels = [torch.from_numpy(a).requires_grad_() for a in (queries, keys)], torch.arange(len(queries))
    cross_entropy = torch.nn.functional.cross_entropy

    def loss_of(queries, keys):
        logits = queries @ keys.T / TEMPERATURE
        loss = cross_entropy(logits, labels, reduction="sum")
        return (loss + cross_entropy(logits.T, labels, reduction="sum")) / 2 if is_symmetric else loss

    function = wrap(loss_of)

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss = function(*leaves)
        loss.backward()
        return loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)

    return step


def make_torch(*arrays):
    return torch_step(lambda function: function, *arrays)


def make_torch_compile(*arrays):
    torch._dynamo.reset()
    return torch_step(lambda function: torch.compile(function, dynamic=False), *arrays)


def make_jax(queries, keys, is_symmetric):
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


def check(result, expected):
    """Against the baseline; PyTorch returns the sum of the losses."""
    np.testing.assert_allclose(np.sum(result[0]), expected[0].sum(), rtol=1e-4)
    for ours, theirs in zip(result[1:], expected[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_info_nce_grad(benchmark, record, small, shape, directions, name):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    n, d = (67, 16) if small else shape
    benchmark.group = f"info_nce_grad {n}x{d}, directions: {directions}"
    arrays = *data((n, d)), DIRECTIONS[directions]
    function = MAKERS[name](*arrays)
    check(function(), in_numpy(*arrays))
    benchmark.pedantic(function, rounds=5, warmup_rounds=1)
    record(bytes_moved=4 * arrays[0].nbytes, operations=6 * n * n * d)


def print_memory():
    """Peaks beyond the inputs; the logits alone would be 16 and 64 GiB."""
    for shape in LARGE_SHAPES:
        for directions, is_symmetric in DIRECTIONS.items():
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal(shape, dtype=np.float32) for _ in range(2)]
            info_nce_grad(*(rows[:1024] for rows in arrays), symmetric=is_symmetric)  # compiled before
            with MemoryWatch() as watch:
                _, seconds = timed(lambda arrays=arrays, both=is_symmetric: info_nce_grad(*arrays, symmetric=both))
            size = f"{shape[0]} x {shape[1]}, directions: {directions}"
            print(f"{size:30} {watch.extra / 2**20:6.0f} MiB beyond the inputs, {seconds:.1f} s", flush=True)


def main(words):
    """Print the ratios, taken in turns, and the share of the rate of sgemm, with 6 n n d operations."""
    if "memory" in words:
        return print_memory()
    sgemm = machine()["sgemm"]
    print(f"{N_THREADS} threads; sgemm {sgemm:.0f} GFLOP/s", flush=True)
    names = [name for name in MAKERS if is_installed(name)]
    for n, d in SHAPES:
        for directions, is_symmetric in DIRECTIONS.items():
            if words and not {str(n), directions} & set(words):
                continue
            arrays = *data((n, d)), is_symmetric
            functions, expected = {name: MAKERS[name](*arrays) for name in names}, in_numpy(*arrays)
            for function in functions.values():
                check(function(), expected)
            seconds = compare(functions, rounds=2 if n > 8192 else 9)
            seconds["sgemm alone"] = 6 * n * n * d / 1e9 / sgemm
            print(f"{n} x {d}, directions: {directions}")
            for name, median in seconds.items():
                ratio, share = median / seconds["fastml"], seconds["sgemm alone"] / median
                print(f"  {name:14} {1e3 * median:9.2f} ms {ratio:6.2f}x {share:5.2f} of sgemm", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
