"""The Numba options of every kernel, chosen once, and the cache that keeps their machine code.

A ``kernel`` is a serial loop that releases the GIL, writes to its out-parameters and checks nothing.
``point`` functions are the pieces that kernels are made of: they are always inlined.

Numba's own cache watches one file only, so an edit of ``_math.py`` would leave every kernel that inlines it
stale. Here the stamp of a cached kernel is a digest of all the files of this folder, and a folder that
cannot be written, or a damaged cache file, costs a compilation and never an error.
"""

import functools
import hashlib
from pathlib import Path

from numba import config, njit
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

# NaN and infinity keep their meaning: a masked logit is -inf.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz", "arcp", "contract", "reassoc"}}


@functools.cache
def source_digest():
    """Digest of the sources that machine code is made from."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def cache_folder():
    """The first folder that machine code can be kept in: NUMBA_CACHE_DIR, beside the sources, the user's; or None."""
    locators = [InTreeCacheLocator, UserWideCacheLocator]
    if config.CACHE_DIR:
        locators.insert(0, UserProvidedCacheLocator)
    for locator in locators:
        if found := locator.from_function(source_digest.__wrapped__, __file__):
            return found.get_cache_path()
    return None


class _Locator(InTreeCacheLocator):
    """Where a kernel's machine code lies, and what it was made from."""

    def __init__(self, py_func, py_file):
        super().__init__(py_func, py_file)
        self._cache_path = cache_folder()

    def get_source_stamp(self):
        return source_digest()

    def get_disambiguator(self):
        # Settings that change the machine code but are no part of Numba's own key.
        return f"{self._lineno}-{int(config.OPT)}{'-bounds' if config.BOUNDSCHECK else ''}"


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _KernelCache(FunctionCache):
    """Numba's cache, except that trouble with its files means compiling, not failing."""

    _impl_class = _CacheImpl

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file can raise anything at all from pickle
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except OSError:  # the disk is full, or the folder went away
            pass


def kernel(function):
    """Compile ``function`` on its first call, or load its machine code from the cache."""
    compiled = njit(**_OPTIONS)(function)
    if not config.DISABLE_JIT and cache_folder() is not None:
        compiled._cache = _KernelCache(function)
    return compiled


def point(function):
    """Compile ``function`` into each kernel that calls it."""
    return njit(forceinline=True, **_OPTIONS)(function)


def exact_point(function):
    """A ``point`` whose arithmetic keeps its order and its divisions, for tricks that live on rounding errors."""
    return njit(forceinline=True, **{**_OPTIONS, "fastmath": {"contract"}})(function)
