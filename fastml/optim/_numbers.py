"""Numbers among the parameters of optimizers and schedules."""

import math
from numbers import Integral, Real

_INTERVALS = {
    "[0, 1)": (0, 1),
    "(0, 1)": (math.ulp(0.0), 1),
    "(0, 1]": (math.ulp(0.0), math.nextafter(1, 2)),
    "[0, inf)": (0, math.inf),
    "(0, inf)": (math.ulp(0.0), math.inf),
    "[1, inf)": (1, math.inf),
}


def check_number(owner, name, interval, integer=False):
    """Raise unless this parameter of ``owner`` is a number in the interval; the message names it."""
    value, kind, what = (
        getattr(owner, name),
        Integral if integer else Real,
        "an integer" if integer else "a real number",
    )
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} of {owner!r} must be {what}, got {value!r}.")
    least, bound = _INTERVALS[interval]
    if not least <= value < bound:
        raise ValueError(f"{name} of {owner!r} must be in {interval}, got {value!r}.")
