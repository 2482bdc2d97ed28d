"""Writes the numbers of the pages: ``python -m benchmarks.report results.json``.

The results are what ``pytest benchmarks --benchmark-json=results.json`` writes; several files can be given, and of a
group that is in several, the last one counts. A page has blocks between ``<!-- name:begin -->`` and
``<!-- name:end -->``: their content is replaced, and the pictures are drawn anew. A block whose results are not there
stays as it is, and is named.
"""

import argparse
import math
import re
import sys
from pathlib import Path

from benchmarks import _figures, _format
from benchmarks._headlines import FITS, GROUPS
from benchmarks._results import FASTML, UnreadableError, baseline, load

VARIANTS = ("kernel", "unchecked", "full softmax")  # of fastml itself, as names beginning with "fastml," are
NOT_PICTURED = ("bench_elementwise", "bench_epochs", "bench_ranking", "bench_sampling")
COLUMNS = {"torch": "PyTorch", "torch.compile": "`torch.compile`", "jax": "JAX"}
ROOT = Path(__file__).resolve().parents[1]


class MissingError(Exception):
    """Results that a block needs are not there."""


def need(found, what):
    """``found`` unless it is empty."""
    if not found:
        raise MissingError(f"no results of {what}")
    return found


def peers(entries):
    """Those of a group that are neither fastml, nor a variant of it, nor NumPy."""
    numpy = baseline(entries)
    own = {name for name in entries if name.startswith("fastml") or name in VARIANTS}
    return {name: entry for name, entry in entries.items() if name not in own and entry is not numpy}


def measured(results):
    """Groups in which fastml was timed, by file and then as they ran."""
    groups = {name: entries for name, entries in results.groups.items() if FASTML in entries}
    return dict(sorted(groups.items(), key=lambda item: item[1][FASTML].facts["file"]))


def limits(results):
    """The limits of the machine in the session that was measured last."""
    entries = need([group[FASTML] for group in measured(results).values()], "groups with fastml")
    facts = [entry.facts for entry in entries if "machine_triad" in entry.facts]
    last = need(facts, "the limits of the machine")[-1]
    return {name.removeprefix("machine_"): value for name, value in last.items() if name.startswith("machine_")}


# ---------------------------------------------------------------------------------------------- blocks of tables


def machine_block(results, _):
    info, found = results.machine, limits(results)
    versions = ", ".join(f"{package} {number}" for package, number in info.get("versions", {}).items())
    return [
        f"{info.get('cpu', {}).get('brand_raw', 'CPU')}, {info.get('n_threads')} threads, {info.get('system')}, "
        f"Python {info.get('python_version')}. {versions}.",
        "",
        f"Its limits: {_format.digits(found['triad'])} GB/s of a triad, {_format.digits(found['copy'])} GB/s of a copy "
        f"({_format.digits(found['copy_to_new_memory'])} GB/s into new memory), "
        f"{_format.digits(found['sgemm'])} GFLOP/s of sgemm.",
    ]


def _times(entries, name):
    entry = entries.get(name)
    return _format.ratio(entry.seconds / entries[FASTML].seconds) if entry else ""


def _limit(facts):
    return f"{_format.share(facts['share_of_limit'])} of {facts['limit']}" if facts.get("share_of_limit") else ""


def ratios_block(results, _):
    rows = []
    for name, entries in need(measured(results), "groups with fastml").items():
        ours, numpy = entries[FASTML], baseline(entries)
        others = {peer: entry for peer, entry in peers(entries).items() if peer not in COLUMNS}
        rows.append(
            [
                name,
                _format.seconds(ours.seconds),
                _format.ratio(numpy.seconds / ours.seconds) if numpy else "",
                *(_times(entries, peer) for peer in COLUMNS),
                ", ".join(f"{peer} {_times(entries, peer)}" for peer in others),
                _limit(ours.facts),
            ]
        )
    header = ["function and shape", "fastml", "NumPy", *COLUMNS.values(), "others", "share of the limit"]
    return _format.table(header, rows)


def _fits_of(results, is_wanted):
    """A table of the comparisons whose file is wanted."""
    rows = []
    for name, facts in results.fits.items():
        file, _, comparison = name.partition(": ")
        if is_wanted(file):
            times = [_format.seconds(facts[f"seconds_{who}"]) for who in ("peer", "fastml")]
            rows.append([comparison, *times, _format.ratio(facts["ratio"]), facts.get("note") or "", f"`{file}.py`"])
    header = ["comparison", "peer", "fastml", "times as fast", "note", "file"]
    return _format.table(header, need(rows, "comparisons of fits"))


def fits_block(results, _):
    return _fits_of(results, lambda file: file != "bench_wals")


def wals_block(results, _):
    return _fits_of(results, lambda file: file == "bench_wals")


def memory_block(results, _):
    rows = []
    for name, entries in need(measured(results), "groups with fastml").items():
        peaks = {who: entry.facts.get("peak_extra_bytes") for who, entry in entries.items()}
        numpy = next((peaks[who] for who in entries if entries[who] is baseline(entries)), None)
        found = [peaks[FASTML], numpy, *(peaks.get(peer) for peer in COLUMNS)]
        if max((peak for peak in found if peak is not None), default=0) >= 2**20:
            rows.append([name, *("" if peak is None else _format.memory(peak) for peak in found)])
    header = ["function and shape", "fastml", "NumPy", *COLUMNS.values()]
    return _format.table(header, need(rows, "memory"))


