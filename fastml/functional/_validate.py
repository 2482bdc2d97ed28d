"""From what callers pass to what kernels take: one canonical array type, and errors that say what to do.

Kernels are compiled for aligned C-contiguous native float32 or float64 and int64 arrays that may be written to.
What differs is copied, except a read-only array: to Numba it is a type of its own that would be compiled again, and a
copy of a memory-mapped file would defeat its purpose. Kernels never write to their inputs, so they are given a view
of it that is writeable in name only.
"""

import math
from numbers import Integral, Real

import numpy as np

from fastml.kernels import checks
from fastml.runtime import run_blocks, thread_count

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_BLOCK = 2**18  # elements: some tens of microseconds


class _Writeable:
    """A read-only array that says it is not; NumPy's view of it keeps it, and so the memory, alive."""

    def __init__(self, array):
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def canonical(array, dtype):
    """``array`` as kernels take it, copied only if it has to be. For reading only: it may be the caller's memory."""
    array = np.asarray(array, dtype=dtype, order="C")
    if not array.flags.aligned:
        array = array.copy()
    return array if array.flags.writeable else np.asarray(_Writeable(array))


def _as_array(value, name):
    """Any dense array-like as a NumPy array of any type."""
    if hasattr(value, "toarray"):
        raise TypeError(f"{name}: expected a dense array, got a sparse one; convert it with {name}.toarray().")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one; fill it with {name}.filled(...).")
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: expected an array, got {type(value).__name__} that NumPy cannot convert.") from error


def _numeric(array, name):
    """Refuse what is not a real number: complex, objects, strings, dates."""
    if array.dtype.kind not in "fiub":
        cure = "take its real part or its modulus" if array.dtype.kind == "c" else "convert it to float64 first"
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}; {cure}.")


def check_floats(value, name, axes=("n_samples", "n_features")):
    """A non-empty float32 or float64 array with one dimension for each of ``axes``; other numbers become float64.

    NaN and infinity pass: see :func:`check_finite`.
    """
    array = _as_array(value, name)
    _numeric(array, name)
    if array.ndim != len(axes):
        raise ValueError(
            f"{name}: expected {len(axes)} dimensions ({', '.join(axes)}), got shape {array.shape}; "
            f"reshape a single row with {name}.reshape(1, -1)."
        )
    for size, what in zip(array.shape, ("rows", "columns"), strict=False):
        if size == 0:
            raise ValueError(f"{name} has 0 {what} (shape {array.shape}); pass at least one.")
    native = array.dtype.newbyteorder("=")
    return canonical(array, native if native in _FLOATS else np.float64)


def check_any_floats(value, name, n_dimensions=None):
    """As :func:`check_floats`, for any number of dimensions from one to ``n_dimensions`` (None: without a limit)."""
    array = _as_array(value, name)
    _numeric(array, name)
    if array.ndim == 0 or (n_dimensions is not None and array.ndim > n_dimensions):
        expected = "at least one dimension" if n_dimensions is None else f"1 to {n_dimensions} dimensions"
        cure = f"reshape it with {name}.reshape(n_samples, -1)" if array.ndim else f"pass a single number as [{name}]"
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}; {cure}.")
    if array.size == 0:
        raise ValueError(f"{name} is empty (shape {array.shape}); pass at least one number.")
    return check_floats(array, name, ("",) * array.ndim)


def check_like(value, name, other, other_name):
    """Numbers in the shape and dtype of ``other``, one for each of its entries; NaN and infinity pass."""
    given = _as_array(value, name)
    _numeric(given, name)
    if given.shape != other.shape:
        cure = f"drop or repeat entries so that {name} and {other_name} match"
        if given.size == other.size:
            cure = f"reshape it with {name}.reshape({other_name}.shape)"
        raise ValueError(f"{name}: expected shape {other.shape} as {other_name} has, got {given.shape}; {cure}.")
    with np.errstate(over="ignore"):  # what overflows float32 is told where infinities are
        return canonical(given, other.dtype)


def check_shares(array, name):
    """Raise where a canonical float array leaves 0..1 or is NaN."""
    bad = ~((array >= 0) & (array <= 1))
    if bad.any():
        where = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape))
        cure = "code the classes as 0 and 1" if np.isfinite(array[where]) else "drop or impute such entries"
        raise ValueError(f"{name}: expected numbers in 0..1, got {array[where]} at {where}; {cure}.")


def _scan(kernel, n, block, *args):
    """Run a kernel of ``checks``; asking joblib for the number of threads takes as long as a small call."""
    run_blocks(kernel, n, block, thread_count() if n > block else 1, *args)


def check_finite(array, name):
    """Raise where a canonical float array has a NaN or an infinity; one pass in parallel, no temporary."""
    flat, found = array.reshape(-1), np.zeros(1, np.int8)
    _scan(checks.non_finite, flat.size, _BLOCK, flat, found)
    if found[0]:
        at = next(i for i in range(0, flat.size, _BLOCK) if not np.isfinite(flat[i : i + _BLOCK]).all())
        at += int(np.argmin(np.isfinite(flat[at : at + _BLOCK])))
        where = tuple(int(i) for i in np.unravel_index(at, array.shape))
        raise ValueError(f"{name}: expected finite numbers, got {flat[at]} at {where}; drop or impute such entries.")


