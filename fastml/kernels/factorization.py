"""Matrix factorization on pairs: batches of interactions, their negatives, and steps on the rows that they touch.

The logit of user u and item i is ``z_i = w_u . h_i``. An interaction of weight c with item i and negatives j has

- BPR's loss ``c mean_j log1p_exp(z_j - z_i)`` (Rendle et al., UAI 2009), or
- that of negative sampling, ``c (log1p_exp(-z_i) + sum_j log1p_exp(z_j))`` (Mikolov et al., NeurIPS 2013),

and both add ``c / 2 (ridge_u |w_u|^2 + ridge_i |h_i|^2)``. A step sums the gradients of a batch for each row that
occurs, and updates each row once: first the users, whose old rows are kept, then the items by these. A row is one
task's, and its sum has the order of the batch, so that the bits do not depend on threads.

Slot ``e * n_columns + t`` is column t of the batch's interaction e: column 0 is its item, the others are negatives.
"""

from typing import NamedTuple

import numpy as np

from fastml.kernels._denormals import flush_denormals, restore
from fastml.kernels._jit import uncounted_kernel, uncounted_point
from fastml.kernels._math import log1p_exp, sigmoid
from fastml.kernels._random import key_of, random_bits, scaled
from fastml.kernels._rows import add_scaled, copy, dot, fill
from fastml.kernels._rules import coefficients, take_step
from fastml.kernels._team import claim, complete

BPR, NEGATIVE_SAMPLING = range(2)  # what ``kind`` may be

_TRIES = 16  # draws of a negative until the next item by id is taken that the user has not
_TILE = 32  # users whose logits are made side by side
_SHARES = 16  # tasks that the rows of a step are shared out in
_DIGITS = 256  # of the radix sort
_32, _ONE = np.uint64(32), np.uint64(1)
_LOW, _LAST = np.uint64(0xFFFFFFFF), np.uint64(0xFF)


class Interactions(NamedTuple):
    """Users x items as CSR; ``users`` (n,) and ``weights`` (n,) of the entries."""

    indptr: np.ndarray
    indices: np.ndarray
    users: np.ndarray
    weights: np.ndarray
    n_items: int
    n_halvings: int  # that leave one entry of the longest row


class Batch(NamedTuple):
    """Interactions by user, and their slots by item.

    ``entries`` (n,) are places in X, ``items`` (n, 1 + m) the items of the slots, ``weights`` (n,) those of the
    entries, ``place`` (n,) says which of the batch's users each is of. ``users`` and ``user_starts`` are the different
    users and where their interactions begin; ``slots`` (n (1 + m),) is sorted by item, with ``rows`` and ``row_starts``
    alike.
    """

    entries: np.ndarray
    items: np.ndarray
    weights: np.ndarray
    place: np.ndarray
    users: np.ndarray
    user_starts: np.ndarray
    slots: np.ndarray
    rows: np.ndarray
    row_starts: np.ndarray


class Table(NamedTuple):
    """Factors (n, f), the optimizer's moments, which have no columns where it has none, and the ridge (n,)."""

    rows: np.ndarray
    first: np.ndarray
    second: np.ndarray
    ridge: np.ndarray


class Step(NamedTuple):
    """The loss and the rule of an update; see ``_rules``."""

    kind: int
    rule: int
    rate: float
    number: float
    hyper: np.ndarray


class Work(NamedTuple):
    """What the users' half of a step leaves for the items': derivatives by logit (n, 1 + m), the users' old rows."""

    slopes: np.ndarray
    old: np.ndarray
    losses: np.ndarray  # (n,), float64


class Stretch(NamedTuple):
    """Some batches that are prepared at once: ``order`` and ``pool`` of all, and for each what a ``Batch`` holds."""

    order: np.ndarray
    pool: np.ndarray
    items: np.ndarray  # (batches, n, 1 + m)
    weights: np.ndarray
    place: np.ndarray
    users: np.ndarray
    user_starts: np.ndarray
    slots: np.ndarray
    rows: np.ndarray
    row_starts: np.ndarray
    counts: np.ndarray  # (batches, 2): different users and items


