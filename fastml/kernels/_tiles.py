"""Products of few rows that stay in vector registers: what BLAS is too large for.

LLVM keeps a tile of sums in registers only where it is told to, so these are written in its language: the widest
vectors of the machine, no checks for overlap, no remainders. Widths are multiples of ``LANES``: callers pad rows with
zeros. Beside each function stands its definition in NumPy.
"""

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, typing
from numba.extending import intrinsic

from fastml.kernels._jit import twin

LANES = 16  # columns come in multiples of it
STRIP = 4  # rows of a tile
EIGHT = 8  # gathered rows at a time

_IS_WIDE = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
_BYTES = 64 if _IS_WIDE else 32  # of a vector
_VECTORS = 4 if _IS_WIDE else 2  # of a tile's width: 16 of 32 or 8 of 16 registers hold its sums


class _Writer:  # pragma: no cover - compile time
    """Writes the code of one call of an intrinsic."""

    def __init__(self, context, builder, signature, args):
        self.context, self.builder, self.signature, self.args = context, builder, signature, args
        real = next(a.dtype for a in reversed(signature.args) if isinstance(a, types.Array))
        self.size, self.lanes = real.bitwidth // 8, _BYTES * 8 // real.bitwidth
        self.vector = ir.VectorType(context.get_value_type(real), self.lanes)
        name = f"llvm.fmuladd.v{self.lanes}f{real.bitwidth}"
        function_type = ir.FunctionType(self.vector, [self.vector] * 3)
        self.muladd = cgutils.get_or_insert_function(builder.module, function_type, name)

    def array(self, position):
        """Address of an array's first element, its shape, and the distance of its rows in bytes."""
        array = self.context.make_array(self.signature.args[position])(self.context, self.builder, self.args[position])
        shape, strides = (cgutils.unpack_tuple(self.builder, x) for x in (array.shape, array.strides))
        return array.data, shape, strides[0]

    def index(self, value):
        return value if isinstance(value, ir.Value) else ir.Constant(ir.IntType(64), value)

    def row(self, matrix, index):
        """Address of a row."""
        data, _, stride = matrix
        start = self.builder.bitcast(data, ir.IntType(8).as_pointer())
        return self.builder.bitcast(self.builder.gep(start, [self.builder.mul(self.index(index), stride)]), data.type)

    def at(self, address, *offsets):
        """Address some elements further."""
        for offset in offsets:
            address = self.builder.gep(address, [self.index(offset)])
        return address

    def load(self, address, lanes=None):
        kind = ir.VectorType(self.vector.element, lanes or self.lanes)
        vector = self.builder.load(self.builder.bitcast(address, kind.as_pointer()))
        vector.align = self.size
        return vector

    def store(self, vector, address):
        self.builder.store(vector, self.builder.bitcast(address, vector.type.as_pointer())).align = self.size

    def zero(self):
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def lane(self, index):
        return ir.Constant(ir.IntType(32), index)

    def spread(self, value, lanes=None):
        """A vector full of one number."""
        nothing = ir.Constant(ir.VectorType(self.vector.element, lanes or self.lanes), ir.Undefined)
        one = self.builder.insert_element(nothing, value, self.lane(0))
        return self.shuffled(one, nothing, [0] * (lanes or self.lanes))

    def shuffled(self, a, b, lanes):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def slot(self, value):
        """A variable that begins with this value; LLVM keeps it in a register."""
        slot = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(value, slot)
        return slot

    def add_product(self, slot, a, b):
        """slot += a * b."""
        self.builder.store(self.builder.call(self.muladd, [a, b, self.builder.load(slot)]), slot)

    def columns(self, start, stop):
        """Loop over columns, a vector at a time."""
        return cgutils.for_range_slice(self.builder, start, stop, self.index(self.lanes), ir.IntType(64), inc=True)

    def sums(self, vectors):
        """The sum of each of 4 or 8 vectors, side by side: halves are added crosswise until one vector is left."""
        half = 1
        while len(vectors) > 1:
            blocks = range(0, self.lanes, 2 * half)
            low = [base + k + side for base in blocks for side in (0, self.lanes) for k in range(half)]
            high = [lane + half for lane in low]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self.builder.fadd(self.shuffled(a, b, low), self.shuffled(a, b, high)) for a, b in pairs]
            half *= 2
        (result,), lanes = vectors, self.lanes
        while lanes > half:
            lanes //= 2
            low = self.shuffled(result, result, list(range(lanes)))
            result = self.builder.fadd(low, self.shuffled(result, result, list(range(lanes, 2 * lanes))))
        return result