def check_labels(value, n_rows, n_classes, name="target"):
    """Class labels as int64 (n_rows,), all of them in 0..n_classes-1: a kernel would write out of bounds."""
    labels = _as_array(value, name)
    if labels.dtype.kind not in "iu":
        cure = f"cast them with {name}.astype(np.int64)" if labels.dtype.kind in "fb" else "encode them as 0..C-1"
        raise TypeError(f"{name}: expected integer class labels, got dtype {labels.dtype}; {cure}.")
    if labels.shape != (n_rows,):
        raise ValueError(f"{name}: expected shape ({n_rows},), one label per row, got {labels.shape}.")
    if labels.min() < 0 or labels.max() >= n_classes:
        row = int(np.argmax((labels < 0) | (labels >= n_classes)))
        raise ValueError(f"{name}: expected labels in 0..{n_classes - 1}, got {labels[row]} at row {row}.")
    return canonical(labels, np.int64)


def check_probabilities(value, shape, dtype, name="target"):
    """Rows of probabilities in the given shape and dtype.

    A row may miss the sum of one by 1e-6, by 1e-3 if it comes in single precision or less.
    """
    given = _as_array(value, name)
    _numeric(given, name)
    if given.shape != tuple(shape):
        raise ValueError(
            f"{name}: expected labels ({shape[0]},) or probabilities {tuple(shape)}, got shape {given.shape}."
        )
    array = canonical(given, dtype)
    low = array.dtype == np.float32 or (given.dtype.kind == "f" and given.dtype.itemsize < 8)
    tolerance, fault = array.dtype.type(1e-3 if low else 1e-6), np.empty(len(array), np.int8)
    block = max(1, _BLOCK // array.shape[1])
    _scan(checks.probability_faults, len(array), block, array, tolerance, fault)
    if fault.any():
        row = int(np.argmax(fault != 0))
        got = {
            checks.NOT_FINITE: "a NaN or an infinity",
            checks.NEGATIVE: f"{array[row].min()}",
            checks.NOT_ONE: f"a sum of {array[row].sum()}",
        }[int(fault[row])]
        raise ValueError(f"{name}: expected probabilities >= 0 with sum 1 in each row, got {got} in row {row}.")
    return array


def check_target(value, shape, dtype, name="target"):
    """Labels as int64 (n_rows,) or probabilities of the given dtype (n_rows, n_classes), told apart by dimensions."""
    target = _as_array(value, name)
    if target.ndim == 2:
        return check_probabilities(target, shape, dtype, name)
    return check_labels(target, *shape, name)


def check_sample_weight(value, n_rows, dtype, name="sample_weight"):
    """Weights (n_rows,) of the given dtype, finite, not negative and not all zero; ones for None."""
    if value is None:
        return np.ones(n_rows, dtype)
    weight = _as_array(value, name)
    _numeric(weight, name)
    if weight.shape != (n_rows,):
        raise ValueError(f"{name}: expected shape ({n_rows},), one weight per row, got {weight.shape}.")
    with np.errstate(over="ignore"):  # what overflows float32 is told below
        weight = canonical(weight, dtype)
    for row in np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))[:1]:
        raise ValueError(f"{name}: expected finite numbers >= 0, got {weight[row]} at row {row}.")
    if n_rows and not weight.any():
        raise ValueError(f"{name}: expected at least one weight above 0, got {n_rows} zeros.")
    return weight


def _real(value, name):
    """A Python float; infinity beyond its range."""
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a real number, got {value!r} of type {type(value).__name__}.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_temperature(value, dtype, name="temperature"):
    """One over a positive temperature, as a scalar of the given dtype."""
    number = _real(value, name)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}.")
    with np.errstate(over="ignore", under="ignore"):
        beta = np.dtype(dtype).type(1) / np.dtype(dtype).type(number) if number >= np.finfo(dtype).tiny else math.inf
    if not 0 < beta < math.inf:
        raise ValueError(f"{name}: {value!r} is out of the range of {np.dtype(dtype)}; scale the logits instead.")
    return beta


def check_positive(value, dtype, name):
    """A finite number above 0, as a scalar of the given dtype."""
    number = _real(value, name)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}.")
    with np.errstate(over="ignore", under="ignore"):
        scalar = np.dtype(dtype).type(number)
    if not 0 < scalar < math.inf:
        raise ValueError(f"{name}: {value!r} is out of the range of {np.dtype(dtype)}; pass float64 arrays.")
    return scalar


def check_fraction(value, dtype, name="label_smoothing"):
    """A number in [0, 1), as a scalar of the given dtype."""
    number = _real(value, name)
    if not (number >= 0 and np.dtype(dtype).type(number) < 1):  # in single precision 1 - 1e-9 is one
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}.")
    return np.dtype(dtype).type(number)


def _reach(array, name):
    """The largest size of a number; it is finite where all are."""
    reach = max(float(array.max()), -float(array.min()))
    if not math.isfinite(reach):
        check_finite(array, name)
    return reach


def check_products(a, b, names, factor=1.0):
    """Refuse rows whose inner products times ``factor`` might overflow, in any order of summation."""
    dtype, factor = a.dtype, max(float(factor), 1.0)
    bound = _reach(a, names[0]) * _reach(b, names[1]) * a.shape[1] * factor
    if not bound < float(np.finfo(dtype).max) / 2:
        cure = "scale them down" if dtype == np.float64 else "scale them down, or pass float64 arrays"
        raise ValueError(f"{', '.join(names)}: their products can reach {bound:.1e} and overflow {dtype}; {cure}.")


def check_losses(loss, names):
    """Raise where finite arguments had products that are not."""
    if not np.isfinite(loss).all():
        row = int(np.argmin(np.isfinite(loss)))
        raise ValueError(f"{names}: the logits of row {row} overflow {loss.dtype}; scale them down, or pass float64.")


def check_count(value, name):
    """A whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a whole number, got {value!r} of type {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}.")
    return int(value)
