"""Arrays that updates may be done on: their checks, and memory laid out for them."""

import numpy as np

from fastml.functional._validate import canonical

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_LINE, _PAGE = 64, 4096  # bytes
STRIDE = 1024  # streams at equal places of their pages slow each other down


def zeros(n, dtype, place):
    """``n`` zeros whose address is ``place`` modulo a page (modulo a cache line, if there are few)."""
    unit = _PAGE if n * dtype.itemsize > 4 * _PAGE else _LINE
    memory = np.zeros(n * dtype.itemsize + unit, np.uint8)
    offset = (place - memory.ctypes.data) % unit
    return memory[offset : offset + n * dtype.itemsize].view(dtype)


def checked(name, arrays, writable=False):
    """A list of arrays that a kernel may take, or an error that names the culprit."""
    if not isinstance(arrays, list | tuple):
        raise TypeError(f"{name} must be a list of arrays, got {type(arrays).__name__}.")
    if all(type(a) is np.ndarray and a.flags.carray and (a.dtype is _SINGLE or a.dtype is _DOUBLE) for a in arrays):
        return arrays  # nearly always
    for i, array in enumerate(arrays):
        _check(f"{name}[{i}]", array, writable)
    return [canonical(array, array.dtype) for array in arrays]  # to Numba, subclasses and read-only ones are others


def checked_one(name, array, writable=False):
    """The same for a single array."""
    _check(name, array, writable)
    return canonical(array, array.dtype)


def _check(name, array, writable):
    if not isinstance(array, np.ndarray) or array.dtype not in (_SINGLE, _DOUBLE):
        got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be a float32 or float64 array, got {got}.")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"{name} must be C-contiguous and aligned: pass np.array(it, order='C').")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} is read-only, and updates are in place: pass a writable copy.")


def check_alike(params, grads):
    """Raise unless the two lists have the same shapes and dtypes."""
    alike = len(params) == len(grads)
    for p, g in zip(params, grads, strict=False):
        alike = alike and p.shape == g.shape and p.dtype == g.dtype
    if not alike:
        raise ValueError("grads must have the shapes and dtypes of params, array by array.")


def check_apart(params, grads):
    """Raise where an array to be written shares memory with another."""
    if len(params) == 1 and not np.may_share_memory(params[0], grads[0]):
        return
    arrays = [("params", i, p) for i, p in enumerate(params)] + [("grads", i, g) for i, g in enumerate(grads)]
    spans = [(a.__array_interface__["data"][0], a.nbytes, name, i) for name, i, a in arrays if a.size]
    read_to = written_to = 0
    for first, size, name, i in sorted(spans):
        if first < written_to or (name == "params" and first < read_to):
            raise ValueError(f"{name}[{i}] shares memory with another array, and updates are in place: pass a copy.")
        read_to, written_to = max(read_to, first + size), max(written_to, first + size if name == "params" else 0)


def check_finite(grads):
    """Raise where a gradient is not finite, and say where."""
    for i, g in enumerate(grads):
        for at in np.argwhere(~np.isfinite(g))[:1]:
            where = tuple(at.tolist())
            raise ValueError(
                f"grads[{i}] has NaN or infinite values, the first is {g[where]} at {where}: "
                "lower the learning rate or look for outliers."
            )
