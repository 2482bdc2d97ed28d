"""``load_interactions``: from a file of interactions to a sparse matrix."""

import gzip
import zlib
from os import PathLike, fspath

import numpy as np

from fastml.datasets._columns import check_chosen
from fastml.datasets._records import check_dtype, to_bunch
from fastml.datasets._text import read_text

_GZIP, _PARQUET, _ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"


def load_interactions(
    path,
    *,
    user=None,
    item=None,
    value=None,
    timestamp=None,
    duplicates="sum",
    user_ids=None,
    item_ids=None,
    delimiter=None,
    header=None,
    encoding="utf-8",
    dtype=np.float32,
):
    """Read interactions, one a line, into a sparse matrix of users x items.

    Text with any delimiter, plain or gzipped, with or without a header, and Parquet files, which need the extra
    ``datasets``. In text, empty lines are left out, blanks around a field do not count, and quotes have their meaning
    where a comma or a semicolon delimits; a quoted field must end on its line.

    Parameters
    ----------
    path : str or path-like
        The file. Its first bytes tell whether it is text, gzip or Parquet.
    user, item : int or str, default=None
        Position of the column, from 0, or its name in the header. ``None`` takes the column with a usual name
        (``user``, ``user_id``, ``userId``, ``item_id``, ``movieId``, ...), else the first that is free.
    value : int, str or False, default=None
        The column of weights or ratings, likewise; a usual name is ``rating``, ``value`` or ``count``. Without such
        a column, or with ``False``, every line counts 1.
    timestamp : int or str, default=None
        The column of times: numbers, or ISO 8601 dates, which become seconds since 1970 (UTC where they name no zone).
        ``None`` reads none.
    duplicates : {"sum", "last", "error"}, default="sum"
        What becomes of several lines of the same user and item: the sum of their values, the value with the
        latest timestamp (without timestamps: the last line), or an error.
    user_ids, item_ids : array-like of shape (n_users,) or (n_items,), default=None
        The ids of rows and columns, in their order, such as those of the training file for the test file. An id that
        is not in them is an error. ``None`` takes all ids in the file, sorted.
    delimiter : str, default=None
        What separates the fields of a line; ``" "`` is any run of blanks. ``None`` looks at the first line: a tab;
        else what is most frequent of ``::``, comma, semicolon and ``|``; else blanks.
    header : bool, default=None
        Whether the first line names the columns. ``None`` says yes where a column is chosen by name, or where no field
        of the line is a number and it either has a usual name of the user, or the next line has numbers as both ids or
        behind them.
    encoding : str, default="utf-8"
        Encoding of the text, one that has ASCII as a part. A byte order mark is left out.
    dtype : {np.float32, np.float64}, default=np.float32
        Type of the values.

    Returns
    -------
    interactions : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : csr_array of shape (n_users, n_items)
            The values, with sorted indices and without duplicates. A value of 0 in the file is stored as a 0.
        user_ids : ndarray of shape (n_users,)
            Ids of the rows: int64 where all of them are integers, otherwise strings. Sorted, or as given.
        item_ids : ndarray of shape (n_items,)
            Ids of the columns.
        timestamps : csr_array of shape (n_users, n_items) or None
            Timestamps, stored as the values are; the latest of duplicates. int64 where all are whole, otherwise
            float64.

    Raises
    ------
    ValueError
        If a line is broken (wrong number of fields, an empty id, a value that is no finite number, bytes of another
        encoding), named by its number; if there are no interactions; if the file is damaged; if an argument is out of
        range.
    TypeError
        If a column is neither a name nor a position.
    OSError
        If the file cannot be read.
    ImportError
        If it is a Parquet file, and pyarrow is missing.

    See Also
    --------
    fetch_movielens : The MovieLens sets, in the same form.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastml.datasets import load_interactions
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "plays.csv")
    ...     _ = path.write_text("user,item,plays\\nmia,jazz,3\\nben,rock,1\\nmia,rock,2\\n")
    ...     plays = load_interactions(path)
    >>> plays.data.toarray()
    array([[0., 1.],
           [3., 2.]], dtype=float32)
    >>> plays.user_ids, plays.item_ids
    (array(['ben', 'mia'], dtype='<U3'), array(['jazz', 'rock'], dtype='<U4'))
    """
    chosen = {"user": user, "item": item, "value": value, "timestamp": timestamp}
    check_chosen(chosen)
    _check_options(path, duplicates, delimiter, header, dtype)
    records = _read(path, chosen, delimiter=delimiter, header=header, encoding=encoding)
    return to_bunch(records, duplicates=duplicates, dtype=dtype, user_ids=user_ids, item_ids=item_ids)


def _check_options(path, duplicates, delimiter, header, dtype):
    if not isinstance(path, str | PathLike):
        raise TypeError(f"path must be a str or path-like, got {type(path).__name__}.")
    if duplicates not in ("sum", "last", "error"):
        raise ValueError(f"duplicates must be 'sum', 'last' or 'error', got {duplicates!r}.")
    if delimiter is not None and (not isinstance(delimiter, str) or delimiter in ("", "\n", "\r", '"')):
        raise ValueError(f"delimiter must be a str such as ',', or None, got {delimiter!r}.")
    if header not in (None, True, False):
        raise ValueError(f"header must be True, False or None, got {header!r}.")
    check_dtype(dtype)


def _read(path, chosen, **options):
    """Records of a file of any kind."""
    name = fspath(path)
    with open(path, "rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if magic == _PARQUET:
            from fastml.datasets._parquet import read_parquet

            return read_parquet(stream, name, chosen)
        if magic == _ZIP:
            raise ValueError(f"{name} is a zip archive: unpack it, and give the file inside.")
        if not magic.startswith(_GZIP):
            return read_text(stream, name, chosen, **options)
        try:
            with gzip.open(stream) as unpacked:
                return read_text(unpacked, name, chosen, **options)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{name} is damaged or cut short: {error}") from error
