"""Columns of a Parquet file, through pyarrow."""

import numpy as np

from fastml._optional import require
from fastml.datasets._columns import find_columns
from fastml.datasets._records import Records

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def read_parquet(stream, name, chosen):
    """Records of a Parquet file; ``chosen`` as in ``find_columns``.

    Raises
    ------
    ImportError
        If pyarrow is missing.
    ValueError
        If the file is damaged or empty, or a column has missing values or another type than expected.
    """
    require("pyarrow.parquet", extra="datasets", feature=f"Reading {name}")
    columns = _columns(stream, name, chosen)
    users, user_ids = _coded(*columns["user"])
    items, item_ids = _coded(*columns["item"])
    if not len(users):
        raise ValueError(f"{name} has no interactions: it is empty.")
    values, timestamps = (columns[role] and _numbers(*columns[role]) for role in ("value", "timestamp"))
    return Records(users, items, user_ids, item_ids, values, timestamps)


def _columns(stream, name, chosen):
    """For each role None, or its column and what to call it in an error."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(stream)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is a damaged Parquet file: {error}") from error
    try:
        found = {role: None if c is None else names[c] for role, c in find_columns(chosen, len(names), names).items()}
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    try:
        table = file.read(columns=list(filter(None, found.values())))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is a damaged Parquet file: {error}") from error
    return {
        role: None if column is None else (_complete(table[column], where := f"{name}, column {column!r}"), where)
        for role, column in found.items()
    }


def _complete(column, where):
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise ValueError(f"{where} has {column.null_count} missing values, the first in row {row}.")
    return column


def _coded(column, where):
    """Codes (n,) and the ids that they stand for, in the order they come."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not is_text and not pa.types.is_integer(column.type):
        raise ValueError(f"{where} must be integers or strings to be ids, got {column.type}.")
    unique = column.unique()
    codes = compute.index_in(column, value_set=unique).to_numpy()
    ids = unique.to_pylist()
    if is_text and "" in ids:
        raise ValueError(f"{where} has an empty id, the first in row {np.flatnonzero(codes == ids.index(''))[0]}.")
    return codes, np.array(ids, np.str_ if is_text else None)


def _numbers(column, where):
    """float64 (n,); times in seconds since 1970."""
    import pyarrow as pa

    scale = 1
    if pa.types.is_timestamp(column.type):
        scale, column = _PER_SECOND[column.type.unit], column.cast(pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise ValueError(f"{where} must be numbers, got {column.type}.")
    numbers = column.cast(pa.float64(), safe=False).to_numpy() / scale
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where} is not finite in row {np.flatnonzero(~np.isfinite(numbers))[0]}.")
    return numbers