def _tile(write, n, a, c, row, column, n_vectors, sign):  # pragma: no cover - compile time
    """STRIP rows and some vectors of columns of ``c +- a.T @ a``, or with ``sign`` 0 of ``a.T @ a``."""
    builder = write.builder
    corners = [write.at(write.row(c, builder.add(row, write.index(r))), column) for r in range(STRIP)]
    places = [[write.at(corner, v * write.lanes) for v in range(n_vectors)] for corner in corners]
    slots = [[write.slot(write.load(place) if sign else write.zero()) for place in line] for line in places]
    with cgutils.for_range(builder, n) as loop:
        line = write.row(a, loop.index)
        right = [write.load(write.at(line, column, v * write.lanes)) for v in range(n_vectors)]
        for r in range(STRIP):
            left = builder.load(write.at(line, row, r))
            left = write.spread(builder.fneg(left) if sign < 0 else left)
            for v in range(n_vectors):
                write.add_product(slots[r][v], left, right[v])
    for r in range(STRIP):
        for v in range(n_vectors):
            write.store(builder.load(slots[r][v]), places[r][v])


def _outer(sign):
    """An intrinsic for a strip of ``c +- a.T @ a``, or with ``sign`` 0 of ``a.T @ a``."""

    @intrinsic
    def outer(typing_context, n, a, row, c):  # pragma: no cover - compile time
        def codegen(context, builder, signature, args):
            write = _Writer(context, builder, signature, args)
            a, c, (n, _, row, _) = write.array(1), write.array(3), args
            first, chunk = builder.and_(row, write.index(-write.lanes)), write.index(_VECTORS * write.lanes)
            n_chunks = builder.udiv(builder.sub(c[1][1], first), chunk)
            with cgutils.for_range(builder, n_chunks) as loop:
                column = builder.add(first, builder.mul(loop.index, chunk))
                _tile(write, n, a, c, row, column, _VECTORS, sign)
            column = builder.add(first, builder.mul(n_chunks, chunk))
            n_left = builder.sub(c[1][1], column)
            for n_vectors in range(1, _VECTORS):
                with builder.if_then(builder.icmp_signed("==", n_left, write.index(n_vectors * write.lanes))):
                    _tile(write, n, a, c, row, column, n_vectors, sign)
            return context.get_dummy_value()

        return types.void(types.int64, a, types.int64, c), codegen

    return outer


_put_outer, _add_outer, _subtract_outer = _outer(0), _outer(1), _outer(-1)


@intrinsic
def _solve_strip(typing_context, factor, c):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        factor, c = write.array(0), write.array(1)
        known = {
            (r, k): write.spread(builder.load(write.at(write.row(factor, r), k)))
            for r in range(STRIP)
            for k in range(r, STRIP)
        }
        rows = [write.row(c, r) for r in range(STRIP)]
        with write.columns(write.index(0), c[1][1]) as (column, _):
            solved = []
            for r, row in enumerate(rows):
                slot = write.slot(write.load(write.at(row, column)))
                for k, earlier in enumerate(solved):
                    write.add_product(slot, builder.fneg(known[k, r]), earlier)
                solved.append(builder.fmul(builder.load(slot), known[r, r]))
            for row, vector in zip(rows, solved, strict=True):
                write.store(vector, write.at(row, column))
        return context.get_dummy_value()

    return types.void(factor, c), codegen


