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

from fastml.kernels._jit import part, point, twin

_LETTER = {types.float32: "s", types.float64: "d"}
# OpenBLAS has kernels for small products that pack nothing, for processors of this kind: on these, large products are
# made of small ones (docs/design.md has the measurements).
_IS_TILED = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
_SMALL = 1_000_000  # multiplications of a product that OpenBLAS takes for small


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
    """An intrinsic for column-major ``C = alpha op(A) op(B) + beta C`` with the given transpositions.

    Matrices are given by their addresses, and their type by that of ``alpha``: one loop over tiles serves all layouts.
    """

    @intrinsic
    def gemm(typing_context, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):  # pragma: no cover - compile time
        letter = _LETTER[alpha]

        def codegen(context, builder, signature, args):
            def passed(position, to):
                value = context.cast(builder, args[position], signature.args[position], to)
                slot = cgutils.alloca_once(builder, value.type)
                builder.store(value, slot)
                return slot

            def data(position):
                return builder.inttoptr(args[position], context.get_value_type(alpha).as_pointer())

            def char(letter):
                return cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(8), ord(letter)))

            pointers = [char(trans_a), char(trans_b)]
            pointers += [passed(i, types.int32) for i in (0, 1, 2)]
            pointers += [passed(3, alpha), data(4), passed(5, types.int32), data(6), passed(7, types.int32)]
            pointers += [passed(8, alpha), data(9), passed(10, types.int32)]
            function_type = ir.FunctionType(ir.VoidType(), [p.type for p in pointers])
            function = cgutils.get_or_insert_function(builder.module, function_type, f"fastml_{letter}gemm")
            builder.call(function, pointers)
            return context.get_dummy_value()

        size = types.int64
        return types.void(size, size, size, alpha, size, size, size, size, alpha, size, size), codegen

    return gemm


_gemm_nn, _gemm_tn, _gemm_nt = _gemm("N", "N"), _gemm("T", "N"), _gemm("N", "T")


@intrinsic
def _address_of(typing_context, array):  # pragma: no cover - compile time
    """Address of the first element."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, ir.IntType(64))

    return types.int64(array), codegen


def _row(x):
    """Distance between rows, in elements; there is compiled code only."""


@twin(_row)
def _compiled_row(x):  # pragma: no cover - compile time
    def row(x):
        return max(x.strides[0] // x.itemsize, x.shape[1], 1)

    return row


@point
def _cut(size, most, step):
    """Length of parts of ``size`` that are about equal: a multiple of ``step``, about ``most`` at most."""
    n_parts = max((size + most - 1) // most, 1)
    return max((size + n_parts * step - 1) // (n_parts * step), 1) * step


@part
def _tiled_nn(m, n, k, alpha, a, a_row, b, b_row, beta, c, c_row, size):  # pragma: no cover - compiled only
    if not _IS_TILED or m * n * k <= _SMALL:
        _gemm_nn(n, m, k, alpha, b, b_row, a, a_row, beta, c, c_row)
        return
    depth, width = _cut(k, 192, 4), _cut(n, 128, 16)
    for p in range(0, k, depth):
        for j in range(0, n, width):
            for i in range(0, m, 32):
                _gemm_nn(
                    min(width, n - j), min(32, m - i), min(depth, k - p), alpha, b + (p * b_row + j) * size, b_row,
                    a + (i * a_row + p) * size, a_row, beta, c + (i * c_row + j) * size, c_row,
                )  # fmt: skip
        beta = type(alpha)(1)


@part
def _tiled_tn(m, n, k, alpha, a, a_row, b, b_row, beta, c, c_row, size):  # pragma: no cover - compiled only
    if not _IS_TILED or m * n * k <= _SMALL:
        _gemm_nt(n, m, k, alpha, b, b_row, a, a_row, beta, c, c_row)
        return
    depth, width, height = _cut(k, 64, 4), _cut(n, 128, 16), _cut(m, 96, 16)
    for i in range(0, m, height):
        for j in range(0, n, width):
            keep = beta
            for p in range(0, k, depth):
                _gemm_nt(
                    min(width, n - j), min(height, m - i), min(depth, k - p), alpha, b + (p * b_row + j) * size, b_row,
                    a + (p * a_row + i) * size, a_row, keep, c + (i * c_row + j) * size, c_row,
                )  # fmt: skip
                keep = type(alpha)(1)


@part
def _tiled_nt(m, n, k, alpha, a, a_row, b, b_row, beta, c, c_row, size):  # pragma: no cover - compiled only
    if not _IS_TILED or m * n * k <= _SMALL or k < 192:
        _gemm_tn(n, m, k, alpha, b, b_row, a, a_row, beta, c, c_row)
        return
    depth, width = _cut(k, 512, 4), 64 if k <= 256 else 48
    for p in range(0, k, depth):
        for i in range(0, m, 16):
            for j in range(0, n, width):
                _gemm_tn(
                    min(width, n - j), min(16, m - i), min(depth, k - p), alpha, b + (j * b_row + p) * size, b_row,
                    a + (i * a_row + p) * size, a_row, beta, c + (i * c_row + j) * size, c_row,
                )  # fmt: skip
        beta = type(alpha)(1)


def matmul_nt(alpha, a, b, beta, c):
    """``c = alpha a @ b.T + beta c`` with ``a`` (m, k), ``b`` (n, k), ``c`` (m, n)."""
    c[...] = alpha * (a @ b.T) + (beta * c if beta else 0)


def matmul_nn(alpha, a, b, beta, c):
    """``c = alpha a @ b + beta c`` with ``a`` (m, k), ``b`` (k, n), ``c`` (m, n)."""
    c[...] = alpha * (a @ b) + (beta * c if beta else 0)


def matmul_tn(alpha, a, b, beta, c):
    """``c = alpha a.T @ b + beta c`` with ``a`` (k, m), ``b`` (k, n), ``c`` (m, n)."""
    c[...] = alpha * (a.T @ b) + (beta * c if beta else 0)


def _compile(matmul, tiled, depth_axis):
    """Register what ``matmul`` is in kernels; ``depth_axis`` is that of ``a`` which is summed over."""

    @twin(matmul)
    def compiled(alpha, a, b, beta, c):  # pragma: no cover - compile time
        if c.dtype not in _LETTER or a.dtype != c.dtype or b.dtype != c.dtype:  # addresses would not tell
            raise TypingError("a matrix product takes three arrays of float32, or three of float64")

        def product(alpha, a, b, beta, c):
            real, (m, n), k = c.dtype.type, c.shape, a.shape[depth_axis]
            factors = _address_of(a), _row(a), _address_of(b), _row(b)
            tiled(m, n, k, real(alpha), *factors, real(beta), _address_of(c), _row(c), c.itemsize)

        return product


_compile(matmul_nn, _tiled_nn, 1)
_compile(matmul_tn, _tiled_tn, 0)
_compile(matmul_nt, _tiled_nt, 1)
