"""What a run of the benchmarks found: reads the JSON of pytest-benchmark, and the small file of ratios."""

import json
import math
from pathlib import Path
from typing import NamedTuple

FASTML = "fastml"
BASELINES = ("numpy", "Generator.choice")  # NumPy, whatever it is called in a group


class UnreadableError(Exception):
    """A file that is not what it should be; the message says what is wrong."""


class Entry(NamedTuple):
    """A candidate's median time and what was recorded beside it."""

    seconds: float
    facts: dict


class Results(NamedTuple):
    """One run, or several of which a later one replaces whole groups of an earlier one."""

    machine: dict
    groups: dict  # name -> {candidate: Entry}
    fits: dict  # "file: name" -> facts, with ``ratio`` to a peer
    curves: dict  # name -> facts, with ``axis``, ``values`` and ``seconds``
    starts: dict  # name -> facts, with ``seconds``


def _json(path):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UnreadableError(f"{path}: not JSON, {error}.") from error
    if not isinstance(content, dict):
        raise UnreadableError(f"{path}: expected an object with benchmarks or ratios, got {type(content).__name__}.")
    return content


def _stem(fullname):
    """``bench_wals`` of ``benchmarks/bench_wals.py::test_comparison[...]``."""
    return Path(fullname.partition("::")[0]).stem


def _one(content, path):
    """The results in one file of pytest-benchmark."""
    results = Results(content.get("machine_info", {}), {}, {}, {}, {})
    try:
        for benchmark in content["benchmarks"]:
            facts, name = benchmark["extra_info"], benchmark["group"]
            if "ratio" in facts:
                case = (benchmark["params"] or {}).get("name", benchmark["name"])
                results.fits[f"{_stem(benchmark['fullname'])}: {case}"] = facts
            elif "axis" in facts:
                results.curves[name] = facts
            elif "cold_start" in facts:
                results.starts[name] = facts["cold_start"]
            elif facts.get("candidate") is not None:
                entry = Entry(benchmark["stats"]["median"], {**facts, "file": _stem(benchmark["fullname"])})
                results.groups.setdefault(name, {})[facts["candidate"]] = entry
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableError(f"{path}: not what pytest --benchmark-json writes ({error!r}).") from error
    return results


def load(*paths):
    """The results in files of pytest-benchmark; of a group that is in several, those in the last."""
    merged = Results({}, {}, {}, {}, {})
    for path in paths:
        for whole, part in zip(merged, _one(_json(path), path), strict=True):
            whole.update(part)
    return merged


def baseline(entries):
    """NumPy's entry of a group, or None."""
    return next((entries[name] for name in BASELINES if name in entries), None)


def ratios(path):
    """Times as fast as NumPy by group, from either kind of file; a group without one of the two is left out."""
    content = _json(path)
    if "ratios" not in content:
        groups = _one(content, path).groups
        pairs = {name: (baseline(entries), entries.get(FASTML)) for name, entries in groups.items()}
        return {name: theirs.seconds / ours.seconds for name, (theirs, ours) in pairs.items() if theirs and ours}
    for name, ratio in content["ratios"].items():
        if not isinstance(ratio, int | float) or not math.isfinite(ratio) or ratio <= 0:
            raise UnreadableError(f"{path}: the ratio of {name!r} must be a number above 0, got {ratio!r}.")
    return content["ratios"]
