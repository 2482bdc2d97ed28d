"""How kernels are run: blocks of rows on one thread pool, with BLAS kept to a thread per worker."""

from fastml.runtime._blas_limit import blas_limited
from fastml.runtime._threads import run_blocks, run_tasks, run_team, thread_count

__all__ = ["blas_limited", "run_blocks", "run_tasks", "run_team", "thread_count"]