class Plan(NamedTuple):
    """What is drawn, and how far each step goes."""

    seed: int
    number: int  # of the first batch, in a fit
    bits: int  # that the number of an item may have
    kind: int
    rule: int
    hyper: np.ndarray
    rates: np.ndarray  # (steps, 2): learning rate and number of each, from 1 on
    losses: np.ndarray  # (steps,): takes the sum of the losses of each


class Scratch(NamedTuple):
    """Of each thread: keys to sort (2, slots and digits), and a row's gradient (f,)."""

    keys: np.ndarray
    grad: np.ndarray


@uncounted_kernel
def shuffle(seed, epoch, size, batch, ends, order):
    """``order`` (n,): the entries batch by batch of ``size``, ascending in each; scratch ``batch`` (n,), ``ends``."""
    n, key = batch.shape[0], key_of(seed, epoch)
    for e in range(n):
        batch[e] = e // size
    for e in range(n - 1, 0, -1):  # Fisher and Yates
        other = scaled(random_bits(key, e), e + 1)[0]
        batch[e], batch[other] = batch[other], batch[e]
    for b in range(ends.shape[0]):
        ends[b] = b * size
    for e in range(n):
        order[ends[batch[e]]] = e
        ends[batch[e]] += 1


@uncounted_point
def contains(row, value, n_halvings):
    """Whether the sorted row has the value: as many halvings for any row, so that no branch can be guessed wrong."""
    start, n = 0, row.shape[0]
    for _ in range(n_halvings):
        half = n >> 1
        start = start + half if row[start + half] <= value else start
        n -= half
    return row[start] == value


@uncounted_point
def unseen(row, pool, slot, key, interactions):
    """A draw that is not in the row: the slot's own, or others of the pool, or what follows on the last of them."""
    item = pool[slot]
    for attempt in range(_TRIES):
        if not contains(row, item, interactions.n_halvings):
            return item
        item = pool[scaled(random_bits(key, slot * _TRIES + attempt), pool.shape[0])[0]]
    while contains(row, item, interactions.n_halvings):
        item = item + 1 if item + 1 < interactions.n_items else 0
    return item


@uncounted_point
def sort_by_digit(source, target, counts, shift):
    """``target``: the keys by eight bits of them, equal ones in their order; scratch ``counts`` (256,)."""
    for digit in range(_DIGITS):
        counts[digit] = 0
    for k in range(source.shape[0]):
        counts[(source[k] >> shift) & _LAST] += _ONE
    place = _ONE - _ONE
    for digit in range(_DIGITS):
        place, counts[digit] = place + counts[digit], place
    for k in range(source.shape[0]):
        digit = (source[k] >> shift) & _LAST
        target[counts[digit]] = source[k]
        counts[digit] += _ONE


@uncounted_point
def group_users(interactions, batch):
    """Fill ``place``, ``users`` and ``user_starts``; returns how many users there are."""
    n_users = 0
    for e in range(batch.entries.shape[0]):
        user = interactions.users[batch.entries[e]]
        if e == 0 or user != batch.users[n_users - 1]:
            batch.users[n_users], batch.user_starts[n_users] = user, e
            n_users += 1
        batch.place[e] = n_users - 1
    batch.user_starts[n_users] = batch.entries.shape[0]
    return n_users


@uncounted_point
def draw_negatives(interactions, pool, key, n_users, batch, seen):
    """Fill the items of all columns but the first.

    Rows of users lie far apart. A loop that only reads an entry of each, to scratch ``seen``, waits for many at a time,
    where searches, one after the other, would wait for each.
    """
    indptr, n_negatives = interactions.indptr, batch.items.shape[1] - 1
    for k in range(n_users):
        user = batch.users[k]
        seen[k] = interactions.indices[(indptr[user] + indptr[user + 1]) >> 1]
    for e in range(batch.entries.shape[0]):
        user = batch.users[batch.place[e]]
        row = interactions.indices[indptr[user] : indptr[user + 1]]
        for t in range(n_negatives):
            batch.items[e, 1 + t] = unseen(row, pool, e * n_negatives + t, key, interactions)


