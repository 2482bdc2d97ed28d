"""Real data to measure on, read in place; a benchmark that needs a set that is not there is skipped."""

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


def _indicators(columns, n_columns, dtype):
    """A CSR of ones at these columns of each row."""
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate(columns)
    return csr_array((np.ones(len(indices), dtype), indices, indptr), shape=(len(columns), n_columns))
