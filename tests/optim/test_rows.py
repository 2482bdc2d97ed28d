"""Updates of some rows of a table: the same as updates of all where the rest stands still, and nothing but them."""

import copy

import numpy as np
import pytest
import rules

from fastml.optim import SGD, AdaGrad, Adam, AdamW, RMSProp
from fastml.optim import _rows as row_gradients

DTYPES = [np.float32, np.float64]
KINDS = [
    (SGD, {}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (AdaGrad, {"initial_accumulator_value": 0.1}),
    (RMSProp, {"momentum": 0.5}),
    (Adam, {}),
    (AdamW, {"weight_decay": 0.3}),
]
RULES = {SGD: rules.sgd, AdaGrad: rules.adagrad, RMSProp: rules.rmsprop, Adam: rules.adam, AdamW: rules.adamw}


def batches(n_rows, d, dtype, n_batches=6, m=20):
    """Rows, many of them more than once, and gradients."""
    rng = np.random.default_rng(1)
    return [(rng.integers(0, n_rows, m), rng.standard_normal((m, d)).astype(dtype)) for _ in range(n_batches)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_each_row_follows_the_rule_when_it_comes(kind, settings, max_grad_norm, dtype):
    table = np.random.default_rng(0).standard_normal((9, 5)).astype(dtype)
    truth, states = list(table.astype(np.float64)), [None] * 9
    optimizer = kind(0.1, max_grad_norm=max_grad_norm, **settings)
    state = optimizer.init([table])
    for step, (rows, grads) in enumerate(batches(9, 5, dtype, m=12), start=1):
        optimizer.update_rows(table, rows, grads, state)
        assert state.step == step
        touched = np.unique(rows)
        sums = rules.clip([grads[rows == row].astype(np.float64).sum(axis=0) for row in touched], max_grad_norm)
        for row, g in zip(touched, sums, strict=True):
            truth[row], states[row] = RULES[kind](truth[row], g, states[row], 0.1, step, **settings)
    assert table.dtype == dtype
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(table, truth, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_all_rows_at_once_are_an_update_of_the_whole(kind, settings):
    tables = [np.random.default_rng(0).standard_normal((7, 16)) for _ in range(2)]
    optimizer = kind(0.1, **settings)
    states = [optimizer.init([table]) for table in tables]
    for seed in range(5):
        grads = np.random.default_rng(seed).standard_normal((7, 16))
        order = np.random.default_rng(seed).permutation(7)
        optimizer.update([tables[0]], [grads], states[0])
        optimizer.update_rows(tables[1], order, grads[order], states[1])
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-14)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_other_rows_are_neither_read_nor_written(kind, settings):
    table = np.full((1000, 3), np.nan)
    optimizer = kind(0.1, **settings)
    state = optimizer.init([table])
    for moment in state.first[0], state.second[0]:
        moment[...] = np.nan
    rows = np.array([998, 3, 500, 3])
    mine = np.unique(rows)
    table[mine] = 1
    for moment in state.first[0], state.second[0]:
        if moment.size:
            moment.reshape(1000, 3)[mine] = 0.5
    optimizer.update_rows(table, rows, np.ones((4, 3)), state)
    others = np.delete(np.arange(1000), mine)
    assert np.isfinite(table[mine]).all()
    assert np.isnan(table[others]).all()
    for moment in state.first[0], state.second[0]:
        if moment.size:
            assert np.isfinite(moment.reshape(1000, 3)[mine]).all()
            assert np.isnan(moment.reshape(1000, 3)[others]).all()


def test_a_table_larger_than_memory_costs_its_rows(tmp_path):
    shape = 1 << 22, 256  # 4 GiB on paper: pages that nobody touches do not exist
    table = np.memmap(tmp_path / "table", np.float32, "w+", shape=shape)
    optimizer = SGD(1.0)
    state = optimizer.init([np.asarray(table)])
    optimizer.update_rows(table, [0, shape[0] - 1], np.ones((2, 256), np.float32), state)
    assert (tmp_path / "table").stat().st_blocks * 512 < 1 << 24
    assert table[0, 0] == table[-1, -1] == -1
    assert table[1000, 0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype, monkeypatch):
    monkeypatch.setattr(row_gradients, "_BLOCK", 64)
    monkeypatch.setattr(row_gradients, "_SMALL", 10)
    results = []
    for n_threads in 1, 2, 5:
        monkeypatch.setattr(row_gradients, "thread_count", lambda n=n_threads: n)
        table = np.random.default_rng(0).standard_normal((200, 8)).astype(dtype)
        optimizer = Adam(0.1, max_grad_norm=1.0)
        state = optimizer.init([table])
        for rows, grads in batches(200, 8, dtype, m=300):
            optimizer.update_rows(table, rows, grads, state)
        results.append((table, state.first[0], state.second[0]))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_duplicates_are_added_in_their_order():
    table, optimizer = np.zeros((3, 1), np.float32), SGD(1.0)
    grads = np.array([[1e8], [1], [-1e8], [1]], np.float32)
    optimizer.update_rows(table, [2, 2, 2, 2], grads, optimizer.init([table]))
    assert table[2, 0] == -(((np.float32(1e8) + np.float32(1)) - np.float32(1e8)) + np.float32(1))


def test_sparse_adam_of_pytorch():
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).standard_normal((50, 4))
    weight = torch.tensor(table, requires_grad=True)
    theirs, ours = torch.optim.SparseAdam([weight], lr=0.05, eps=1e-30), Adam(0.05, epsilon=1e-30)
    state = ours.init([table])
    for rows, grads in batches(50, 4, np.float64, n_batches=200):
        ours.update_rows(table, rows, grads, state)
        weight.grad = torch.sparse_coo_tensor(rows[None], grads, table.shape)
        theirs.step()
    np.testing.assert_allclose(table, weight.detach().numpy(), rtol=1e-10)


def test_no_rows_are_a_step_all_the_same():
    table, optimizer = np.ones((3, 2)), Adam()
    state = optimizer.init([table])
    optimizer.update_rows(table, [], np.zeros((0, 2)), state)
    assert state.step == 1
    np.testing.assert_array_equal(table, np.ones((3, 2)))


def test_sums_that_overflow_are_refused():
    table, optimizer = np.ones((3, 2), np.float32), SGD()
    grads = np.full((2, 2), 3e38, np.float32)
    with pytest.raises(ValueError, match="grads.* has NaN or infinite values"):
        optimizer.update_rows(table, [1, 1], grads, optimizer.init([table]))
    np.testing.assert_array_equal(table, np.ones((3, 2)))


OVERLAPPING = np.ones((4, 2))
BAD = [
    ({"rows": [0, 4]}, ValueError, r"rows must be in 0\.\.3, the rows of param, got 4 at 1"),
    ({"rows": [-1, 0]}, ValueError, r"rows must be in 0\.\.3, .* got -1 at 0"),
    ({"rows": np.array([2**63 + 1, 0], np.uint64)}, ValueError, r"rows must be in 0\.\.3"),
    ({"rows": [0.0, 1.0]}, TypeError, "rows must be integers, got dtype float64"),
    ({"rows": ["0", "1"]}, TypeError, "rows must be integers"),
    ({"rows": [True, False]}, TypeError, "rows must be integers, got dtype bool"),
    ({"rows": [[0], [1]]}, ValueError, r"rows must have 1 dimension \(n_updates,\), got shape \(2, 1\)"),
    ({"rows": [0, 1, 2]}, ValueError, r"grads must have a row for each of rows .* got \(2, 2\) and float64"),
    ({"grads": np.ones((2, 3))}, ValueError, "grads must have a row for each of rows"),
    ({"grads": np.ones((2, 2), np.float32)}, ValueError, "and float64, got .* and float32"),
    ({"grads": np.ones((2, 2), int)}, TypeError, "grads must be a float32 or float64 array, got dtype int64"),
    ({"grads": [[1.0, 1.0], [1.0, 1.0]]}, TypeError, "must be a float32 or float64 array, got list"),
    ({"grads": np.array([[1, 1], [1, np.nan]])}, ValueError, "has NaN or infinite values, the first is nan at"),
    ({"param": np.ones(4)}, ValueError, r"param must have 2 dimensions \(n_rows, n_components\), got shape \(4,\)"),
    ({"param": np.ones((4, 2), int)}, TypeError, "param must be a float32 or float64 array, got dtype int64"),
    ({"param": np.ones((2, 4)).T}, ValueError, "param must be C-contiguous"),
    ({"param": OVERLAPPING, "grads": OVERLAPPING[:2]}, ValueError, "shares memory"),
    ({"state": SGD().init([np.ones((5, 2))])}, ValueError, "state does not belong to these params"),
    ({"state": None}, TypeError, "state must be what init"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "message"), BAD)
def test_bad_arguments_change_nothing(changed, error, message):
    optimizer = Adam()
    arguments = {"param": np.ones((4, 2)), "rows": [0, 3], "grads": np.ones((2, 2)), **changed}
    arguments.setdefault("state", optimizer.init([np.ones((4, 2))]))
    before = copy.deepcopy(arguments["param"])
    with pytest.raises(error, match=message):
        optimizer.update_rows(**arguments)
    np.testing.assert_array_equal(arguments["param"], before)
    assert arguments["state"] is None or (arguments["state"].step == 0 and not arguments["state"].first[0].any())