@uncounted_point
def group_items(batch, bits, keys, spare):
    """Fill ``slots``, ``rows`` and ``row_starts``; returns how many items there are."""
    n, width = batch.items.shape
    for e in range(n):
        for t in range(width):
            keys[e * width + t] = np.uint64(batch.items[e, t]) << _32 | np.uint64(e * width + t)
    found, other, counts, n_rows = keys[: n * width], spare[: n * width], spare[n * width :], 0
    for bit in range(0, bits, 16):
        sort_by_digit(found, other, counts, _32 + np.uint64(bit))
        sort_by_digit(other, found, counts, _32 + np.uint64(bit + 8))
    for k in range(n * width):
        item = np.int64(found[k] >> _32)
        batch.slots[k] = np.int64(found[k] & _LOW)
        if k == 0 or item != batch.rows[n_rows - 1]:
            batch.rows[n_rows], batch.row_starts[n_rows] = item, k
            n_rows += 1
    batch.row_starts[n_rows] = n * width
    return n_rows


@uncounted_point
def prepare(interactions, pool, seed, number, bits, batch, keys, spare, counts):
    """Fill what follows from the entries of a batch, the ``number``-th of a fit; ``counts`` (2,): users and items.

    ``pool`` (n m,) has a draw for each negative; another one is taken where the user has the item. Items have so many
    ``bits``; scratch ``keys`` and ``spare``.
    """
    for e in range(batch.entries.shape[0]):
        entry = batch.entries[e]
        batch.items[e, 0], batch.weights[e] = interactions.indices[entry], interactions.weights[entry]
    counts[0] = group_users(interactions, batch)
    draw_negatives(interactions, pool, key_of(seed, number), counts[0], batch, keys)
    counts[1] = group_items(batch, bits, keys, spare)


@uncounted_point
def pair_slopes(kind, weights, z, losses):
    """Losses (n,) of interactions with logits ``z`` (n, 1 + m), which become their derivatives."""
    n, width, zero = z.shape[0], z.shape[1], z.dtype.type(0)
    share = z.dtype.type(1 / (width - 1)) if kind == BPR else z.dtype.type(1)
    for e in range(n):
        losses[e] = 0.0
    for t in range(1, width):  # loops over the interactions vectorise
        for e in range(n):
            margin = z[e, t] - (z[e, 0] if kind == BPR else zero)
            losses[e] += share * log1p_exp(margin)
            z[e, t] = share * weights[e] * sigmoid(margin)
    for e in range(n):
        own = z[e, 0]
        losses[e] = weights[e] * (losses[e] + (zero if kind == BPR else log1p_exp(-own)))
        z[e, 0] = zero if kind == BPR else -weights[e] * sigmoid(-own)
    if kind == BPR:
        for e in range(n):
            for t in range(1, width):
                z[e, 0] -= z[e, t]


@uncounted_point
def user_logits(first, last, batch, users, items, slopes):
    """Logits of the interactions of some of a batch's users."""
    for k in range(first, last):
        w = users.rows[batch.users[k]]
        for e in range(batch.user_starts[k], batch.user_starts[k + 1]):
            for t in range(slopes.shape[1]):
                slopes[e, t] = dot(w, items.rows[batch.items[e, t]])


@uncounted_point
def step_users(start, stop, batch, users, items, step, work, grad):
    """Update users start..stop of a batch, and fill their part of ``work``; scratch ``grad`` (f,)."""
    real = grad.dtype.type
    constants = coefficients(step.rule, step.rate, step.number, step.hyper, real(0))
    for first in range(start, stop, _TILE):
        last = min(first + _TILE, stop)
        user_logits(first, last, batch, users, items, work.slopes)
        begin, end = batch.user_starts[first], batch.user_starts[last]
        pair_slopes(step.kind, batch.weights[begin:end], work.slopes[begin:end], work.losses[begin:end])
        for k in range(first, last):
            u, total = batch.users[k], real(0)
            fill(grad, 0)
            for e in range(batch.user_starts[k], batch.user_starts[k + 1]):
                total += batch.weights[e]
                for t in range(work.slopes.shape[1]):
                    add_scaled(grad, work.slopes[e, t], items.rows[batch.items[e, t]])
            w = users.rows[u]
            add_scaled(grad, users.ridge[u] * total, w)
            copy(work.old[k], w)
            take_step(step.rule, w, grad, users.first[u], users.second[u], constants, real(1))


