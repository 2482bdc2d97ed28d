"""The fixtures of benchmarks: ``small``, and ``record``, which notes what a result needs beside its times."""

import re
import time

import pytest
from _memory import peak_extra_memory
from _peers import N_THREADS, PEAKS, machine, peer_versions
from scipy.sparse import issparse

FACTS = ("shape", "dtype", "n_threads", "bytes", "flops", "peak_extra_bytes", "share_of_limit")  # of every result
_SHAPE = re.compile(r"\d+(?:(?:x|, ?| of )\d+)*")


@pytest.fixture
def small(request):
    """Whether benchmarks only assert correctness (``--benchmark-disable``): then shapes are small."""
    return bool(request.config.getoption("benchmark_disable", False))


def _candidate(node):
    """Whose time it is: the value of the parameter that is "fastml" in one of the cases."""
    params = node.callspec.params if hasattr(node, "callspec") else {}
    for mark in node.iter_markers("parametrize"):
        name, values = mark.args[:2]
        if name in params and "fastml" in values:
            return params[name]
    return None


def _shape(group):
    """The numbers in a group's name such as ``softmax_cross_entropy_grad 8192x1000``."""
    found = _SHAPE.search(group or "")
    return [int(number) for number in re.findall(r"\d+", found[0])] if found else None


def _rounds(call):
    """How many calls fill half a second, up to 500, as told by a tenth of one, in which threads find their cores."""
    begin, n_calls = time.perf_counter(), 0
    while time.perf_counter() < begin + 0.1:
        call()
        n_calls += 1
    return min(int(0.5 * n_calls / (time.perf_counter() - begin)), 500)


def _remember_calls(benchmark, small):
    """The functions that are timed from now on, to be called again when memory is measured; short ones more often."""
    calls, pedantic = [], benchmark.pedantic

    def remember(target, args=(), kwargs=None, setup=None, **options):
        def call():
            its_args, its_kwargs = (setup() if setup else None) or (args, kwargs or {})
            return target(*its_args, **its_kwargs)

        calls.append(call)
        if not small:
            options["rounds"] = max(options.get("rounds", 1), _rounds(call))
        return pedantic(target, args=args, kwargs=kwargs, setup=setup, **options)

    benchmark.pedantic = remember
    return calls


def _speeds(bytes_moved, operations, seconds):
    """Achieved rates, the machine's limits, and the share of the one that binds: 1 is as fast as the machine can."""
    limits = machine()
    rates = {"gigabytes_per_second": bytes_moved / seconds / 1e9, "gigaflops": operations / seconds / 1e9}
    shares = {"triad": rates["gigabytes_per_second"] / limits["triad"], "sgemm": rates["gigaflops"] / limits["sgemm"]}
    limit = max(shares, key=shares.get)
    noted = {f"machine_{name}": value for name, value in limits.items()}
    return {**noted, **rates, "limit": limit, "share_of_limit": shares[limit]}


@pytest.fixture
def record(request, benchmark, small):
    """Call after the benchmark, with the bytes and operations that the task needs at least.

    The shape is read from the name of the group unless it is given, and memory is measured in one call more.
    """
    calls = _remember_calls(benchmark, small)

    def note(bytes_moved, operations, *, shape=None, dtype="float32"):
        facts = {"candidate": _candidate(request.node), "shape": shape or _shape(benchmark.group), "dtype": dtype}
        facts |= {"n_threads": N_THREADS, "bytes": int(bytes_moved), "flops": int(operations)}
        if not small and benchmark.stats is not None:
            facts |= _speeds(bytes_moved, operations, benchmark.stats.stats.median)
            facts["peak_extra_bytes"] = peak_extra_memory(calls[-1]) if calls else None
        benchmark.extra_info.update(facts)

    return note


@pytest.fixture
def record_fit(benchmark, small):
    """Call with what a comparison of whole fits gave, X, and how many outputs or operations a pass over X has.

    Counted is the least: a pass reads X once and, unless told otherwise, multiplies and adds twice for each of its
    entries and outputs, forwards and backwards.
    """

    def note(found, X, *, n_outputs=1, flops_a_pass=None):
        theirs, ours, text, passes = found
        values = X.data if issparse(X) else X
        size = values.nbytes + (X.indices.nbytes if issparse(X) else 0)
        flops = int(passes * (4 * values.size * n_outputs if flops_a_pass is None else flops_a_pass))
        facts = {"ratio": theirs / ours, "seconds_peer": theirs, "seconds_fastml": ours, "note": text}
        facts |= {"shape": list(X.shape), "dtype": str(X.dtype), "bytes": int(passes * size), "flops": flops}
        if not small:
            facts |= _speeds(facts["bytes"], flops, ours)
        benchmark.extra_info.update(facts)

    return note


@pytest.fixture(autouse=True)
def _peak_of_fits(request):
    """What ``timed`` saw of memory, for comparisons of whole fits."""
    PEAKS.clear()
    yield
    benchmark = request.node.funcargs.get("benchmark")
    if benchmark is not None and "ratio" in benchmark.extra_info:
        benchmark.extra_info.setdefault("peak_extra_bytes", PEAKS.get("fastml"))
        others = [peak for package, peak in PEAKS.items() if package != "fastml" and peak is not None]
        benchmark.extra_info.setdefault("peak_extra_bytes_peer", max(others, default=None))


def pytest_benchmark_update_machine_info(config, machine_info):
    """Say which versions were measured; the name of the machine is nobody's business."""
    machine_info.pop("node", None)
    machine_info.update(n_threads=N_THREADS, versions=peer_versions())


def pytest_benchmark_generate_json(config, benchmarks, include_data, machine_info, commit_info):
    """Every result has all facts; None where one does not apply."""
    for result in benchmarks:
        result.extra_info.setdefault("n_threads", N_THREADS)
        for fact in FACTS:
            result.extra_info.setdefault(fact, None)
