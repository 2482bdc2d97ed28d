"""Numbers too small for full precision count as zero, while a kernel wants it.

The moments of a parameter whose gradient stays zero shrink until they are such numbers, and so do coefficients of a
feature that is always zero: a processor may take ten times as long for each of them, for nothing that anyone sees.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastml.kernels._jit import twin

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")  # others lose little, and are left alone
_FLUSH = 0x8040  # of the control register MXCSR: results and operands


def _access(name):
    """An intrinsic that loads (``"ldmxcsr"``) or stores (``"stmxcsr"``) the control register of this thread."""

    @intrinsic
    def access(typing_context, value):  # pragma: no cover - compile time
        def codegen(context, builder, signature, args):
            slot = cgutils.alloca_once_value(builder, args[0])
            pointer = builder.bitcast(slot, cgutils.voidptr_t)
            function_type = ir.FunctionType(ir.VoidType(), [pointer.type])
            builder.call(
                cgutils.get_or_insert_function(builder.module, function_type, f"llvm.x86.sse.{name}"), [pointer]
            )
            return builder.load(slot)

        return types.int32(types.int32), codegen

    return access


_load, _store = _access("ldmxcsr"), _access("stmxcsr")


def flush_denormals():
    """From here on they count as zero; returns what ``restore`` takes."""
    return 0


def restore(mode):
    """What was before ``flush_denormals``."""


@twin(flush_denormals)
def _compiled_flush():  # pragma: no cover - compile time
    def flush():
        mode = _store(types.int32(0))
        _load(types.int32(mode | _FLUSH))
        return mode

    return flush if _IS_X86 else lambda: types.int32(0)


@twin(restore)
def _compiled_restore(mode):  # pragma: no cover - compile time
    def load(mode):
        _load(mode)

    return load if _IS_X86 else lambda mode: None
