"""The peak of memory of a call, measured alike for NumPy, fastml, PyTorch and whatever else.

Linux notes the largest resident size of a process (``VmHWM``) and lets the note begin anew (``/proc/self/clear_refs``).
That counts pages whoever asked for them, where tracemalloc sees NumPy's arrays and nothing of PyTorch, of BLAS or of
scratch in a kernel. Where the note cannot begin anew, a thread looks at the resident size every millisecond. There is
no measure on other systems: None.
"""

import ctypes
import gc
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

_RESET_PEAK = "5"
_SECONDS_BETWEEN_LOOKS = 1e-3
_PROCESS = Path("/proc/self")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGE, _LARGEST = 2**17, 2**25  # bytes: its threshold at first, and where it ends up as large blocks are freed


def _status(field):
    """A size in ``/proc/self/status``, in bytes."""
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


class _NotedPeak:
    """The kernel's own note of the largest resident size."""

    def __init__(self):
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)

    def end(self):
        return _status("VmHWM")


class _SampledPeak:
    """The largest resident size that a thread saw."""

    def __init__(self):
        self.page, self.peak, self.over = os.sysconf("SC_PAGE_SIZE"), 0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self):
        with open(_PROCESS / "statm") as file:
            while True:
                file.seek(0)
                self.peak = max(self.peak, self.page * int(file.read().split()[1]))
                if self.over.wait(_SECONDS_BETWEEN_LOOKS):
                    return

    def end(self):
        self.over.set()
        self.thread.join()
        return self.peak


def _begin_peak():
    try:
        return _NotedPeak()
    except OSError:
        return _SampledPeak()


class MemoryWatch:
    """``with MemoryWatch() as watch: ...``, then ``watch.extra`` is the peak in bytes above what was there, or None."""

    extra = None

    def __enter__(self):
        self._is_measured = sys.platform == "linux"
        if self._is_measured:
            self._before, self._peak = _status("VmRSS"), _begin_peak()
        return self

    def __exit__(self, *error):
        if self._is_measured:
            self.extra = max(self._peak.end() - self._before, 0)


@contextmanager
def _free_memory_returned():
    """Meanwhile glibc maps large blocks and shrinks heaps at once; yields what empties the gaps inside of heaps."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        yield lambda: None
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGE)
    try:
        yield lambda: libc.malloc_trim(0)
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)


def _drop_kept():
    """Garbage, and the block of memory that fastml keeps for its next large array."""
    gc.collect()
    memory = sys.modules.get("fastml.functional._memory")
    if memory is not None:
        memory._spare.clear()


def _gradients_of_torch():
    """Those that tensors have: a step frees them first, so that the new ones would not count."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]


def peak_extra_memory(function):
    """Bytes at the peak of ``function()``, its result included, beyond what was resident before; None if unknown.

    It is called twice, and the second time counts: memory that was freed and is resident all the same would not. What
    a library keeps from call to call whatever the allocator does, such as the buffers of BLAS, does not count.
    """
    if sys.platform != "linux":
        return None
    with _free_memory_returned() as trim:
        function()
        _drop_kept()
        trim()
        kept = _gradients_of_torch()
        with MemoryWatch() as watch:
            result = function()
        del result, kept
    return watch.extra
