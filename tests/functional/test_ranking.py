"""The faces of the ranking metrics: what they take and what they refuse."""

import naive
import numpy as np
import pytest
from scipy.sparse import coo_array, csc_array, csr_array, csr_matrix
from sklearn.metrics import ndcg_score

from fastml import functional

METRICS = ["ndcg", "recall", "precision", "average_precision", "reciprocal_rank", "hit_rate"]
every_metric = pytest.mark.parametrize("name", METRICS)

rng = np.random.default_rng(0)
RANKED = np.array([rng.permutation(30)[:8] for _ in range(40)])
RANKED[:5, 5:] = -1
RELEVANT = csr_array((rng.random((40, 30)) < 0.15) * rng.integers(1, 6, (40, 30)))


def changed(value, at):
    ranked = RANKED.copy()
    ranked[at] = value
    return ranked


@every_metric
@pytest.mark.parametrize("k", [None, 1, 3, np.int64(8)])
def test_equals_its_definition(name, k):
    value = getattr(functional, name)(RANKED, RELEVANT, k=k)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, getattr(naive, name)(RANKED, RELEVANT, 8 if k is None else k), rtol=1e-14)


def test_by_hand():
    relevant = csr_array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    ranked = [[0, 3, 1, 4], [1, 2, 3, -1], [0, 1, 2, 3]]
    expected = {
        "ndcg": (1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2),
        "recall": 2 / 3,
        "precision": 2 / 4,
        "average_precision": (1 + 2 / 3) / 3,
        "reciprocal_rank": 1,
        "hit_rate": 1,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(functional, name)(ranked, relevant), [value, 0, 0], rtol=1e-14)


@pytest.mark.parametrize("k", [3, 8, 30])
def test_ndcg_is_that_of_scikit_learn(k):
    relevant = csr_array(RELEVANT.toarray() != 0)
    ranked = np.array([rng.permutation(30) for _ in range(40)])
    scores = np.empty((40, 30))
    np.put_along_axis(scores, ranked, np.arange(30.0, 0, -1)[None], axis=1)
    for row, value in enumerate(functional.ndcg(ranked, relevant, k=k)):
        expected = ndcg_score(relevant[[row]].toarray(), scores[[row]], k=k, ignore_ties=True)
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@every_metric
def test_the_ideal_ranking_and_the_worst(name):
    relevant = csr_array([[1, 1, 0, 0, 0, 0]])
    function = getattr(functional, name)
    assert function([[0, 1, 2]], relevant) == (2 / 3 if name == "precision" else 1)
    assert function([[1]], relevant) == (0.5 if name == "recall" else 1)
    assert function([[2, 3, 4]], relevant) == 0
    assert function([[-1, -1]], relevant) == 0


@every_metric
def test_results_of_top_k_can_be_ranked(name):
    queries, items = rng.standard_normal((40, 3)), rng.standard_normal((30, 3))
    ids = functional.top_k(queries, items, 35).ids
    np.testing.assert_allclose(
        getattr(functional, name)(ids, RELEVANT), getattr(naive, name)(ids, RELEVANT, 35), rtol=1e-14
    )


@every_metric
def test_formats_and_layouts(name):
    function = getattr(functional, name)
    expected = function(RANKED, RELEVANT)
    for convert in csr_matrix, csc_array, coo_array:
        np.testing.assert_array_equal(function(RANKED, convert(RELEVANT)), expected)
    for dtype in bool, np.float32, np.int8:
        np.testing.assert_array_equal(function(RANKED, RELEVANT.astype(dtype)), expected)
    read_only = RANKED.astype(np.int32)
    read_only.flags.writeable = False
    for ranked in read_only, np.asfortranarray(RANKED), RANKED.tolist(), RANKED.astype(">i8"), RANKED.astype(np.int8):
        np.testing.assert_array_equal(function(ranked, RELEVANT), expected)
    np.testing.assert_array_equal(function(RANKED[5:].astype(np.uint16), RELEVANT[5:]), expected[5:])


def test_stored_zeros_are_not_relevant_and_duplicates_are_one_item():
    relevant = csr_array((np.array([1.0, 0.0, 1.0, 1.0]), np.array([2, 0, 2, 1]), np.array([0, 4])), shape=(1, 4))
    assert functional.recall([[2, 0, 3]], relevant) == 0.5
    np.testing.assert_array_equal(relevant.indices, [2, 0, 2, 1])


BAD = [
    ((changed(30, (3, 2)), RELEVANT), ValueError, r"^ranked_ids: expected ids in 0\.\.29, or -1 .* got 30 in row 3"),
    ((changed(-2, (7, 0)), RELEVANT), ValueError, r"^ranked_ids: expected ids in 0\.\.29, or -1 .* got -2 in row 7"),
    ((changed(2**62, (7, 0)), RELEVANT), ValueError, r"^ranked_ids: expected ids in 0\.\.29"),
    ((changed(RANKED[9, 7], (9, 6)), RELEVANT), ValueError, "^ranked_ids: row 9 has an id twice"),
    ((RANKED.astype(np.uint64) + np.uint64(2**63), RELEVANT), ValueError, r"^ranked_ids: expected ids in 0\.\.29"),
    ((RANKED.astype(float), RELEVANT), TypeError, "^ranked_ids: expected integer ids, got dtype float64; cast"),
    ((RANKED[0], RELEVANT), ValueError, r"^ranked_ids: expected shape \(n_rows, k\), both at least 1, got \(8,\)"),
    ((RANKED[:, :0], RELEVANT), ValueError, "^ranked_ids: expected shape"),
    ((RANKED[:0], RELEVANT[:0]), ValueError, "^ranked_ids: expected shape"),
    ((csr_array(RANKED), RELEVANT), TypeError, "^ranked_ids: expected a dense array"),
    ((RANKED, RELEVANT[:39]), ValueError, r"^relevant: expected shape \(40, n_items\), .* got \(39, 30\)"),
    ((RANKED, RELEVANT.toarray()), TypeError, "^relevant: expected a SciPy sparse matrix .* got ndarray; convert"),
    ((RANKED, csr_array(RELEVANT * np.nan)), ValueError, "^relevant: expected finite"),
]


@every_metric
def test_bad_input(name):
    for arguments, error, message in BAD:
        with pytest.raises(error, match=message):
            getattr(functional, name)(*arguments)
    for k, error, message in [
        (0, ValueError, "^k: expected at least 1, got 0"),
        (9, ValueError, "^k: expected at most 8, .* got 9; rank more items"),
        (2.0, TypeError, "^k: expected a whole number, got 2.0"),
        (True, TypeError, "^k: expected a whole number, got True"),
    ]:
        with pytest.raises(error, match=message):
            getattr(functional, name)(RANKED, RELEVANT, k=k)
