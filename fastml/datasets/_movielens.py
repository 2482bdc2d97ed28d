"""``fetch_movielens``: the ratings of the MovieLens sets."""

import warnings
import zipfile
import zlib
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastml.datasets._download import download, md5
from fastml.datasets._records import check_dtype, to_bunch
from fastml.datasets._text import read_text

_BASE_URL = "https://files.grouplens.org/datasets/movielens/"


class _Variant(NamedTuple):
    archive: str
    checksum: str | None  # None: the set is made anew from time to time
    ratings: str  # member of the archive
    titles: str
    encoding: str = "utf-8"


_VARIANTS = {
    "100k": _Variant("ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", "ml-100k/u.data", "ml-100k/u.item", "latin-1"),
    "1m": _Variant("ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", "ml-1m/ratings.dat", "ml-1m/movies.dat", "latin-1"),
    "10m": _Variant(
        "ml-10m.zip", "ce571fd55effeba0271552578f2648bd", "ml-10M100K/ratings.dat", "ml-10M100K/movies.dat"
    ),
    "20m": _Variant("ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", "ml-20m/ratings.csv", "ml-20m/movies.csv"),
    "25m": _Variant("ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada", "ml-25m/ratings.csv", "ml-25m/movies.csv"),
    "32m": _Variant("ml-32m.zip", "d472be332d4daa821edc399621853b57", "ml-32m/ratings.csv", "ml-32m/movies.csv"),
    "latest-small": _Variant("ml-latest-small.zip", None, "ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"),
}
_DESCR = """\
MovieLens {variant}: {n_ratings} ratings of {n_items} movies by {n_users} users, collected by GroupLens Research at
the University of Minnesota (https://grouplens.org/datasets/movielens/). Free to use for research; the README in the
archive has the terms, among them not to redistribute the data or to use it for revenue without permission. Cite
F. M. Harper and J. A. Konstan, "The MovieLens datasets: history and context", ACM Transactions on Interactive
Intelligent Systems 5(4), 2015, https://doi.org/10.1145/2827872.
"""


def fetch_movielens(
    variant,
    *,
    data_home=None,
    download_if_missing=True,
    timestamps=False,
    dtype=np.float32,
    n_retries=3,
    delay=1.0,
):
    """Load the ratings of a MovieLens set, fetched from GroupLens the first time.

    ================  ===========  ==========  ==========  ================
    variant           ratings      users       movies      scale
    ================  ===========  ==========  ==========  ================
    ``100k``          100,000      943         1,682       1, 2, ... 5
    ``1m``            1,000,209    6,040       3,706       1, 2, ... 5
    ``10m``           10,000,054   69,878      10,677      0.5, 1, ... 5
    ``20m``           20,000,263   138,493     26,744      0.5, 1, ... 5
    ``25m``           25,000,095   162,541     59,047      0.5, 1, ... 5
    ``32m``           32,000,204   200,948     <= 87,585   0.5, 1, ... 5
    ``latest-small``  changes      changes     changes     0.5, 1, ... 5
    ================  ===========  ==========  ==========  ================

    Parameters
    ----------
    variant : {"100k", "1m", "10m", "20m", "25m", "32m", "latest-small"}
        Which set. All but the last are fixed, and their archives are checked against a known checksum.
    data_home : str or path-like, default=None
        Where to keep the archive, in the folder ``movielens``. ``None`` is scikit-learn's data home, by default
        ``~/scikit_learn_data``.
    download_if_missing : bool, default=True
        If False, raise an OSError where the archive is not there yet.
    timestamps : bool, default=False
        Whether to read when each rating was given.
    dtype : {np.float32, np.float64}, default=np.float32
        Type of the ratings.
    n_retries : int, default=3
        How many times to try again where the download breaks. It goes on where it was, also in a later call.
    delay : float, default=1.0
        Seconds between attempts.

    Returns
    -------
    movielens : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : csr_array of shape (n_users, n_items)
            The ratings.
        user_ids : ndarray of int64 of shape (n_users,)
            MovieLens's number of the user of each row, ascending.
        item_ids : ndarray of int64 of shape (n_items,)
            MovieLens's number of the movie of each column, ascending. Movies without a rating have no column.
        item_names : ndarray of str of shape (n_items,)
            Title and year of each movie, not always unique.
        timestamps : csr_array of int64 of shape (n_users, n_items) or None
            Seconds since 1970, stored as the ratings are.
        DESCR : str
            Source, terms and citation.

    Raises
    ------
    ValueError
        If there is no such variant, or another argument is out of range.
    OSError
        If the archive is not there and cannot be fetched, or is damaged.

    See Also
    --------
    load_interactions : The same from a file of one's own.

    Notes
    -----
    The sets are free to use for research under the terms in the README of their archives, which forbid, without
    permission, redistribution and commercial use. Publications cite [1]_. Only the files of ratings and titles are
    read, and nothing is unpacked to the disk. Archives fetched by hand are found where they lie in the folder
    ``movielens``.

    References
    ----------
    .. [1] F. M. Harper, J. A. Konstan, "The MovieLens datasets: history and context", ACM Transactions on Interactive
       Intelligent Systems 5(4), article 19, 2015. https://doi.org/10.1145/2827872

    Examples
    --------
    >>> from fastml.datasets import fetch_movielens
    >>> movielens = fetch_movielens("100k")  # doctest: +SKIP
    >>> movielens.data.shape  # doctest: +SKIP
    (943, 1682)
    """
    _check_options(variant, n_retries, delay, dtype)
    path = _archive(_VARIANTS[variant], data_home, download_if_missing, n_retries, delay)
    ratings, titles = _read_archive(path, _VARIANTS[variant], timestamps)
    bunch = to_bunch(ratings, duplicates="last", dtype=dtype)
    names = dict(zip(titles.user_ids[titles.users].tolist(), titles.item_ids[titles.items].tolist(), strict=True))
    bunch.item_names = np.array([names.get(i, "") for i in bunch.item_ids.tolist()], np.str_)
    n_users, n_items = bunch.data.shape
    bunch.DESCR = _DESCR.format(variant=variant, n_ratings=bunch.data.nnz, n_users=n_users, n_items=n_items)
    return bunch


