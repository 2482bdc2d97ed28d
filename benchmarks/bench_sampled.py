"""Losses of sampled candidates, with all gradients and alone: fastml, NumPy, PyTorch.

``pytest benchmarks/bench_sampled.py`` times each on its own; ``python benchmarks/bench_sampled.py`` takes them in turns
and prints the ratios, and the share of the rate of sgemm. "fastml, rows" is what training loops call: it has gradients
of the classes that occur only, as PyTorch's sparse ones; "fastml" and "full softmax" are the functions of
``fastml.functional``, with dense gradients.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, machine, torch, use_all_threads

from fastml import functional
from fastml.runtime import sampled

SHAPE = (1024, 64, 100_000, 1024)  # rows, features, classes, negatives
PAIRS = (16_384, 5, 128)  # rows, negatives of each, features
SMALL = {SHAPE: (37, 16, 5000, 100), PAIRS: (37, 5, 16)}


def softmax_data(shape):
    """Popular classes are drawn more often: p falls as one over the rank."""
    n, d, n_classes, m = shape
    rng = np.random.default_rng(0)
    X, W = (rng.standard_normal((rows, d), dtype=np.float32) for rows in (n, n_classes))
    W /= np.float32(np.sqrt(d))
    p = 1 / np.arange(100, n_classes + 100)
    p /= p.sum()
    target, negatives = rng.choice(n_classes, n, p=p), rng.choice(n_classes, m, p=p)
    return X, W, np.zeros(n_classes, np.float32), target, negatives, np.log(m * p).astype(np.float32)


def softmax_operations(name, X, W, b, target, negatives, log_q):
    """A product of the rows with the drawn classes, with gradients three; one that was drawn twice is needed once."""
    return (2 + 4 * name.endswith("_grad")) * X.size * len(np.unique(negatives))


def softmax_in_numpy(X, W, b, target, negatives, log_q):
    """The baseline: the logits of the negatives are one array, and everything else happens in it."""
    loss, (z, own), total, (positive, drawn) = softmax_value_in_numpy(X, W, b, target, negatives, log_q)
    z /= total[:, None]
    pull = own / total - 1
    W_grad, b_grad = np.zeros_like(W), np.zeros_like(b)
    np.add.at(W_grad, target, pull[:, None] * X)
    np.add.at(W_grad, negatives, z.T @ X)
    np.add.at(b_grad, target, pull)
    np.add.at(b_grad, negatives, z.sum(axis=0))
    return loss, z @ drawn + pull[:, None] * positive, W_grad, b_grad


def softmax_value_in_numpy(X, W, b, target, negatives, log_q):
    """The losses; exponentials of the negatives' logits and of the targets', their sums, and the rows of W of both."""
    positive, drawn, shift = W[target], W[negatives], b - log_q
    z = X @ drawn.T
    z += shift[negatives]
    z[target[:, None] == negatives] = -np.inf
    s = np.einsum("nd,nd->n", X, positive) + shift[target]
    top = np.maximum(z.max(axis=1), s)
    z -= top[:, None]
    np.exp(z, out=z)
    own = np.exp(s - top)
    total = z.sum(axis=1) + own
    return np.log(total) + top - s, (z, own), total, (positive, drawn)


def make_rows(name, X, W, b, target, negatives, log_q):
    weight = np.ones(len(X), np.float32)

    def step():
        occurring = sampled.drawn(target, negatives)
        candidates = sampled.gather(occurring, W, b, log_q, True, X.dtype)
        grads = np.empty_like(X), np.empty_like(candidates.W), np.empty_like(candidates.shift)
        loss = sampled.softmax_loss_grad(X, candidates, weight, N_THREADS, *grads)
        return (
            loss,
            grads[0],
            *((table, occurring.classes, grad) for table, grad in zip((W, b), grads[1:], strict=True)),
        )

    return step


def make_softmax_torch(name, X, W, b, target, negatives, log_q):
    """Losses alone; or forward and backward pass, with sparse gradients of the tables."""
    use_all_threads()
    table, intercepts = (
        torch.nn.Embedding.from_pretrained(torch.from_numpy(a), freeze=False, sparse=True) for a in (W, b[:, None])
    )
    rows, labels, drawn, log_q = (torch.from_numpy(a) for a in (X, target, negatives, log_q))
    rows, zeros = rows.requires_grad_(), torch.zeros(len(X), dtype=torch.long)

    def losses(reduction):
        s = (rows * table(labels)).sum(1) + intercepts(labels)[:, 0] - log_q[labels]
        z = rows @ table(drawn).T + intercepts(drawn)[:, 0] - log_q[drawn]
        z = torch.cat([s[:, None], z.masked_fill(labels[:, None] == drawn, -torch.inf)], dim=1)
        return torch.nn.functional.cross_entropy(z, zeros, reduction=reduction)

    def value():
        with torch.no_grad():
            return losses("none").numpy()

    def step():
        rows.grad = table.weight.grad = intercepts.weight.grad = None
        loss = losses("sum")
        loss.backward()
        return loss.detach().numpy(), rows.grad.numpy(), table.weight.grad, intercepts.weight.grad

    return step if name.endswith("_grad") else value


def make_softmax(name, X, W, b, target, negatives, log_q):
    function = getattr(functional, name)
    return lambda: function(X, W, b, target, negatives=negatives, log_q=log_q)


def make_softmax_numpy(name, *arrays):
    if name.endswith("_grad"):
        return lambda: softmax_in_numpy(*arrays)
    return lambda: softmax_value_in_numpy(*arrays)[0]


SOFTMAX = {
    "fastml, rows": make_rows,
    "fastml": make_softmax,
    "numpy": make_softmax_numpy,
    "torch": make_softmax_torch,
}


def pairs_data(shape):
    n, m, d = shape
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(s, dtype=np.float32) / np.float32(d**0.5) for s in ((n, d), (n, d), (n, m, d)))


def pairs_in_numpy(queries, keys, negatives):
    """The baseline: logits in two arrays, large products by einsum."""
    loss, s, z = pairs_value_in_numpy(queries, keys, negatives)
    pull, push = -1 / (1 + np.exp(s)), 1 / (1 + np.exp(-z))
    queries_grad = (push[:, None, :] @ negatives)[:, 0]
    queries_grad += pull[:, None] * keys
    return loss, queries_grad, pull[:, None] * queries, push[:, :, None] * queries[:, None, :]


def pairs_value_in_numpy(queries, keys, negatives):
    """The losses; logits of the keys and of the negatives."""
    s, z = np.einsum("nd,nd->n", queries, keys), (negatives @ queries[:, :, None])[:, :, 0]
    loss = np.logaddexp(0, -s)
    loss += np.logaddexp(0, z).sum(axis=1)
    return loss, s, z


def make_pairs(name, *arrays):
    function = getattr(functional, name)
    return lambda: function(*arrays)


def make_pairs_numpy(name, *arrays):
    return (lambda: pairs_in_numpy(*arrays)) if name.endswith("_grad") else lambda: pairs_value_in_numpy(*arrays)[0]


def make_pairs_torch(name, *arrays):
    use_all_threads()
    leaves = [torch.from_numpy(a).requires_grad_() for a in arrays]
    log_sigmoid = torch.nn.functional.logsigmoid

    def losses():
        queries, keys, negatives = leaves
        z = torch.bmm(negatives, queries[:, :, None])[:, :, 0]
        return -log_sigmoid((queries * keys).sum(1)) - log_sigmoid(-z).sum(1)

    def value():
        with torch.no_grad():
            return losses().numpy()

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss = losses().sum()
        loss.backward()
        return loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)

    return step if name.endswith("_grad") else value


NEGATIVE_SAMPLING = {
    "fastml": make_pairs,
    "numpy": make_pairs_numpy,
    "torch": make_pairs_torch,
}


def dense(grad):
    """Gradients as arrays, whatever form they have."""
    if isinstance(grad, tuple):
        table, classes, rows = grad
        grad = np.zeros_like(table)
        grad[classes] = rows
    elif not isinstance(grad, np.ndarray):
        grad = grad.to_dense().numpy()
    return grad


def check(result, name, expected):
    """Against the baseline; PyTorch returns the sum of the losses beside gradients."""
    if not name.endswith("_grad"):
        return np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.sum(result[0]), expected[0].sum(), rtol=1e-4)
    for ours, theirs in zip(map(dense, result[1:]), expected[1:], strict=True):
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=1e-4 * np.abs(theirs).max())


def measure(benchmark, makers, name, maker, arrays):
    if maker == "torch":
        pytest.importorskip("torch")
    function = makers[maker](name, *arrays)
    check(function(), name, makers["numpy"](name, *arrays)())
    benchmark.pedantic(function, rounds=25, warmup_rounds=1)


@pytest.mark.parametrize("maker", SOFTMAX)
@pytest.mark.parametrize("name", ["sampled_softmax_cross_entropy_grad", "sampled_softmax_cross_entropy"])
def test_sampled_softmax_cross_entropy(benchmark, record, small, name, maker):
    if maker == "fastml, rows" and not name.endswith("_grad"):
        pytest.skip("training loops want gradients")
    shape = SMALL[SHAPE] if small else SHAPE
    arrays = softmax_data(shape)
    benchmark.group = f"{name} {'x'.join(map(str, shape))}"
    measure(benchmark, SOFTMAX, name, maker, arrays)
    size = arrays[0].size + arrays[4].size * shape[1]
    record(bytes_moved=(4 + 8 * name.endswith("_grad")) * size, operations=softmax_operations(name, *arrays))


@pytest.mark.parametrize("maker", NEGATIVE_SAMPLING)
@pytest.mark.parametrize("name", ["negative_sampling_loss_grad", "negative_sampling_loss"])
def test_negative_sampling_loss(benchmark, record, small, name, maker):
    shape = SMALL[PAIRS] if small else PAIRS
    arrays, is_grad = pairs_data(shape), name.endswith("_grad")
    benchmark.group = f"{name} {'x'.join(map(str, shape))}"
    measure(benchmark, NEGATIVE_SAMPLING, name, maker, arrays)
    moved = (1 + is_grad) * sum(a.nbytes for a in arrays)
    record(bytes_moved=moved, operations=(2 + 4 * is_grad) * arrays[2].size)


def print_ratios(name, makers, arrays, operations, others=None):
    """Ratios to the first one, taken in turns; ``others`` are not compared with the baseline."""
    functions = {maker: make(name, *arrays) for maker, make in makers.items() if torch is not None or maker != "torch"}
    expected = functions["numpy"]()
    for function in functions.values():
        check(function(), name, expected)
    seconds = compare({**functions, **(others or {})}, rounds=10)
    ours, sgemm = next(iter(seconds.values())), machine()["sgemm"]
    print(name)
    for maker, median in seconds.items():
        share = f"{operations / median / 1e9 / sgemm:5.2f} of sgemm" * (maker in functions)
        print(f"  {maker:13} {1e3 * median:8.2f} ms {median / ours:7.2f}x {share}", flush=True)


def main():
    """Print the ratios."""
    print(f"{N_THREADS} threads; sgemm {machine()['sgemm']:.0f} GFLOP/s", flush=True)
    arrays, alone = softmax_data(SHAPE), {maker: make for maker, make in SOFTMAX.items() if maker != "fastml, rows"}
    full = {"full softmax": lambda: functional.linear_softmax_cross_entropy_grad(*arrays[:4])}
    for name, makers, others in (("_grad", SOFTMAX, full), ("", alone, None)):
        name = "sampled_softmax_cross_entropy" + name
        print_ratios(name, makers, arrays, softmax_operations(name, *arrays), others)
    pairs = pairs_data(PAIRS)
    for name, products in (("negative_sampling_loss_grad", 3), ("negative_sampling_loss", 1)):
        print_ratios(name, NEGATIVE_SAMPLING, pairs, 2 * products * pairs[2].size)


if __name__ == "__main__":
    main()