def _dots(write, rows, vector):  # pragma: no cover - compile time
    """Scalar products of 4 or 8 rows with a vector: as vectors of at most as many numbers, and their places."""
    builder = write.builder
    data, shape, _ = vector
    slots = [write.slot(write.zero()) for _ in rows]
    with write.columns(write.index(0), shape[0]) as (column, _):
        part = write.load(write.at(data, column))
        for slot, row in zip(slots, rows, strict=True):
            write.add_product(slot, write.load(write.at(row, column)), part)
    parts, at_once = [builder.load(slot) for slot in slots], min(len(rows), write.lanes)
    return [(first, write.sums(parts[first : first + at_once])) for first in range(0, len(rows), at_once)]


def _add(write, rows, factors, vector):  # pragma: no cover - compile time
    """Adds some rows times their factors to a vector: in two sums, so that half the products wait for each other."""
    builder = write.builder
    data, shape, _ = vector
    with write.columns(write.index(0), shape[0]) as (column, _):
        place = write.at(data, column)
        parts = [write.load(write.at(row, column)) for row in rows]
        even, odd = write.slot(write.load(place)), write.slot(builder.fmul(parts[1], factors[1]))
        for r, part in enumerate(parts):
            if r != 1:
                write.add_product(odd if r % 2 else even, part, factors[r])
        write.store(builder.fadd(builder.load(even), builder.load(odd)), place)


def _gathered(write, indices, matrix, start):  # pragma: no cover - compile time
    """Addresses of the eight rows with the indices from ``start`` on."""
    matrix, indices, builder = write.array(matrix), write.array(indices)[0], write.builder
    return [write.row(matrix, builder.load(write.at(indices, start, r))) for r in range(EIGHT)]


@intrinsic
def _dot_strip(typing_context, rows, vector, out):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        out = write.array(2)[0]
        for first, dots in _dots(write, [write.row(write.array(0), r) for r in range(STRIP)], write.array(1)):
            write.store(dots, write.at(out, first))
        return context.get_dummy_value()

    return types.void(rows, vector, out), codegen


@intrinsic
def _add_strip(typing_context, rows, factors, vector):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        factors = [write.spread(builder.load(write.at(write.array(1)[0], r))) for r in range(STRIP)]
        _add(write, [write.row(write.array(0), r) for r in range(STRIP)], factors, write.array(2))
        return context.get_dummy_value()

    return types.void(rows, factors, vector), codegen


@intrinsic
def _dot_eight(typing_context, start, indices, matrix, vector, out):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        for first, dots in _dots(write, _gathered(write, 1, 2, args[0]), write.array(3)):
            write.store(dots, write.at(write.array(4)[0], first))
        return context.get_dummy_value()

    return types.void(types.int64, indices, matrix, vector, out), codegen


@intrinsic
def _add_residuals(typing_context, start, entries, kept, matrix, vector, out):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        parts = [builder.extract_value(args[1], k) for k in range(3)]
        types_, values = [*entries, matrix, vector, out], [*parts, *args[3:]]
        write = _Writer(context, builder, typing.signature(types.void, *types_), values)
        rows, factors = _gathered(write, 0, 3, args[0]), []
        for first, dots in _dots(write, rows, write.array(4)):
            count = dots.type.count
            c, t = (write.load(write.at(write.array(k)[0], args[0], first), count) for k in (1, 2))
            kept_share = context.cast(builder, args[2], kept, matrix.dtype)
            errors = builder.fsub(builder.fmul(t, write.spread(kept_share, count)), dots)
            values = builder.fmul(c, errors)
            factors += [write.spread(builder.extract_element(values, write.lane(r))) for r in range(count)]
        _add(write, rows, factors, write.array(5))
        return context.get_dummy_value()

    return types.void(types.int64, entries, kept, matrix, vector, out), codegen


@intrinsic
def _put_scaled(typing_context, row, factor, out):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        write = _Writer(context, builder, signature, args)
        factor = write.spread(context.cast(builder, args[1], signature.args[1], signature.args[2].dtype))
        (source, _, _), (place, shape, _) = write.array(0), write.array(2)
        with write.columns(write.index(0), shape[0]) as (column, _):
            write.store(builder.fmul(factor, write.load(write.at(source, column))), write.at(place, column))
        return context.get_dummy_value()

    return types.void(row, factor, out), codegen


