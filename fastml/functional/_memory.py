"""Memory for large outputs, without paying for new pages at every call.

The system hands out memory page by page, zeroed at its first touch: for an array of 512 MiB that takes as long as
the softmax of it. Here a large array that is no longer used leaves its memory behind for the next one of the same
size. At most two such blocks wait, for losses and for their gradient, and they are marked ``MADV_FREE``: the system
takes the pages back as soon as it needs memory, so they count as used in a process listing but are not withheld from
anybody.
"""

import math
import mmap
from collections import deque

import numpy as np

_LARGE = 2**25  # bytes; up to there the C library keeps what is given back, beyond it never does
_RECYCLES = hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MADV_HUGEPAGE")  # Linux

_ADVICE = getattr(mmap, "MADV_FREE", None)
_spare = deque(maxlen=2)  # the oldest block drops out, and its memory goes back at once


class _Block:
    """Anonymous memory under an array: the array keeps it as its base, and its end is the end of the last view."""

    def __init__(self, memory, shape, dtype):
        self.memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (np.frombuffer(memory, np.uint8).ctypes.data, False),
        }

    def __del__(self, spare=_spare, advice=_ADVICE):  # bound here: globals are gone when the interpreter ends
        try:
            self.memory.madvise(advice)
        except (OSError, ValueError):  # a system that does not know the advice: nothing is kept
            return
        spare.append(self.memory)


def _take(size):
    """Memory of exactly this size in bytes: a spare block, or new pages."""
    for _ in range(_spare.maxlen):
        try:
            memory = _spare.popleft()
        except IndexError:
            break
        if len(memory) == size:
            return memory
        _spare.append(memory)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def empty(shape, dtype):
    """As ``np.empty``, in the memory of an earlier large array if one was left behind."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE or not _RECYCLES:
        return np.empty(shape, dtype)
    try:
        memory = _take(size)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"Unable to allocate {size} bytes for an array with shape {shape} and {dtype}.") from error
    return np.asarray(_Block(memory, shape, dtype))
