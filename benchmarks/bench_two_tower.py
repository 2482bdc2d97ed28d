"""An epoch of TwoTower beside the same model as a PyTorch loop: fused AdamW, an EmbeddingBag where input is sparse.

``python benchmarks/bench_two_tower.py`` takes the two in turns and prints the ratios; words pick the comparisons whose
names have one of them. ``bench_two_tower.py parts`` prints where the time of an epoch goes instead. With pytest the
comparisons run once, and assert that both have the same loss.
"""

import cProfile
import itertools
import pstats
import sys

import numpy as np
import pytest
from _peers import N_THREADS, compare, print_comparisons, torch, use_all_threads
from scipy.sparse import csr_array

from fastml.functional._sparse import canonical_csr
from fastml.optim import AdamW
from fastml.training.contrastive import PairProblem, WholeBatches
from fastml.training.network import Network

TEMPERATURE, RATE = 0.07, 1e-3


def sparse(n, n_features, n_entries=50):
    """Rows like TF-IDF: of length 1, with features by a power law; CSR float32."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(n_features) + 10.0)
    columns = np.searchsorted(np.cumsum(share / share.sum()), rng.random((n, n_entries)))
    X = csr_array((np.ones(columns.size, np.float32), columns.ravel(), np.arange(n + 1) * n_entries), (n, n_features))
    X.sum_duplicates()
    X.data /= np.sqrt(np.add.reduceat(X.data**2, X.indptr[:-1]))[np.repeat(np.arange(n), np.diff(X.indptr))]
    return canonical_csr(X)


def dense(n, n_features):
    return np.random.default_rng(0).normal(size=(n, n_features)).astype(np.float32)


class Fastml:
    """What ``TwoTower.fit`` does in an epoch."""

    def __init__(self, X, Y, hidden, n_components, batch_size):
        sizes = [(rows.shape[1], *hidden, n_components) for rows in (X, Y)]
        networks = [Network(size, dtype=np.float32, n_threads=N_THREADS) for size in sizes]
        options = {"temperature": TEMPERATURE, "symmetric": True, "n_threads": N_THREADS}
        self.problem = PairProblem(networks, X, Y, np.arange(X.shape[0]), **options)
        self.values = self.problem.pack([network.start("glorot", 0) for network in networks], TEMPERATURE)
        optimizer = AdamW(RATE, weight_decay=0.01)
        self.steps = WholeBatches(self.problem, optimizer, self.values, batch_size=batch_size, l2=0.0, l1=0.0)

    def loss(self, rows):
        return self.problem.batch_loss_grad(rows, self.values, np.empty_like(self.values))

    def epoch(self, order):
        return self.steps.epoch(order)


class Torch:
    """The same from the same parameters."""

    def __init__(self, ours, batch_size):
        use_all_threads()
        self.rows, self.batch_size = (ours.problem.X, ours.problem.Y), batch_size
        networks, values = ours.problem.networks, ours.problem.split(ours.values)
        layers = [network.layers(part) for network, part in zip(networks, values, strict=True)]
        self.towers = [self._tower(rows, side) for rows, side in zip(self.rows, layers, strict=True)]
        parameters = [p for tower in self.towers for module in tower for p in module.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01, fused=True)

    def _tower(self, rows, layers):
        modules = []
        for number, layer in enumerate(layers):
            coef, intercept = torch.tensor(layer["coef"].copy()), torch.tensor(layer["intercept"].copy())
            if number == 0 and not isinstance(rows, np.ndarray):
                module = torch.nn.EmbeddingBag.from_pretrained(coef, freeze=False, mode="sum", include_last_offset=True)
                module.bias = torch.nn.Parameter(intercept)
            else:
                module = torch.nn.Linear(*coef.shape)
                module.weight.data, module.bias.data = coef.T.contiguous(), intercept
            modules.append(module)
        return modules

    def _embed(self, rows, tower):
        first, *others = tower
        if isinstance(rows, np.ndarray):
            outputs = first(torch.from_numpy(rows))
        else:
            arrays = [torch.from_numpy(a) for a in (rows.indices, rows.indptr, rows.data)]
            outputs = first(arrays[0], arrays[1], per_sample_weights=arrays[2]) + first.bias
        for module in others:
            outputs = module(torch.relu(outputs))
        return torch.nn.functional.normalize(outputs)

    def _loss(self, rows):
        queries, items = (self._embed(side[rows], tower) for side, tower in zip(self.rows, self.towers, strict=True))
        logits, target = queries @ items.T / TEMPERATURE, torch.arange(len(rows))
        loss = torch.nn.functional.cross_entropy
        return (loss(logits, target) + loss(logits.T, target)) / 2

    def loss(self, rows):
        return self._loss(rows).item()

    def epoch(self, order):
        for first in range(0, len(order) - self.batch_size + 1, self.batch_size):
            self.optimizer.zero_grad()
            self._loss(order[first : first + self.batch_size]).backward()
            self.optimizer.step()


def epoch_against_torch(X, Y, *, hidden=(), n_components=64, batch_size=2048, rounds=3):
    """Seconds of an epoch."""
    pytest.importorskip("torch")
    ours = Fastml(X, Y, hidden, n_components, batch_size)
    theirs = Torch(ours, batch_size)
    order = np.random.default_rng(0).permutation(X.shape[0])
    rows = order[:batch_size]
    np.testing.assert_allclose(ours.loss(rows), theirs.loss(rows), rtol=1e-4)
    for side in (ours, theirs):
        for _ in range(3):
            side.epoch(order)
    np.testing.assert_allclose(ours.loss(rows), theirs.loss(rows), rtol=0.05)
    seconds = compare({"theirs": lambda: theirs.epoch(order), "ours": lambda: ours.epoch(order)}, rounds)
    return seconds["theirs"], seconds["ours"], f"batch size {batch_size}", 1


def operations(*sides, hidden=(), n_components=64, batch_size=2048, **_):
    """Of an epoch: products of both towers, as in ``bench_mlp``, and of the rows of a batch with each other."""
    n, widths = sides[0].shape[0], (*hidden, n_components)
    stored = sum(side.size if isinstance(side, np.ndarray) else side.nnz for side in sides)
    later = sum(a * b for a, b in itertools.pairwise(widths))
    return 4 * stored * widths[0] + 12 * n * later + 6 * n * batch_size * n_components


COMPARISONS = {
    "sparse, 64 components": (epoch_against_torch, lambda n=20480: (sparse(n, 30_000), sparse(n, 35_000)), {}),
    "sparse, 128 components": (
        epoch_against_torch,
        lambda n=20480: (sparse(n, 30_000), sparse(n, 35_000)),
        {"n_components": 128},
    ),
    "dense, linear": (epoch_against_torch, lambda n=20480: (dense(n, 256), dense(n, 300)), {}),
    "dense, a hidden layer of 256": (
        epoch_against_torch,
        lambda n=20480: (dense(n, 256), dense(n, 300)),
        {"hidden": (256,)},
    ),
    "sparse against dense": (epoch_against_torch, lambda n=20480: (sparse(n, 30_000), dense(n, 256)), {}),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(benchmark, record_fit, small, name):
    function, data, options = COMPARISONS[name]
    arrays, options = (data(300), {**options, "batch_size": 100, "rounds": 1}) if small else (data(), options)
    found = benchmark.pedantic(lambda: function(*arrays, **options), rounds=1)
    record_fit(found, arrays[0], flops_a_pass=operations(*arrays, **options))


def print_parts(wanted):
    """Functions that an epoch spends its time in, threads joined."""
    for name, (_, data, options) in COMPARISONS.items():
        if wanted and not any(word in name for word in wanted):
            continue
        X, Y = data()
        ours = Fastml(X, Y, options.get("hidden", ()), options.get("n_components", 64), 2048)
        order, profile = np.random.default_rng(0).permutation(X.shape[0]), cProfile.Profile()
        ours.epoch(order)
        profile.runcall(ours.epoch, order)
        print(name)
        pstats.Stats(profile).sort_stats("cumulative").print_stats("training|runtime|optim|_sparse", 14)


if __name__ == "__main__":
    if "parts" in sys.argv[1:]:
        print_parts([word for word in sys.argv[1:] if word != "parts"])
    else:
        print_comparisons(COMPARISONS, sys.argv[1:])
