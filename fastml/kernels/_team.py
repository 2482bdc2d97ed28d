"""Threads that work on one kernel call together, without Python between the parts of it.

The call is a sequence of phases, each of some tasks; whoever is there claims a task of the current phase, and the next
begins when all are done. A thread that comes late finds the phases before over, and one that never comes is not
missed: nobody waits but for tasks that are running. ``board`` (16,) int64, zeros at first, holds the number of the
phase and its next task in one word, and how many are done a cache line further.
"""

import ctypes
import os
import platform
import threading
import time

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastml.kernels._jit import part, twin

_DONE = 8  # place of the number of tasks that are done
_READS = 2000  # of the board, with a pause after each, before a thread lets others have its core: 50 microseconds
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_lock = threading.Lock()


def read(flag):
    """What the flag (1,) int64 holds now; compilers may not take it from an earlier read."""
    return flag[0]


@intrinsic
def _atomic_load(typing_context, flag):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(flag), codegen


@twin(read)
def _compiled_read(flag):  # pragma: no cover - compile time
    return lambda flag: _atomic_load(flag)


def pause():
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


@twin(pause)
def _compiled_pause():  # pragma: no cover - compile time
    return lambda: _pause_instruction()


def _swap(board, place, seen, new):
    """Write ``new`` if the word is still ``seen``; returns what it was."""
    with _lock:
        found = board[place]
        if found == seen:
            board[place] = new
    return found


def _count(board, place):
    """Add one to the word; returns what it was."""
    with _lock:
        board[place] += 1
        return board[place] - 1


def _let_others_run():
    """Offer the rest of this thread's time."""


def _yield_address():
    function = ctypes.windll.kernel32.SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value


llvmlite.binding.add_symbol("fastml_let_others_run", _yield_address())


def _word(context, builder, signature, args):  # pragma: no cover - compile time
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic
def _swap_word(typing_context, board, place, seen, new):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        word = _word(context, builder, signature, args)
        found = builder.cmpxchg(word, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(found, 0)

    return types.int64(board, types.int64, types.int64, types.int64), codegen


@intrinsic
def _count_word(typing_context, board, place):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        word = _word(context, builder, signature, args)
        return builder.atomic_rmw("add", word, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(board, types.int64), codegen


@intrinsic
def _call_yield(typing_context):  # pragma: no cover - compile time
    def codegen(context, builder, signature, args):
        function_type = ir.FunctionType(ir.IntType(32), [])
        builder.call(ir.Function(builder.module, function_type, "fastml_let_others_run"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@twin(_swap)
def _compiled_swap(board, place, seen, new):  # pragma: no cover - compile time
    return lambda board, place, seen, new: _swap_word(board, place, seen, new)


@twin(_count)
def _compiled_count(board, place):  # pragma: no cover - compile time
    return lambda board, place: _count_word(board, place)


@twin(_let_others_run)
def _compiled_yield():  # pragma: no cover - compile time
    return lambda: _call_yield()


@part
def claim(board, phase, n_tasks):
    """Number of a task of the phase that is now the caller's to do; -1 when the phase is over, not before."""
    n_reads = 0
    while True:
        seen = read(board)
        task = seen & 0xFFFFFFFF
        if seen >> 32 != phase:
            return np.int64(-1)
        if task < n_tasks:
            if _swap(board, 0, seen, seen + 1) == seen:
                return task
        elif n_reads < _READS:
            n_reads += 1
            pause()
        else:
            _let_others_run()


@part
def complete(board, phase, n_tasks):
    """A claimed task is done; the last one begins the next phase."""
    if _count(board, _DONE) == n_tasks - 1:
        board[_DONE] = 0
        _swap(board, 0, (phase << 32) + n_tasks, (phase + 1) << 32)
