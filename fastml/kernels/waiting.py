"""Waiting for another thread without going to sleep: to be woken up takes longer than many a block of work."""

import platform
import time

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastml.kernels._jit import kernel, twin

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


def _read(flag):
    """What the flag (1,) int64 holds now; compilers may not take it from an earlier read."""
    return flag[0]


@intrinsic
def _atomic_load(typing_context, flag):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(flag), codegen


@twin(_read)
def _compiled_read(flag):  # pragma: no cover - compile time
    return lambda flag: _atomic_load(flag)


def _pause():
    """Some tens of nanoseconds, in which the core's twin may work."""
    time.sleep(0)


@intrinsic
def _pause_instruction(typing_context):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        if _IS_X86:
            pause = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(pause, [])
        return context.get_dummy_value()

    return types.void(), codegen


@twin(_pause)
def _compiled_pause():  # pragma: no cover - compile time
    return lambda: _pause_instruction()


@kernel
def wait_for_change(flag, seen, n_reads, n_pauses):
    """Read ``flag`` (1,) at most ``n_reads`` times until it is not ``seen``; then pause ``n_pauses`` times."""
    for _ in range(n_reads):
        if _read(flag) != seen:
            for _ in range(n_pauses):
                _pause()
            return
        _pause()