def cold_start_block(results, _):
    imports, fits = [], []
    for name, facts in need(results.starts, "cold starts").items():
        what = f"`{name.removeprefix('cold start: ')}`"
        if "import" in facts:
            imports.append([what, _format.seconds(facts["import"])])
        else:
            fits.append([what, *(_format.seconds(facts[when]) for when in ("empty cache", "full cache", "next"))])
    header = ["1000 x 20, 5 classes", "first fit, empty cache", "first fit, full cache", "next fit"]
    return [*_format.table(["import", "time"], imports), "", *_format.table(header, need(fits, "first fits"))]


def exponent(sizes, seconds):
    """p where time grows as size**p between the two largest sizes."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def _growths(results):
    curves = {name: facts for name, facts in results.curves.items() if facts["axis"] != "threads"}
    return need({name: facts for name, facts in curves.items() if len(facts["values"]) > 1}, "growing sizes")


def growth_block(results, _):
    rows = []
    for name, facts in _growths(results).items():
        sizes, seconds, peaks = facts["values"], facts["seconds"][FASTML], facts["memory"][FASTML]
        rows.append(
            [
                f"{name} ({facts['fixed']})" if facts["fixed"] else name,
                f"{_format.count(sizes[0])} to {_format.count(sizes[-1])}",
                _format.seconds(seconds[-1]),
                *(_format.seconds(seconds[i] / sizes[i]) for i in (-2, -1)),
                f"{exponent(sizes, seconds):.2f}",
                "" if peaks[-1] is None else _format.memory(peaks[-1]),
            ]
        )
    header = ["what grows", "sizes", "time at the largest", "a unit, largest but one", "a unit, largest", "exponent"]
    return _format.table([*header, "peak extra memory at the largest"], rows)


# ---------------------------------------------------------------------------------------------- blocks with pictures


def family(group):
    """The name of a group without the numbers of its shape."""
    return re.sub(r" ?\d+(?:x\d+)*", "", group)


def largest(results):
    """Of each family the group that moves most: (name, entry of fastml, entry of NumPy or None).

    Functions whose gradient is there too are left out, and files whose points lie all in one place: the picture would
    be full.
    """
    found, functions = {}, {name.partition(" ")[0] for name in measured(results)}
    for name, entries in measured(results).items():
        facts = entries[FASTML].facts
        if name.partition(" ")[0] + "_grad" in functions or facts["file"] in NOT_PICTURED:
            continue
        if facts.get("gigaflops") and facts["bytes"] >= found.get(family(name), ("", 0))[1]:
            found[family(name)] = name, facts["bytes"], entries
    return [(name, entries[FASTML], baseline(entries)) for name, _, entries in found.values()]


def roofline_block(results, folder):
    _figures.roofline(folder / "speed_limits.png", limits(results), need(largest(results), "rates"))
    return [
        "![GFLOP/s against operations a byte, with the limits of the machine and a number at each point]"
        "(_static/speed_limits.png)"
    ]


def scaling_block(results, folder):
    _figures.scaling(folder / "speed_scaling.png", need(results.curves, "curves"))
    return ["![Time against rows, classes, features, stored entries and threads](_static/speed_scaling.png)"]


# ---------------------------------------------------------------------------------------------- the README


def headlines_block(results, _):
    rows = []
    for text, name in GROUPS:
        entries = need(results.groups.get(name), name)
        others = {who: label for who, label in COLUMNS.items() if who in entries}
        theirs = [need(baseline(entries), f"NumPy in {name}"), *(entries[who] for who in others)]
        ours = need(entries.get(FASTML), f"fastml in {name}")
        times = " / ".join(_format.ratio(entry.seconds / ours.seconds) for entry in theirs)
        rows.append(
            [text, " / ".join(["NumPy", *others.values()]), times, f"`pytest benchmarks/{ours.facts['file']}.py`"]
        )
    for text, against, name in FITS:
        facts = need(results.fits.get(name), name)
        rows.append([text, against, _format.ratio(facts["ratio"]), f"`pytest benchmarks/{name.partition(':')[0]}.py`"])
    return _format.table(["what", "against", "times as fast", "command"], rows)


PAGES = {
    "README.md": {"ratios": headlines_block},
    "docs/speed.md": {
        "machine": machine_block,
        "ratios": ratios_block,
        "fits": fits_block,
        "limits": roofline_block,
        "scaling": scaling_block,
        "memory": memory_block,
        "cold-start": cold_start_block,
    },
    "docs/cost.md": {"growth": growth_block},
    "docs/wals_speed.md": {"wals": wals_block},
}


def replace_block(text, name, lines):
    """The page with the block's content replaced; its markers must be there, once."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UnreadableError(f"expected {begin} and after it {end}, each once")
    before, _, rest = text.partition(begin)
    return "\n".join([before + begin, *lines, end]) + rest.partition(end)[2]


def write_pages(results, root):
    """Write all pages under ``root``; yields a line about each block that stayed as it was."""
    folder = root / "docs" / "_static"
    for page, blocks in PAGES.items():
        path = root / page
        try:
            text = path.read_text(encoding="utf-8")
            for name, block in blocks.items():
                try:
                    text = replace_block(text, name, block(results, folder))
                except MissingError as missing:
                    yield f"{page}: {name} stays as it was, {missing}"
        except (OSError, UnreadableError) as error:
            raise UnreadableError(f"{page}: {error}") from error
        path.write_text(text, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="+", help="what pytest --benchmark-json wrote")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose pages are written")
    options = parser.parse_args(arguments)
    try:
        for line in write_pages(load(*options.results), options.root):
            print(line)
    except UnreadableError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
