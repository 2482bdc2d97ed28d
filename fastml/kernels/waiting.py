"""Waiting for another thread without going to sleep: to be woken up takes longer than many a block of work."""

from fastml.kernels._jit import kernel
from fastml.kernels._team import pause, read


@kernel
def wait_for_change(flag, seen, n_reads, n_pauses):
    """Read ``flag`` (1,) at most ``n_reads`` times until it is not ``seen``; then pause ``n_pauses`` times."""
    for _ in range(n_reads):
        if read(flag) != seen:
            for _ in range(n_pauses):
                pause()
            return
        pause()
