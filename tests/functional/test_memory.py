"""Large outputs come from recycled memory; nobody may notice except by the clock."""

import gc
import os
import pickle

import numpy as np
import pytest

from fastml.functional import _memory

pytestmark = pytest.mark.skipif(not _memory._RECYCLES, reason="the system knows no MADV_FREE")
SHAPE = (300, 7)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(_memory, "_LARGE", 1)
    _memory._spare.clear()
    yield
    _memory._spare.clear()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_an_ordinary_array(dtype):
    x = _memory.empty(SHAPE, dtype)
    assert type(x) is np.ndarray
    assert (x.shape, x.dtype) == (SHAPE, dtype)
    assert x.flags.c_contiguous
    assert x.flags.writeable
    assert x.flags.aligned
    x[...] = 3
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x)), x)


def test_memory_is_used_again_but_never_twice():
    x = _memory.empty(SHAPE, np.float32)
    y = _memory.empty(SHAPE, np.float32)
    assert address(x) != address(y)
    was = address(x)
    del x
    assert address(_memory.empty(SHAPE, np.float32)) == was
    assert address(_memory.empty((4, 4), np.float32)) != was


def test_a_view_keeps_the_memory():
    x = _memory.empty(SHAPE, np.float32)
    x[...] = 1
    view = x[5:7].T
    del x
    gc.collect()
    other = _memory.empty(SHAPE, np.float32)
    other[...] = 2
    assert (view == 1).all()


def test_two_blocks_wait_at_most():
    arrays = [_memory.empty(SHAPE, np.float32) for _ in range(5)]
    del arrays
    assert len(_memory._spare) == 2


def test_losses_and_their_gradient_are_both_used_again():
    """Of two sizes that come in turns, each finds its own."""
    for _ in range(2):
        was = [address(_memory.empty(shape, np.float32)) for shape in (SHAPE, SHAPE[:1])]
        pair = [_memory.empty(shape, np.float32) for shape in (SHAPE, SHAPE[:1])]
        assert [address(array) for array in pair] == was
        del pair


def test_small_arrays_are_left_to_numpy(monkeypatch):
    monkeypatch.setattr(_memory, "_LARGE", 2**25)
    assert _memory.empty(SHAPE, np.float32).base is None


@pytest.mark.parametrize("n_rows", [2**30, 2**46])
def test_too_large_is_a_memory_error(n_rows):
    with pytest.raises(MemoryError, match="Unable to allocate"):
        _memory.empty((n_rows, 2**14), np.float64)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parent_and_child_share_nothing():
    x = _memory.empty(SHAPE, np.float32)
    x[...] = 1
    child = os.fork()
    if child == 0:
        x[...] = 2
        del x
        _memory.empty(SHAPE, np.float32)[...] = 3
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (x == 1).all()
