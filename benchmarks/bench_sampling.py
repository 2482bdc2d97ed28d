"""Negatives: fastml's samplers beside NumPy's two ways to draw with probabilities, and PyTorch's.

``pytest benchmarks/bench_sampling.py`` times each on its own; ``python benchmarks/bench_sampling.py`` takes them in
turns and prints the ratios. A draw is a step's: what is computed once for all steps, tables and cumulated
probabilities, is not timed, except in "bind".
"""

import sys

import numpy as np
import pytest
from _peers import N_THREADS, compare, torch, use_all_threads

from fastml.training.samplers import LogUniformSampler, PopularitySampler, UniformSampler

N_CLASSES, SMALL = 100_000, 500
N_DRAWS = {"with replacement": [1000, 1_000_000], "without": [1000, 20_000]}


def bound_of(n_classes, replacement):
    """Classes as Zipf's law has them, in a random order."""
    ids = np.random.default_rng(0).permutation(n_classes)
    return PopularitySampler(replacement=replacement).bind(n_classes, counts=1e6 / (ids + 1))


def steps(draw):
    """Each call draws another step."""
    state = {"step": 0}

    def run():
        state["step"] += 1
        return draw(state["step"])

    return run


def makers(n_classes, m, replacement):
    """Functions that draw ``m`` ids of the same distribution."""
    bound, rng = bound_of(n_classes, replacement), np.random.default_rng(0)
    q, cumulated = bound.probability, np.cumsum(bound.probability)
    uniform = UniformSampler(replacement=replacement).bind(n_classes)
    functions = {
        "fastml": steps(lambda step: bound.draw(m, seed=0, step=step).ids),
        "Generator.choice": lambda: rng.choice(n_classes, m, replace=replacement, p=q),
    }
    if replacement:
        functions["searchsorted"] = lambda: np.searchsorted(cumulated, cumulated[-1] * rng.random(m), side="right")
    if torch is not None:
        use_all_threads()
        weights = torch.from_numpy(q)
        functions["torch.multinomial"] = lambda: torch.multinomial(weights, m, replacement=replacement).numpy()
    functions["fastml, uniform"] = steps(lambda step: uniform.draw(m, seed=0, step=step).ids)
    functions["Generator, uniform"] = lambda: (
        rng.integers(n_classes, size=m) if replacement else rng.choice(n_classes, m, replace=False)
    )
    return functions


def check(ids, m, n_classes, replacement):
    assert len(ids) == m
    assert 0 <= ids.min() <= ids.max() < n_classes
    assert replacement or len(np.unique(ids)) == m


CASES = [(m, way) for way, sizes in N_DRAWS.items() for m in sizes]


@pytest.mark.parametrize("name", ["fastml", "Generator.choice", "searchsorted", "torch.multinomial"])
@pytest.mark.parametrize(("m", "way"), CASES, ids=lambda value: str(value))
def test_draw(benchmark, record, small, m, way, name):
    n_classes, m, replacement = N_CLASSES, m, way == "with replacement"
    if small:
        n_classes, m = SMALL, min(m, 300)
    functions = makers(n_classes, m, replacement)
    if name not in functions:
        pytest.skip(f"{name} is not installed, or does not draw so")
    benchmark.group = f"draw {m} of {n_classes} {way}"
    check(functions[name](), m, n_classes, replacement)
    benchmark.pedantic(functions[name], rounds=5, warmup_rounds=1)
    record(bytes_moved=(8 + 16) * m, operations=m)  # an id, and an entry of the table


def main(wanted):
    """Print the ratios, taken in turns."""
    print(f"{N_THREADS} threads, {N_CLASSES} classes")
    for m, way in CASES:
        replacement = way == "with replacement"
        functions = makers(N_CLASSES, m, replacement)
        for function in functions.values():
            check(function(), m, N_CLASSES, replacement)
        seconds = compare(functions, rounds=wanted)
        print(f"{m} {way}")
        for name, median in seconds.items():
            base = seconds["fastml, uniform" if "uniform" in name else "fastml"]
            print(f"  {name:20} {1e3 * median:9.3f} ms {median / base:8.1f}x", flush=True)
    bind = compare(
        {
            "popularity": lambda: bound_of(N_CLASSES, True),
            "log-uniform": lambda: LogUniformSampler().bind(N_CLASSES),
        },
        rounds=wanted,
    )
    print("bind", ", ".join(f"{name} {1e3 * median:.2f} ms" for name, median in bind.items()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