def put_outer(n, a, row, c):
    """``c[row : row + STRIP] = a[:n, row : row + STRIP].T @ a[:n]``, from the diagonal on or some columns earlier."""
    c[row : row + STRIP, row:] = a[:n, row : row + STRIP].T @ a[:n, row:]


def add_outer(n, a, row, c):
    """``c[row : row + STRIP] += a[:n, row : row + STRIP].T @ a[:n]``, from the diagonal on or some columns earlier."""
    c[row : row + STRIP, row:] += a[:n, row : row + STRIP].T @ a[:n, row:]


def subtract_outer(n, a, row, c):
    """``c[row : row + STRIP] -= a[:n, row : row + STRIP].T @ a[:n]``, from the diagonal on or some columns earlier."""
    c[row : row + STRIP, row:] -= a[:n, row : row + STRIP].T @ a[:n, row:]


def solve_strip(factor, c):
    """``c = inv(U.T) @ c`` for ``c`` (STRIP, n) and an upper triangle U with the reciprocals of its diagonal."""
    for r in range(STRIP):
        c[r] = (c[r] - factor[:r, r] @ c[:r]) * factor[r, r]


def dot_strip(rows, vector, out):
    """``out = rows @ vector`` for ``rows`` (STRIP, n)."""
    out[:STRIP] = rows @ vector


def add_strip(rows, factors, vector):
    """``vector += factors @ rows`` for ``rows`` (STRIP, n)."""
    vector += factors[:STRIP] @ rows


def put_scaled(row, factor, out):
    """``out = factor * row``."""
    out[:] = factor * row


def dot_eight(start, indices, matrix, vector, out):
    """``out = matrix[indices[start : start + EIGHT]] @ vector``."""
    out[:EIGHT] = matrix[indices[start : start + EIGHT]] @ vector


def add_residuals(start, entries, kept, matrix, vector, out):
    """``out += (weight * (kept * target - rows @ vector)) @ rows`` for the eight entries from ``start`` on.

    ``entries`` are (indices, weight, target), and their rows ``matrix[indices]``.
    """
    indices, weight, target = (x[start : start + EIGHT] for x in entries)
    rows = matrix[indices]
    out += (weight * (kept * target - rows @ vector)) @ rows


@twin(put_outer)
def _compiled_put_outer(n, a, row, c):  # pragma: no cover - compile time
    return lambda n, a, row, c: _put_outer(n, a, row, c)


@twin(add_outer)
def _compiled_add_outer(n, a, row, c):  # pragma: no cover - compile time
    return lambda n, a, row, c: _add_outer(n, a, row, c)


@twin(subtract_outer)
def _compiled_subtract_outer(n, a, row, c):  # pragma: no cover - compile time
    return lambda n, a, row, c: _subtract_outer(n, a, row, c)


@twin(solve_strip)
def _compiled_solve_strip(factor, c):  # pragma: no cover - compile time
    return lambda factor, c: _solve_strip(factor, c)


@twin(dot_strip)
def _compiled_dot_strip(rows, vector, out):  # pragma: no cover - compile time
    return lambda rows, vector, out: _dot_strip(rows, vector, out)


@twin(add_strip)
def _compiled_add_strip(rows, factors, vector):  # pragma: no cover - compile time
    return lambda rows, factors, vector: _add_strip(rows, factors, vector)


@twin(put_scaled)
def _compiled_put_scaled(row, factor, out):  # pragma: no cover - compile time
    return lambda row, factor, out: _put_scaled(row, factor, out)


@twin(dot_eight)
def _compiled_dot_eight(start, indices, matrix, vector, out):  # pragma: no cover - compile time
    return lambda start, indices, matrix, vector, out: _dot_eight(start, indices, matrix, vector, out)


@twin(add_residuals)
def _compiled_add_residuals(start, entries, kept, matrix, vector, out):  # pragma: no cover - compile time
    return lambda start, entries, kept, matrix, vector, out: _add_residuals(start, entries, kept, matrix, vector, out)
