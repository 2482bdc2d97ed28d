"""Data to measure on. Real sets are read in place; a benchmark that needs one that is not there is skipped."""

import csv
import functools
import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def _present(name):
    folder = FOLDER / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not there")
    return folder


def _idx(path, header):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


@functools.cache
def fashion_mnist():
    """Pixels in 0..1, (60000, 784) and (10000, 784) float32, and labels."""
    folder, parts = _present("fashion_mnist"), []
    for part in ("train", "t10k"):
        images = _idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
        parts += [images.astype(np.float32) / 255, _idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)]
    return parts


@functools.cache
def banking77():
    """TF-IDF of words and pairs of words, CSR float32, and labels, for training and testing."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    folder, texts, labels = _present("banking77"), [], []
    for part in ("train", "test"):
        with open(folder / f"{part}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        texts.append([row["text"] for row in rows])
        labels.append(np.array([row["category"] for row in rows]))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    return vectorizer.fit_transform(texts[0]), labels[0], vectorizer.transform(texts[1]), labels[1]


@functools.cache
def bibtex():
    """Words of entries, CSR float32, and 159 tags, (n, 159) of 0 and 1, for training and testing."""
    folder, parts = _present("bibtex"), []
    n_features, n_labels = 1836, 159
    for part in ("train", "test"):
        X, Y = [], []
        with gzip.open(folder / f"bibtex-{part}.arff.gz", "rt") as file:
            for line in file:
                if line.startswith("{"):
                    columns = np.array([int(item.split()[0]) for item in line.strip("{}\n").split(",")])
                    X.append(columns[columns < n_features])
                    Y.append(columns[columns >= n_features] - n_features)
        parts += [_indicators(X, n_features, np.float32), _indicators(Y, n_labels, np.int64).toarray()]
    return parts


@functools.cache
def california_housing():
    """Districts: 8 numbers each, standardized float32, and the median house value in dollars; rows in a fixed order."""
    folder, rows = _present("california_housing"), []
    with gzip.open(folder / "housing.csv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file):
            del row["ocean_proximity"]
            if row["total_bedrooms"]:
                rows.append([float(value) for value in row.values()])
    table = np.random.default_rng(0).permutation(np.array(rows))
    X, y = table[:, :-1], table[:, -1]
    return ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32), y


@functools.cache
def gowalla():
    """Check-ins of users (rows) at places, CSR float32 of ones, for training and testing."""
    folder, n_places, parts = _present("gowalla"), 40_981, []
    for part in ("train", "test"):
        with gzip.open(folder / f"{part}.txt.gz", "rt") as file:
            rows = [np.array(line.split()[1:], np.int32) for line in file]  # a line: the user, then places
        parts.append(_indicators([np.unique(row) for row in rows], n_places, np.float32))
    return parts


@functools.cache
def interactions(n_entries, shape, n_groups=20, own_share=0.6):
    """Made-up users x items, CSR float32 of ones; a power law in rows and columns, and groups with a taste.

    A user draws items by popularity: this share of them from the items of the own group, the rest from all.
    """
    rng, (n_users, n_items) = np.random.default_rng(0), shape
    activity, popularity = (np.cumsum((np.arange(n) + 10.0) ** -0.8) for n in shape)
    user_groups, item_groups = (rng.integers(n_groups, size=n) for n in shape)
    user_ids, item_ids = (rng.permutation(n) for n in shape)
    by_group = np.argsort(item_groups, kind="stable")
    ends = np.cumsum(np.diff(popularity, prepend=0)[by_group])  # items as intervals, those of a group side by side
    starts = np.append(0, ends)[np.searchsorted(item_groups[by_group], np.arange(n_groups + 1))]
    entries = np.empty(0, np.int64)
    while len(entries) < n_entries:
        users = np.searchsorted(activity, activity[-1] * rng.random(n_entries))
        groups, is_own = user_groups[users], rng.random(n_entries) < own_share
        low, high = np.where(is_own, starts[groups], 0), np.where(is_own, starts[groups + 1], ends[-1])
        items = by_group[np.searchsorted(ends[:-1], low + (high - low) * rng.random(n_entries), side="right")]
        entries = np.sort(np.append(entries, user_ids[users] * n_items + item_ids[items]))
        entries = entries[np.diff(entries, prepend=-1) > 0]  # np.unique hashes, which takes ten times as long
    users, items = np.divmod(np.sort(rng.permutation(entries)[:n_entries]), n_items)
    indptr = np.searchsorted(users, np.arange(n_users + 1))
    return csr_array((np.ones(n_entries, np.float32), items.astype(np.int32), indptr.astype(np.int32)), shape=shape)


def _indicators(columns, n_columns, dtype):
    """A CSR of ones at these columns of each row."""
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate(columns)
    return csr_array((np.ones(len(indices), dtype), indices, indptr), shape=(len(columns), n_columns))