def _check_options(variant, n_retries, delay, dtype):
    if variant not in _VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(map(repr, _VARIANTS))}, got {variant!r}.")
    if not isinstance(n_retries, Integral) or n_retries < 0:
        raise ValueError(f"n_retries must be an integer of at least 0, got {n_retries!r}.")
    if not isinstance(delay, Real) or not 0 <= delay < float("inf"):
        raise ValueError(f"delay must be a number of seconds in [0, inf), got {delay!r}.")
    check_dtype(dtype)


def _archive(variant, data_home, download_if_missing, n_retries, delay):
    """Path of the archive, fetched where it is missing or damaged."""
    from sklearn.datasets import get_data_home  # slow to import

    folder = Path(get_data_home(data_home), "movielens")
    folder.mkdir(exist_ok=True)
    path, url = folder / variant.archive, _BASE_URL + variant.archive
    state = "is missing"
    if path.exists():
        if variant.checksum is None or md5(path) == variant.checksum:
            return path
        state = f"is not what GroupLens published (its MD5 should be {variant.checksum})"
    if not download_if_missing:
        raise OSError(f"{path} {state}, and download_if_missing is False: put {url} there.")
    if path.exists():
        warnings.warn(f"{path} {state}: fetching it again.", stacklevel=3)
    download(url, path, checksum=variant.checksum, n_retries=n_retries, delay=delay)
    return path


def _read_archive(path, variant, timestamps):
    """Records of the ratings, and of the titles with movies as users and titles as items."""
    options = {"header": variant.ratings.endswith(".csv"), "encoding": variant.encoding}
    ratings = {"user": 0, "item": 1, "value": 2, "timestamp": 3 if timestamps else None}
    titles = {"user": 0, "item": 1, "value": False, "timestamp": None}
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(variant.ratings) as stream:
                first = read_text(stream, f"{path}/{variant.ratings}", ratings, **options)
            with archive.open(variant.titles) as stream:
                return first, read_text(stream, f"{path}/{variant.titles}", titles, **options)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise OSError(f"{path} is damaged or no MovieLens archive: {error}. Delete it, and fetch it again.") from error
