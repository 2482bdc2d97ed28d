"""Fails when fastml lost speed: ``python -m benchmarks.compare old.json new.json``.

Compared are ratios to the NumPy baseline that was measured in the same file, never times: those depend on the machine
and on what else runs there. A file is what ``pytest benchmarks --benchmark-json=new.json`` writes, or the small file of
ratios that ``python -m benchmarks.quick --write`` writes. The exit code is 1 if a ratio dropped by more than 25 %, and
2 if there is nothing to compare.
"""

import argparse
import sys

from benchmarks import _format
from benchmarks._results import UnreadableError, ratios

DROP = 0.25


def dropped(old, new, drop=DROP):
    """Names of the groups in both whose ratio is below (1 - drop) times the old one; a ratio of NaN is."""
    least = (1 - drop) * (1 - 1e-9)  # a drop of exactly that much is allowed, however it is rounded
    return [name for name in old if name in new and not new[name] >= least * old[name]]


def describe(old, new):
    """A line for each group: ratios to NumPy and the change, or where it is missing."""
    width = max(map(len, [*old, *new]), default=0)
    for name in sorted({*old, *new}):
        if name in old and name in new:
            before, now = old[name], new[name]
            yield f"{name:{width}}  {_format.ratio(before):>6} {_format.ratio(now):>6}  {now / before - 1:+.0%}"
        else:
            yield f"{name:{width}}  only in the {'old' if name in old else 'new'} file, not compared"


def _share(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 up to 1, got {text}")
    return value


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("old", help="results or ratios to compare with")
    parser.add_argument("new", help="results or ratios of now")
    parser.add_argument("--drop", type=_share, default=DROP, help="share of a ratio that may be lost (default: 0.25)")
    options = parser.parse_args(arguments)
    try:
        old, new = ratios(options.old), ratios(options.new)
    except UnreadableError as error:
        print(error, file=sys.stderr)
        return 2
    print(*describe(old, new), sep="\n")
    if not old.keys() & new.keys():
        print("There is no group with fastml and NumPy in both files: nothing was compared.", file=sys.stderr)
        return 2
    lost = dropped(old, new, options.drop)
    for name in lost:
        print(f"{name}: dropped by more than {options.drop:.0%}", file=sys.stderr)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
