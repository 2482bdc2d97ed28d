"""Makes ``import _peers`` work, and the options of benchmarks."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def small(request):
    """Whether benchmarks only assert correctness (``--benchmark-disable``): then shapes are small."""
    return bool(request.config.getoption("benchmark_disable", False))


@pytest.fixture
def record(benchmark, small):
    """Call after the benchmark: notes bytes, operations and the share of the machine's limits beside its times."""
    from _peers import N_THREADS, machine

    def note(bytes_moved, operations):
        benchmark.extra_info.update(bytes=bytes_moved, operations=operations, n_threads=N_THREADS)
        if not small and benchmark.stats is not None:
            median = benchmark.stats.stats.median
            limits = machine()
            benchmark.extra_info.update({f"machine_{name}": round(value, 1) for name, value in limits.items()})
            benchmark.extra_info["gigabytes_per_second"] = bytes_moved / median / 1e9
            benchmark.extra_info["share_of_copy"] = bytes_moved / median / 1e9 / limits["copy"]

    return note
