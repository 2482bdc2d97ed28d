"""What a reader hands over, and how it becomes a matrix of users x items."""

import re
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.utils import Bunch

_INTEGER = re.compile("0|-?[1-9][0-9]{0,17}")  # written in one way only, and in the range of int64


class Records(NamedTuple):
    """One interaction an entry.

    ``users`` (n,) are positions in ``user_ids``, which has each id once, in any order; the items likewise. ``values``
    and ``timestamps`` (n,) are float64, or None.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    values: np.ndarray | None
    timestamps: np.ndarray | None


def check_dtype(dtype):
    """Raise ValueError for a type of values that is neither float32 nor float64."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}.")


def id_array(names):
    """int64 where all of these strings are integers as Python writes them, otherwise strings: 007 stays 007."""
    return np.array(names, np.int64 if all(map(_INTEGER.fullmatch, names)) else np.str_)


def _sorted_ids(codes, ids):
    order = np.argsort(ids)
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return rank[codes], ids[order]


def _known_ids(codes, ids, known, role):
    """Codes by the position of each id in ``known``; ids are the same where they read the same."""
    known = np.asarray(known)
    if known.ndim != 1:
        raise ValueError(f"{role}_ids must be one-dimensional, got shape {known.shape}.")
    position = {str(name): i for i, name in enumerate(known.tolist())}
    if len(position) < len(known):
        raise ValueError(f"{role}_ids has duplicates: each id must be there once.")
    unknown = [name for name in ids.tolist() if str(name) not in position]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ValueError(f"the {role} {unknown[0]!r}{more} is not in {role}_ids: leave {role}_ids out to map all.")
    return np.array([position[str(name)] for name in ids.tolist()], np.int64)[codes], known


def _mapped(codes, ids, known, role):
    return _sorted_ids(codes, ids) if known is None else _known_ids(codes, ids, known, role)


def _whole(numbers):
    """int64 where nothing is lost, as with Unix times."""
    whole = np.abs(numbers).max(initial=0) < 2**53 and (numbers == np.floor(numbers)).all()
    return numbers.astype(np.int64) if whole else numbers


def to_bunch(records, *, duplicates, dtype, user_ids=None, item_ids=None):
    """The ``Bunch`` of ``load_interactions``, whose parameters these are.

    Raises
    ------
    ValueError
        For duplicates where they are an error, ids that are not in the given ones, values beyond ``dtype``.
    """
    users, user_ids = _mapped(records.users, records.user_ids, user_ids, "user")
    items, item_ids = _mapped(records.items, records.item_ids, item_ids, "item")
    shape = len(user_ids), len(item_ids)
    keys, times = users * shape[1] + items, records.timestamps
    order = np.argsort(keys, kind="stable") if times is None else np.lexsort((times, keys))  # the latest comes last
    keys = keys[order]
    begins = np.flatnonzero(np.diff(keys, prepend=-1))
    ends = np.append(begins[1:], len(keys)) - 1
    rows, columns = np.divmod(keys[begins], shape[1])
    if duplicates == "error" and len(begins) < len(keys):
        k = int(np.argmax(ends > begins))
        raise ValueError(
            f"user {user_ids[rows[k]]} and item {item_ids[columns[k]]} come {ends[k] - begins[k] + 1} times, and there "
            f"are {len(keys) - len(begins)} repetitions in all: choose duplicates='sum' or 'last'."
        )
    index_type = np.int64 if max(len(begins), *shape) > np.iinfo(np.int32).max else np.int32
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=shape[0]))).astype(index_type)

    def matrix(values):  # each with arrays of its own, as some methods of SciPy change them
        return csr_array((values, columns.astype(index_type), indptr.copy()), shape=shape)

    data = matrix(_combined(records.values, order, begins, ends, duplicates, dtype))
    timestamps = None if times is None else matrix(_whole(times)[order[ends]])
    return Bunch(data=data, user_ids=user_ids, item_ids=item_ids, timestamps=timestamps)


def _combined(values, order, begins, ends, duplicates, dtype):
    """One value for the entries ``begins..ends`` of ``order``."""
    if values is None:
        counts = ends - begins + 1 if duplicates == "sum" else np.ones(len(begins))
        return counts.astype(dtype)
    values = values[order]
    values = np.add.reduceat(values, begins) if duplicates == "sum" else values[ends]
    largest = np.abs(values).max(initial=0)
    if largest > np.finfo(dtype).max:
        raise ValueError(f"a value of {largest:g} is beyond {np.dtype(dtype).name}: give dtype=np.float64, or scale.")
    return values.astype(dtype)
