"""A small, fast subset of the benchmarks against stored ratios: ``python -m benchmarks.quick benchmarks/ratios.json``.

fastml and NumPy take turns, both on one thread, so that the ratio depends neither on the number of cores nor on a
moment in which the machine is slow. What dropped is measured once more before it counts. ``--write`` stores the ratios
instead of comparing.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks._results import UnreadableError, ratios
from benchmarks.compare import describe, dropped

ROUNDS = 7
CASES = {  # a group: the file, how its functions are made
    "softmax_cross_entropy_grad 1024x1000": ("softmax", lambda m: _softmax(m, (1024, 1000))),
    "softmax_cross_entropy_grad 65536x10": ("softmax", lambda m: _softmax(m, (65536, 10))),
    "binary_cross_entropy_grad 100000": ("pointwise", lambda m: _pointwise(m, "binary_cross_entropy_grad", (100_000,))),
    "adamw 100000": ("optimizers", lambda m: _made(m, "adamw", *m.data(100_000))),
    "top_k 1000x12000x64x10": ("top_k", lambda m: _made(m, *m.data((1000, 12_000, 64, 10)), 10)),
}


def _made(module, *arguments):
    return {name: module.MAKERS[name](*arguments) for name in ("fastml", "numpy")}


def _softmax(module, shape):
    return _made(module, "softmax_cross_entropy_grad", *module.data(shape))


def _pointwise(module, name, shape):
    return _made(module, name, *module.data(name, shape))


def measure(names):
    """Times as fast as NumPy, medians of turns."""
    compare = importlib.import_module("_peers").compare
    found = {}
    for name in names:
        file, make = CASES[name]
        seconds = compare(make(importlib.import_module(f"bench_{file}")), ROUNDS)
        found[name] = seconds["numpy"] / seconds["fastml"]
    return found


def check(stored):
    """Measure what is stored, what dropped twice; the groups that dropped both times."""
    now = measure([name for name in CASES if name in stored])
    if again := dropped(stored, now):
        print(f"Once more: {', '.join(again)}", flush=True)
        now |= {name: max(now[name], ratio) for name, ratio in measure(again).items()}
    print(*describe(stored, now), sep="\n")
    return dropped(stored, now)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the stored ratios")
    parser.add_argument("--write", action="store_true", help="store what is measured now")
    options = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # NumPy is not loaded yet
    if options.write:
        found = {name: round(ratio, 2) for name, ratio in measure(CASES).items()}
        options.file.write_text(json.dumps({"ratios": found}, indent=2) + "\n", encoding="utf-8")
        return 0
    try:
        lost = check(ratios(options.file))
    except UnreadableError as error:
        print(error, file=sys.stderr)
        return 2
    for name in lost:
        print(f"{name}: dropped by more than 25 %, twice", file=sys.stderr)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
