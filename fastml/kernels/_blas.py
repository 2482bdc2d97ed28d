"""SciPy's BLAS, callable from a kernel: it runs without the GIL, accumulates in place and allocates nothing.

Arrays are row-major with contiguous rows: a slice of rows or of columns is fine. BLAS is column-major, so
each product is asked for as its transpose with the factors swapped.
"""

import ctypes

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from scipy.linalg import cython_blas

from fastml.kernels._jit import twin

_LETTER = {types.float32: "s", types.float64: "d"}


def _address(name):
    """Address of a BLAS routine, from the capsule that SciPy publishes for Cython."""
    capsule = cython_blas.__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature = api.PyCapsule_GetName(capsule)
    if b"int *" not in signature or ctypes.sizeof(ctypes.c_int) != 4:  # pragma: no cover - no SciPy so far
        raise ImportError(f"SciPy's BLAS is not one with 32-bit integers: {signature.decode()}.")
    return api.PyCapsule_GetPointer(capsule, signature)


for _letter in "sd":  # a symbol, not a ctypes pointer: kernels that hold a pointer cannot be cached
    llvmlite.binding.add_symbol(f"fastml_{_letter}gemm", _address(f"{_letter}gemm"))


def _gemm(trans_a, trans_b):
    """An intrinsic for column-major ``C = alpha op(A) op(B) + beta C`` with the given transpositions."""

    @intrinsic
    def gemm(typing_context, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):  # pragma: no cover - compile time
        letter = _LETTER.get(c.dtype)
        if letter is None or a.dtype != c.dtype or b.dtype != c.dtype:
            raise TypingError("gemm takes three arrays of float32, or three of float64")

        def codegen(context, builder, signature, args):
            def passed(position, to):
                value = context.cast(builder, args[position], signature.args[position], to)
                slot = cgutils.alloca_once(builder, value.type)
                builder.store(value, slot)
                return slot

            def data(position):
                return context.make_array(signature.args[position])(context, builder, args[position]).data

            def char(letter):
                return cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(8), ord(letter)))

            pointers = [char(trans_a), char(trans_b)]
            pointers += [passed(i, types.int32) for i in (0, 1, 2)]
            pointers += [passed(3, c.dtype), data(4), passed(5, types.int32), data(6), passed(7, types.int32)]
            pointers += [passed(8, c.dtype), data(9), passed(10, types.int32)]
            function_type = ir.FunctionType(ir.VoidType(), [p.type for p in pointers])
            function = cgutils.get_or_insert_function(builder.module, function_type, f"fastml_{letter}gemm")
            builder.call(function, pointers)
            return context.get_dummy_value()

        size, real = types.int64, c.dtype
        return types.void(size, size, size, real, a, size, b, size, real, c, size), codegen

    return gemm


_gemm_nn, _gemm_tn, _gemm_nt = _gemm("N", "N"), _gemm("T", "N"), _gemm("N", "T")


def _row(x):
    """Distance between rows, in elements; there is compiled code only."""


@twin(_row)
def _compiled_row(x):  # pragma: no cover - compile time
    def row(x):
        return max(x.strides[0] // x.itemsize, x.shape[1], 1)

    return row


def matmul_nt(alpha, a, b, beta, c):
    """``c = alpha a @ b.T + beta c`` with ``a`` (m, k), ``b`` (n, k), ``c`` (m, n)."""
    c[...] = alpha * (a @ b.T) + (beta * c if beta else 0)


def matmul_nn(alpha, a, b, beta, c):
    """``c = alpha a @ b + beta c`` with ``a`` (m, k), ``b`` (k, n), ``c`` (m, n)."""
    c[...] = alpha * (a @ b) + (beta * c if beta else 0)


def matmul_tn(alpha, a, b, beta, c):
    """``c = alpha a.T @ b + beta c`` with ``a`` (k, m), ``b`` (k, n), ``c`` (m, n)."""
    c[...] = alpha * (a.T @ b) + (beta * c if beta else 0)


@twin(matmul_nt)
def _compiled_nt(alpha, a, b, beta, c):  # pragma: no cover - compile time
    def matmul(alpha, a, b, beta, c):
        _gemm_tn(c.shape[1], c.shape[0], a.shape[1], alpha, b, _row(b), a, _row(a), beta, c, _row(c))

    return matmul


@twin(matmul_nn)
def _compiled_nn(alpha, a, b, beta, c):  # pragma: no cover - compile time
    def matmul(alpha, a, b, beta, c):
        _gemm_nn(c.shape[1], c.shape[0], a.shape[1], alpha, b, _row(b), a, _row(a), beta, c, _row(c))

    return matmul


@twin(matmul_tn)
def _compiled_tn(alpha, a, b, beta, c):  # pragma: no cover - compile time
    def matmul(alpha, a, b, beta, c):
        _gemm_nt(c.shape[1], c.shape[0], a.shape[0], alpha, b, _row(b), a, _row(a), beta, c, _row(c))

    return matmul
