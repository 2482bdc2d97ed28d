"""The pictures of the page on speed. matplotlib is imported where it is used: the tables do not need it."""

import math

import numpy as np

from benchmarks import _format
from benchmarks._results import FASTML

_LABELS = {"numpy": "NumPy"}
_COLUMNS = 3
_SHOWN = 150  # dots an inch
_NEAR = 0.35, 0.09  # decades between points, along and up, whose numbers would overlap


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _limits(axes, machine, low, high):
    """What the machine allows: bandwidth times operations a byte, up to the rate of sgemm."""
    bandwidth, sgemm = machine["triad"], machine["sgemm"]
    x = np.geomspace(low, high, 200)
    axes.plot(x, np.minimum(bandwidth * x, sgemm), color="black", linewidth=1.5)
    text = {"textcoords": "offset points", "fontsize": 9}
    middle = math.sqrt(low * sgemm / bandwidth)
    axes.annotate(f"triad {bandwidth:.0f} GB/s", (middle, bandwidth * middle), xytext=(-6, 8), ha="right", **text)
    axes.annotate(f"sgemm {sgemm:.0f} GFLOP/s", (sgemm / bandwidth, sgemm), xytext=(0, 6), **text)


def _number_points(axes, points):
    """Numbers beside the points; those of points that nearly coincide stand together, beside the last of them."""
    clusters = []
    for number, point in sorted(points.items(), key=lambda item: item[1]):
        for cluster in clusters:
            first = points[cluster[0]]
            if all(abs(math.log10(a / b)) < near for a, b, near in zip(first, point, _NEAR, strict=True)):
                cluster.append(number)
                break
        else:
            clusters.append([number])
    for cluster in clusters:
        text = ", ".join(map(str, sorted(cluster)))
        offset = {"xytext": (6, -4), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, points[cluster[-1]], fontsize=8, color="tab:blue", zorder=4, **offset)


def roofline(path, machine, rows):
    """Achieved GFLOP/s against operations a byte; ``rows`` are (name, entries of a group), one for each number."""
    figure = _figure(11, max(6, 0.5 + len(rows) / 6))
    axes, key = figure.subplots(1, 2, width_ratios=[3, 2])
    points, lines = {}, []
    for number, (name, ours, theirs) in enumerate(rows, start=1):
        x = ours.facts["flops"] / ours.facts["bytes"]
        points[number] = x, ours.facts["gigaflops"]
        lines.append(f"{number:>2}  {_format.share(ours.facts['share_of_limit']):>6}  {name}")
        if theirs is not None:
            heights = [theirs.facts["gigaflops"], ours.facts["gigaflops"]]
            axes.plot([x, x], heights, color="lightgray", linewidth=1, zorder=1)
            axes.scatter(x, heights[0], facecolors="white", edgecolors="tab:gray", s=28, zorder=2)
    intensities = [x for x, _ in points.values()]
    axes.scatter(*zip(*points.values(), strict=True), color="tab:blue", s=28, zorder=3, label="fastml")
    axes.scatter([], [], facecolors="white", edgecolors="tab:gray", s=28, label="NumPy")
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s")
    _limits(axes, machine, min(intensities) / 2, 5 * max(intensities))
    _number_points(axes, points)
    axes.legend(loc="lower right")
    key.axis("off")
    heading = " #   share  of the limit, fastml"
    key.text(0, 1, "\n".join([heading, *lines]), family="monospace", fontsize=8, va="top", linespacing=1.5)
    figure.savefig(path, dpi=_SHOWN)


def _draw_growth(axes, facts):
    """Seconds against size, both logarithmic; dotted: in proportion, through the last point of fastml."""
    from matplotlib.ticker import LogLocator

    sizes = facts["values"]
    for name, seconds in facts["seconds"].items():
        axes.plot(sizes, seconds, marker="o", markersize=4, label=_LABELS.get(name, name))
    last = facts["seconds"].get(FASTML, seconds)[-1]
    axes.plot(sizes, [last * size / sizes[-1] for size in sizes], ":", color="gray", zorder=1)
    axes.set(xscale="log", yscale="log", ylabel="time")
    every = [value for seconds in facts["seconds"].values() for value in seconds]
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if max(every) > 30 * min(every) else (1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: _format.seconds(value).replace(".00", "").replace(".0 ", " "))


def _draw_threads(axes, facts):
    """Times as fast as one thread; dotted: as many times as there are threads."""
    threads = facts["values"]
    for name, seconds in facts["seconds"].items():
        axes.plot(threads, [seconds[0] / value for value in seconds], marker="o", markersize=4, label=name)
    axes.plot(threads, threads, ":", color="gray", zorder=1)
    axes.set(ylabel="times as fast as one thread", ylim=(0, None))


def scaling(path, curves):
    """A panel for each curve."""
    n_rows = -(-len(curves) // _COLUMNS)
    figure = _figure(4 * _COLUMNS, 3.4 * n_rows)
    panels = figure.subplots(n_rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels[len(curves) :]:
        axes.axis("off")
    for axes, (name, facts) in zip(panels, curves.items(), strict=False):
        (_draw_threads if facts["axis"] == "threads" else _draw_growth)(axes, facts)
        axes.set_xticks(facts["values"], [_format.count(value) for value in facts["values"]])
        axes.minorticks_off()
        label = f"{facts['axis']} ({facts['fixed']})" if facts["fixed"] else facts["axis"]
        axes.set_xlabel(label, fontsize=9)
        axes.set_title(name, fontsize=9)
        if len(facts["seconds"]) > 1:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=_SHOWN)