@uncounted_point
def step_items(start, stop, batch, items, step, work, grad):
    """Update items start..stop of a batch, after all of its users; scratch ``grad`` (f,)."""
    real, width = grad.dtype.type, batch.items.shape[1]
    constants = coefficients(step.rule, step.rate, step.number, step.hyper, real(0))
    for k in range(start, stop):
        i, total = batch.rows[k], real(0)
        fill(grad, 0)
        for p in range(batch.row_starts[k], batch.row_starts[k + 1]):
            e, t = batch.slots[p] // width, batch.slots[p] % width
            add_scaled(grad, work.slopes[e, t], work.old[batch.place[e]])
            total += batch.weights[e] if t == 0 else real(0)
        add_scaled(grad, items.ridge[i] * total, items.rows[i])
        take_step(step.rule, items.rows[i], grad, items.first[i], items.second[i], constants, real(1))


@uncounted_point
def _batch(b, stretch):
    """The b-th batch of the stretch."""
    size = stretch.place.shape[1]
    entries = stretch.order[b * size : (b + 1) * size]
    users = stretch.place[b], stretch.users[b], stretch.user_starts[b]
    items = stretch.slots[b], stretch.rows[b], stretch.row_starts[b]
    return Batch(entries, stretch.items[b, : entries.shape[0]], stretch.weights[b], *users, *items)


@uncounted_point
def _prepare_all(phase, board, plan, interactions, stretch, keys):
    """Every batch of the stretch is a task."""
    size, n_negatives = stretch.place.shape[1], stretch.items.shape[2] - 1
    n_batches = (stretch.order.shape[0] + size - 1) // size
    b = claim(board, phase, n_batches)
    while b >= 0:
        pool = stretch.pool[b * size * n_negatives : (b + 1) * size * n_negatives]
        scratch = keys[0], keys[1], stretch.counts[b]
        prepare(interactions, pool, plan.seed, plan.number + b, plan.bits, _batch(b, stretch), *scratch)
        complete(board, phase, n_batches)
        b = claim(board, phase, n_batches)


@uncounted_kernel
def steps(slot, board, plan, interactions, stretch, users, items, work, scratch):
    """Prepare the batches of a stretch and take the steps that ``plan`` has, with the other threads at this ``board``.

    ``slot`` is the place of this thread in ``scratch``.
    """
    mode, phase, grad = flush_denormals(), slot - slot, scratch.grad[slot]
    _prepare_all(phase, board, plan, interactions, stretch, scratch.keys[slot])
    for b in range(plan.rates.shape[0]):
        batch, step = _batch(b, stretch), Step(plan.kind, plan.rule, plan.rates[b, 0], plan.rates[b, 1], plan.hyper)
        for half in range(2):
            phase += 1
            n_rows = stretch.counts[b, half]
            n_tasks = min(_SHARES, n_rows)
            task = claim(board, phase, n_tasks)
            while task >= 0:
                start, stop = n_rows * task // n_tasks, n_rows * (task + 1) // n_tasks
                if half == 0:
                    step_users(start, stop, batch, users, items, step, work, grad)
                else:
                    step_items(start, stop, batch, items, step, work, grad)
                    if task == 0:
                        plan.losses[b] = 0
                        for e in range(batch.entries.shape[0]):
                            plan.losses[b] += work.losses[e]
                complete(board, phase, n_tasks)
                task = claim(board, phase, n_tasks)
    restore(mode)
