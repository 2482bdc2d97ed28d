"""How the pages write numbers: three significant digits, and units that fit."""

import math


def digits(value):
    """Three significant digits, never an exponent: ``0.043``, ``6.31``, ``190``, ``1,240``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 4)}f}"


def ratio(value):
    """How many times as fast: two digits below 10, whole from there."""
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def share(value):
    return f"{100 * value:.0f} %"


def _in_units(value, units):
    factor, name = next((unit for unit in units if abs(value) >= unit[0]), units[-1])
    return f"{digits(value / factor)} {name}"


def seconds(value):
    return _in_units(value, [(1, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")])


def memory(value):
    """Bytes, in powers of 1024."""
    return _in_units(value, [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")])


def count(value):
    """``4,096``, ``65.5k``, ``4.5M``."""
    for factor, name in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * factor or (value >= factor and 10 * value % factor == 0):
            return f"{value / factor:.3g}{name}"
    return f"{value:,}"


def table(header, rows):
    """Lines of a Markdown table."""
    lines = (header, ["---"] * len(header), *rows)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]
