"""Classes drawn at random: uniformly, or with given probabilities, with or without replacement.

Draw j of a step is a function of seed, step and j alone; see ``_random``. An alias table (Walker, 1977) makes a draw of
one of C classes with probabilities q from one random number: C times it is a cell, and a fraction; below the cell's
threshold the fraction stands for the cell's own class, above it for another one, its alias. It is filled in one
sweep that pairs light cells (C q <= 1) with heavy ones (Hübschle-Schneider & Sanders, *Parallel weighted random
sampling*, 2019, section 4.1).

Without replacement means that a class which was drawn before is drawn again, until m are different. That is the order
in which independent exponential times with rates q end: hence ``race``, whose work has a bound where few classes, or
only improbable ones, are left over.
"""

import numpy as np

from fastml.kernels._jit import kernel, point
from fastml.kernels._math import log
from fastml.kernels._random import key_of, random_bits, scaled

_TILE = 256  # draws that are made side by side
_12, _FULL = np.uint64(12), np.uint64(2**64 - 1)


@point
def fixed(share):
    """A share of a cell in units of 2^-64."""
    return np.uint64(share * 2.0**64) if share < 1.0 else _FULL


@point
def next_cell(probability, cell, heavy):
    """The first cell from ``cell`` on that is heavy, or light; C where there is none."""
    n = probability.shape[0]
    while cell < n and (probability[cell] * n > 1.0) != heavy:
        cell += 1
    return cell


@kernel
def fill_alias_table(probability, top, table):
    """Thresholds and aliases, ``table`` (C, 2) uint64, for ``probability`` (C,); ``top`` is the most probable class.

    Rounding may leave cells without a partner. They keep their own thresholds, and the rest of them, a rounding error,
    goes to ``top``: a class of probability 0 is never drawn.
    """
    n = probability.shape[0]
    for i in range(n):
        table[i, 0], table[i, 1] = fixed(probability[i] * n), np.uint64(top)
    light, heavy = next_cell(probability, 0, False), next_cell(probability, 0, True)
    left = probability[heavy] * n if heavy < n else 0.0  # of the heavy cell's class, to give away
    while heavy < n:
        if left > 1.0:
            if light == n:
                break
            table[light, 1] = np.uint64(heavy)
            left -= 1.0 - probability[light] * n
            light = next_cell(probability, light + 1, False)
        else:
            following = next_cell(probability, heavy + 1, True)
            table[heavy, 0] = fixed(left)
            if following < n:
                table[heavy, 1] = np.uint64(following)
                left -= 1.0 - probability[following] * n
            heavy = following


@kernel
def draw_uniform(start, stop, seed, step, first, n_classes, ids):
    """``ids`` (m,) of classes that are equally probable; the first one is draw number ``first`` of the step."""
    key = key_of(seed, step)
    for j in range(start, stop):
        ids[j] = scaled(random_bits(key, first + j), n_classes)[0]


@kernel
def draw_alias(start, stop, seed, step, first, table, ids):
    """``ids`` (m,) of classes with the probabilities of ``table`` (C, 2); the first one is draw number ``first``."""
    key, n = key_of(seed, step), table.shape[0]
    fractions, aliases = np.empty(_TILE, np.uint64), np.empty(_TILE, np.uint64)
    for begin in range(start, stop, _TILE):
        tile = ids[begin : min(begin + _TILE, stop)]
        # Three loops that vectorise; one alone would get a branch, and guess it wrong every other time.
        for j in range(tile.shape[0]):
            tile[j], fractions[j] = scaled(random_bits(key, first + begin + j), n)
        for j in range(tile.shape[0]):
            cell = np.uint64(tile[j])
            fractions[j], aliases[j] = np.uint64(fractions[j] < table[cell, 0]), table[cell, 1]
        for j in range(tile.shape[0]):
            tile[j] = tile[j] if fractions[j] else aliases[j]


@kernel
def keep_new(n_kept, draws, seen, ids):
    """Append the draws that are not yet ``seen`` (C,) to ``ids[:n_kept]`` until it is full; returns how many it has."""
    for j in range(draws.shape[0]):
        if n_kept == ids.shape[0]:
            break
        ids[n_kept] = draws[j]
        n_kept += not seen[draws[j]]
        seen[draws[j]] = True
    return n_kept


@kernel
def race(start, stop, seed, step, log_probability, arrival):
    """Logarithms (C,) of independent exponential times with rates exp(``log_probability``); infinity at rate 0."""
    key = key_of(seed, step)
    for i in range(start, stop):
        share = (np.float64(random_bits(key, i) >> _12) + 0.5) * 2.0**-52  # in (0, 1)
        arrival[i] = log(-log(share)) - log_probability[i]
