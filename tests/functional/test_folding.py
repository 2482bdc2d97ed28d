"""folding_score: its definition, its ends, and that trained towers come out in the right order."""

import doctest
import tracemalloc

import naive
import numpy as np
import pytest

from fastml.functional import _folding, folding_score, info_nce_grad, negative_sampling_loss_grad
from fastml.optim import Adam

rng = np.random.default_rng(0)
QUERIES = rng.standard_normal((40, 6))
KEYS = QUERIES + 0.7 * rng.standard_normal((40, 6))
NAN, INF = np.nan, np.inf


def test_examples():
    assert doctest.testmod(_folding).failed == 0


@pytest.mark.parametrize("k", [1, 2, 10, 39, 40, 1000, np.int32(3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_its_definition(dtype, k):
    queries, keys = QUERIES.astype(dtype), KEYS.astype(dtype)
    score = folding_score(queries, keys, k=k)
    assert type(score) is float
    assert score == pytest.approx(naive.folding_score(queries, keys, int(k)), abs=1e-14)
    assert 0 < score < 1


def test_blocks(monkeypatch):
    monkeypatch.setattr(_folding, "_BLOCK", 70)
    for k in 1, 10, 39, 100:
        assert folding_score(QUERIES, KEYS, k=k) == pytest.approx(naive.folding_score(QUERIES, KEYS, k), abs=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (130, 17), (1000, 64), (300, 300)])
def test_ends(shape, dtype):
    """One where all is the same, however lengths differ; nothing where each key is its query's."""
    rng = np.random.default_rng(1)
    row = rng.standard_normal(shape[1])
    lengths = rng.uniform(0.1, 10, (2, shape[0], 1))
    for k in 1, 10, 10_000:
        assert folding_score(*(lengths * row).astype(dtype), k=k) == 1
        assert folding_score(*np.zeros((2, *shape), dtype), k=k) == 1
        if shape[1] > 1:
            queries = rng.standard_normal(shape).astype(dtype)
            assert folding_score(queries, 3 * queries, k=k) == 0


def test_chance():
    for k in 1, 10, 199:
        scores = [folding_score(*np.random.default_rng(i).standard_normal((2, 200, 8)), k=k) for i in range(30)]
        assert np.mean(scores) == pytest.approx(1 - (k + 1) / 400, abs=0.02)


def test_a_collapse_need_not_be_complete():
    queries = np.ones((100, 16)) + 0.01 * np.random.default_rng(0).standard_normal((100, 16))
    assert folding_score(queries, queries) == 1
    assert folding_score(queries - 1, queries - 1) == 0


def test_order_and_scale_do_not_matter():
    order, expected = rng.permutation(40), folding_score(QUERIES, KEYS)
    assert folding_score(QUERIES[order], KEYS[order]) == expected
    assert folding_score(QUERIES * rng.uniform(1, 2, (40, 1)), 100 * KEYS) == expected
    for scale in 1e-300, 1e300:
        assert folding_score(scale * QUERIES, KEYS / scale) == expected
    single = folding_score(QUERIES.astype("f"), KEYS.astype("f"))
    assert folding_score(np.float32(1e-37) * QUERIES.astype("f"), np.float32(1e37) * KEYS.astype("f")) == single
    assert folding_score(QUERIES.astype("f"), KEYS.astype("f").astype(float)) == pytest.approx(expected, abs=0.01)
    assert folding_score((10 * QUERIES).round().astype(int), KEYS.tolist()) > 0


def test_ties_do_not_depend_on_the_order_of_rows():
    queries = np.repeat(np.eye(6), 3, axis=0)  # each query has two keys that are the same as its own
    assert folding_score(queries, queries, k=2) == 1
    assert folding_score(queries[::-1], queries[::-1], k=4) == 0.5


def test_zero_rows():
    queries, keys = np.eye(6), np.eye(6)
    queries[2] = 0  # similarity 0 with all
    assert folding_score(queries, keys, k=5) == pytest.approx(1 / 6)
    queries, keys[3] = np.eye(6), 0  # its query has all others at 0, the other queries see 0 as before
    assert folding_score(queries, keys, k=5) == pytest.approx(1 / 6)


BAD = [
    ((QUERIES, KEYS[:39]), {}, ValueError, r"^keys: expected shape \(40, 6\), .* got \(39, 6\)"),
    ((QUERIES, KEYS[:, :5]), {}, ValueError, r"^keys: expected shape \(40, 6\)"),
    ((QUERIES[:1], KEYS[:1]), {}, ValueError, "^queries: one pair has no unrelated keys"),
    ((QUERIES[:0], KEYS[:0]), {}, ValueError, "^queries has 0 rows"),
    ((QUERIES[0], KEYS[0]), {}, ValueError, "^queries: expected 2 dimensions"),
    ((np.where(QUERIES > 2, NAN, QUERIES), KEYS), {}, ValueError, "^queries: expected finite numbers, got nan"),
    ((QUERIES, np.where(KEYS > 2, INF, KEYS)), {}, ValueError, "^keys: expected finite numbers, got inf"),
    ((QUERIES + 1j, KEYS), {}, TypeError, "^queries: expected real numbers"),
    ((QUERIES, KEYS), {"k": 0}, ValueError, "^k: expected at least 1"),
    ((QUERIES, KEYS), {"k": 2.0}, TypeError, "^k: expected a whole number"),
]


@pytest.mark.parametrize(("arrays", "options", "error", "message"), BAD)
def test_bad_input(arrays, options, error, message):
    with pytest.raises(error, match=message):
        folding_score(*arrays, **options)


def test_memory(monkeypatch):
    monkeypatch.setattr(_folding, "_BLOCK", 1 << 16)
    rows = np.random.default_rng(0).standard_normal((4000, 32)).astype(np.float32)
    folding_score(rows[:100], rows[:100])
    tracemalloc.start()
    assert folding_score(rows, rows, k=500) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 4000 * 500  # all similarities of neighbourhoods, without their ids


def towers(step, X, Y, n_steps=150):
    """Two linear towers trained by ``step(queries, keys) -> their gradients``; embeddings of all rows."""
    params = [0.1 * np.random.default_rng(seed).standard_normal((X.shape[1], 16)) for seed in (1, 2)]
    optimizer = Adam(0.02)
    state = optimizer.init(params)
    for _ in range(n_steps):
        grads = step(X @ params[0], Y @ params[1])
        optimizer.update(params, [X.T @ grads[0] / len(X), Y.T @ grads[1] / len(X)], state)
    return X @ params[0], Y @ params[1]


def two_groups(n=200, n_words=40, n_topics=12):
    """Pairs of texts on the same topics, each side with words of its own; the groups have no word in common."""
    rng = np.random.default_rng(0)
    topics, group = rng.dirichlet(np.full(n_topics, 0.3), n), np.arange(n) % 2
    sides = np.zeros((2, n, 2 * n_words))
    for side in sides:
        for g in 0, 1:
            words = rng.poisson(200 * topics @ rng.dirichlet(np.full(n_words, 0.2), n_topics))
            side[group == g, g * n_words : (g + 1) * n_words] = words[group == g]
    return np.log1p(sides)


def test_positives_only_fold():
    draws = np.random.default_rng(1)

    def positives(queries, keys):
        pull = -1 / (1 + np.exp((queries * keys).sum(axis=1, keepdims=True)))
        return pull * keys, pull * queries

    def sampled(queries, keys):
        ids = draws.integers(len(keys), size=(len(keys), 5))
        _, q, k, negatives = negative_sampling_loss_grad(queries, keys, keys[ids])
        np.add.at(k, ids, negatives)
        return q, k

    def contrastive(queries, keys):
        return info_nce_grad(queries, keys, temperature=0.1)[1:3]

    folded, *parted = (folding_score(*towers(step, *two_groups())) for step in (positives, sampled, contrastive))
    assert folded > 0.9
    assert max(parted) < 0.3
