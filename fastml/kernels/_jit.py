"""The Numba options of every kernel, chosen once, and the cache that keeps their machine code.

A ``kernel`` is a serial loop that releases the GIL, writes to its out-parameters and checks nothing.
``point`` functions are the pieces that kernels are made of: they are always inlined.

Numba's own cache watches one file only, so an edit of ``_math.py`` would leave every kernel that inlines it
stale. Here the stamp of a cached kernel is a digest of all the files of this folder, and a folder that
cannot be written, or a damaged cache file, costs a compilation and never an error.
"""

import functools
import gc
import hashlib
import inspect
import os
import pickle
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import numba
from numba import config, njit
from numba.core.caching import InTreeCacheLocator, NullCache, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult
from numba.core.serialize import dumps
from numba.core.targetconfig import ConfigStack
from numba.extending import overload, register_jitable

# NaN and infinity keep their meaning: a masked logit is -inf.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz", "arcp", "contract", "reassoc"}}


# Settings of Numba that change the machine code, beside the processor.
_SETTINGS = "OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE"


@functools.cache
def source_digest(file=__file__):
    """Digest of what machine code is made from: the sources of this folder and ``file``, and the compiler."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for path in sorted({*Path(__file__).parent.glob("*.py"), Path(file)}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


@functools.cache
def cache_folder():
    """The first folder that machine code can be kept in: NUMBA_CACHE_DIR, beside the sources, the user's; or None."""
    locators = [UserProvidedCacheLocator] if config.CACHE_DIR else []
    locators.append(InTreeCacheLocator)
    if os.path.isabs(os.path.expanduser("~")):  # or it would be a folder of that name in the current one
        locators.append(UserWideCacheLocator)
    for locator in locators:
        if found := locator.from_function(source_digest.__wrapped__, __file__):
            return found.get_cache_path()
    return None


class _KernelCache(NullCache):
    """The machine code of a kernel: a file for each specialisation, in which a digest vouches for the rest.

    The digest covers the machine code and what it was made from. So a file that is damaged, half written, stale or
    of another version is no file, and whatever goes wrong with the folder means compiling, not failing.
    """

    def __init__(self, function):
        self.function = function

    @property
    def cache_path(self):
        return cache_folder()

    def load_overload(self, sig, target_context):
        target_context.refresh()
        key, path = self._place(sig, target_context.codegen())
        try:
            digest, data = path.read_bytes().split(b"\n", 1)
            if digest == self._digest(data):
                stored_key, result = pickle.loads(data)
                return CompileResult._rebuild(target_context, *result) if stored_key == key else None
        except (OSError, ValueError):  # no such file, or no digest in it
            pass
        return None

    def save_overload(self, sig, result):
        if result.library.has_dynamic_globals:  # addresses, which the next process will not have
            return
        key, path = self._place(sig, result.codegen)
        data = dumps((key, result._reduce()))
        draft = path.with_suffix(f".{uuid.uuid4().hex}")
        with suppress(OSError):  # the disk is full, or the folder went away
            try:
                draft.write_bytes(self._digest(data) + b"\n" + data)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)

    def _digest(self, data):
        return hashlib.sha256(source_digest(inspect.getfile(self.function)) + data).hexdigest().encode()

    def _place(self, sig, codegen):
        """What the machine code is for, and the file that holds it."""
        settings = {name: str(getattr(config, name)) for name in _SETTINGS}
        cells = dumps([cell.cell_contents for cell in self.function.__closure__ or ()])
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        key = sig, codegen.magic_tuple(), settings, cells, name, sys.implementation.cache_tag
        short = "".join(c for c in name.removeprefix("fastml.kernels.") if c not in "<>")
        return key, Path(cache_folder(), f"{short}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc")


class _Piece(JITCodeLibrary):  # pragma: no cover - compile time
    """Code that is only ever part of a kernel's: it is optimised, and becomes machine code, with the kernel.

    Numba does both for each function with all that it calls, and so many times for what lies deep.
    """

    codegen = property(lambda self: self)
    _optimize_final_module = get_pointer_to_function = set_env = lambda *_: 0

    def _finalize_final_module(self):
        self._finalized = True


class _Part(_Piece):  # pragma: no cover - compile time
    """A piece that LLVM may not inline either, lest it optimise it once for each caller."""

    def _optimize_functions(self, module):
        super()._optimize_functions(module)
        for function in module.functions:
            if not function.is_declaration:
                function.add_function_attribute("noinline")


class _KernelCompiler(Compiler):  # pragma: no cover - compile time
    """Compiles a kernel, and pieces of the kind ``library``.

    Callees see the same options whoever calls, or each would be compiled once for every kind of caller. The garbage
    collector waits: it would take a third of the time, for objects that are all in use.
    """

    library = None

    def define_pipelines(self):
        """Numba's; called when the options are those that callees will see."""
        flags = ConfigStack().top()
        flags.forceinline = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        return super().define_pipelines()

    def compile_extra(self, func):
        """Compile ``func``."""
        if self.library is not None:
            self.state.library = self.library(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(func)
        finally:
            if was_enabled:
                gc.enable()


class _PieceCompiler(_KernelCompiler):
    library = _Piece


class _PartCompiler(_KernelCompiler):
    library = _Part


def twin(function):
    """Register what stands for ``function`` in compiled code, where it is inlined."""
    return overload(function, jit_options={"forceinline": True, "pipeline_class": _PieceCompiler})


def _compiled(function, **options):
    compiled = njit(pipeline_class=_KernelCompiler, no_cfunc_wrapper=True, **_OPTIONS, **options)(function)
    if not config.DISABLE_JIT and cache_folder() is not None:
        compiled._cache = _KernelCache(function)
    return compiled


def _piece(function, **options):
    defaults = {"pipeline_class": _PieceCompiler, "forceinline": True, "no_cfunc_wrapper": True}
    return register_jitable(**{**defaults, **_OPTIONS, **options})(function)


def kernel(function):
    """Compile ``function`` on its first call, or load its machine code from the cache."""
    return _compiled(function)


def point(function):
    """Compile ``function`` into each kernel that calls it; called from elsewhere it is plain Python."""
    return _piece(function)


def part(function):
    """A ``point`` that is called, not inlined: for what is long, or is used in many places."""
    return _piece(function, pipeline_class=_PartCompiler, forceinline=False)


def exact_point(function):
    """A ``point`` whose arithmetic keeps its order and its divisions, for tricks that live on rounding errors."""
    return _piece(function, fastmath={"contract"})


def uncounted_kernel(function):
    """A ``kernel`` that allocates nothing, and whose slices are therefore not counted.

    Numba counts the references to an array at each slice, and threads that slice the same array wait for each other
    at its counter: longer than a row of WALS takes. A ``point`` that returns an array must be of the same kind as the
    kernel that calls it.
    """
    return _compiled(function, _nrt=False)


def uncounted_point(function):
    """A ``point`` for an ``uncounted_kernel``."""
    return _piece(function, _nrt=False)
