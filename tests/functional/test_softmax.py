"""The validated faces of the softmax kernels."""

import os
import subprocess
import sys

import naive
import numpy as np
import pytest

from fastml import functional
from fastml.functional import _softmax

SHAPES = [(1, 1), (3, 1), (5, 2), (255, 33), (200, 7)]
DTYPES = [np.float32, np.float64]


def make(shape, dtype=np.float64, scale=1.0):
    rng = np.random.default_rng(0)
    t = rng.random(shape)
    z = (scale * rng.standard_normal(shape)).astype(dtype)
    return z, rng.integers(0, shape[1], shape[0]), t / t.sum(axis=1, keepdims=True), rng.random(shape[0])


def close(got, expected, dtype):
    assert got.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_functions_are_their_definitions(shape, dtype):
    z, *_ = make(shape, dtype)
    close(functional.softmax(z), naive.softmax(z), dtype)
    close(functional.softmax(z, temperature=0.5), naive.softmax(z, 0.5), dtype)
    close(functional.log_softmax(z, temperature=2), naive.log_softmax(z, 2), dtype)
    close(functional.log_sum_exp(z), naive.log_sum_exp(z), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_is_its_definition(shape, smoothing, dtype):
    z, y, t, w = make(shape, dtype)
    for target in y, t:
        for options in {}, {"sample_weight": w, "temperature": 3.0}:
            options = {**options, "label_smoothing": smoothing}
            loss = functional.softmax_cross_entropy(z, target, **options)
            both = functional.softmax_cross_entropy_grad(z, target, **options)
            close(loss, naive.softmax_cross_entropy(z, target, **options), dtype)
            close(both.loss, loss, dtype)
            close(both.logits, naive.softmax_cross_entropy_grad(z, target, **options), dtype)


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 40)])
def test_gradient_is_the_gradient_of_the_loss(shape, kind):
    z, y, t, w = make(shape)
    target = y if kind == "labels" else t
    for options in {"sample_weight": w}, {"label_smoothing": 0.1, "temperature": 0.7}:
        expected = naive.finite_differences(
            lambda z, options=options: functional.softmax_cross_entropy(z, target, **options).sum(), z
        )
        got = functional.softmax_cross_entropy_grad(z, target, **options).logits
        np.testing.assert_allclose(got, expected, atol=1e-8)


class Subclass(np.ndarray):
    pass


def variants(z):
    """The same numbers in every shape of memory."""
    read_only = z.copy()
    read_only.setflags(write=False)
    strided = np.zeros((2 * z.shape[0], 3 * z.shape[1]), z.dtype)[::2, ::3]
    strided[...] = z
    unaligned = np.frombuffer(b"x" + z.tobytes(), np.uint8)[1:].view(z.dtype).reshape(z.shape)
    swapped = z.astype(z.dtype.newbyteorder())
    return {
        "read-only": read_only,
        "fortran": np.asfortranarray(z),
        "strided": strided,
        "reversed": z[::-1, ::-1].copy()[::-1, ::-1],
        "unaligned": unaligned,
        "non-native": swapped,
        "subclass": z.view(Subclass),
    }


@pytest.mark.parametrize("shape", [(50, 5), (50, 40)])
def test_memory_layout_does_not_matter(shape):
    z, y, t, w = make(shape, np.float32)
    t = t.astype(np.float32)
    loss, grad = functional.softmax_cross_entropy_grad(z, y, sample_weight=w)
    soft = functional.softmax_cross_entropy_grad(z, t)
    y_read_only = y.astype(np.uint8)
    y_read_only.setflags(write=False)
    for (name, other), other_t in zip(variants(z).items(), variants(t).values(), strict=True):
        before = other.copy()
        loss_2, grad_2 = functional.softmax_cross_entropy_grad(other, y_read_only, sample_weight=w)
        np.testing.assert_array_equal(loss_2, loss, err_msg=name)
        np.testing.assert_array_equal(grad_2, grad, err_msg=name)
        np.testing.assert_array_equal(functional.softmax_cross_entropy_grad(other, other_t).logits, soft.logits)
        np.testing.assert_array_equal(other, before)
        assert type(grad_2) is np.ndarray


def test_one_specialisation_for_every_layout():
    z, y, *_ = make((50, 40), np.float32)
    kernel = _softmax.kernels.cross_entropy_grad
    functional.softmax_cross_entropy_grad(z, y)
    compiled = len(getattr(kernel, "signatures", ()))
    for other in variants(z).values():
        functional.softmax_cross_entropy_grad(other, y.astype(np.int32))
    assert len(getattr(kernel, "signatures", ())) == compiled


def test_memory_map_is_read_in_place(tmp_path):
    z, y, *_ = make((50, 40), np.float32)
    z.tofile(tmp_path / "logits")
    mapped = np.memmap(tmp_path / "logits", np.float32, "r", shape=z.shape)
    np.testing.assert_array_equal(
        functional.softmax_cross_entropy_grad(mapped, y).logits, functional.softmax_cross_entropy_grad(z, y).logits
    )


@pytest.mark.parametrize("given", [np.float16, np.longdouble, np.int8, np.uint64, bool, list])
def test_other_numbers_become_float64(given):
    z = [[0, 1], [1, 1], [0, 0]]
    got = functional.softmax(z if given is list else np.array(z, given))
    close(got, naive.softmax(np.array(z)), np.float64)


def test_masked_classes():
    z = np.array([[0, -np.inf, 1], [5, -np.inf, -np.inf]], np.float32)
    for options in {}, {"label_smoothing": 0.3}:
        loss, grad = functional.softmax_cross_entropy_grad(z, [2, 0], **options)
        close(loss, naive.softmax_cross_entropy(z, [2, 0], **options), np.float32)
        assert (grad[np.isneginf(z)] == 0).all()
    assert (functional.softmax(z)[np.isneginf(z)] == 0).all()
    assert np.isneginf(functional.log_softmax(z)[np.isneginf(z)]).all()


def test_overflow_of_finite_logits_is_no_error():
    z = np.array([[3e38, -3e38]], np.float32)
    loss, grad = functional.softmax_cross_entropy_grad(z, [1])
    assert loss[0] == np.inf
    np.testing.assert_array_equal(grad, [[1, -1]])


@pytest.mark.parametrize("n_classes", [5, 40])
def test_one_thread_equals_many_bit_for_bit(n_classes, monkeypatch):
    monkeypatch.setattr(_softmax, "_NARROW_BLOCK", 700)
    monkeypatch.setattr(_softmax, "_LEAST_BLOCK", 1500)
    z, y, t, w = make((1000, n_classes), np.float32)
    for target, smoothing in (y, 0), (y, 0.1), (t, 0.1):
        results = []
        for n_threads in 1, 2, 16:
            monkeypatch.setattr(_softmax, "thread_count", lambda n=n_threads: n)
            call = functional.softmax_cross_entropy_grad
            results.append(call(z, target, sample_weight=w, label_smoothing=smoothing))
        for loss, grad in results[1:]:
            np.testing.assert_array_equal(loss, results[0].loss)
            np.testing.assert_array_equal(grad, results[0].logits)


def test_import_compiles_nothing():
    code = (
        "import fastml.functional, fastml.functional._softmax as s;"
        "k = s.kernels; assert not any(getattr(f, 'signatures', None) for f in vars(k).values())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
