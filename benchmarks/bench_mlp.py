"""Training MLPClassifier: against scikit-learn's, and against training loops in PyTorch, eager and compiled.

``python benchmarks/bench_mlp.py`` takes the candidates in turns and prints the ratios; with pytest the same comparisons
run once each, and assert what is compared.
"""

import itertools
import sys

import numpy as np
import pytest
from _data import banking77, fashion_mnist
from _peers import medians_in_turns, print_comparisons, timed, torch, use_all_threads
from scipy.sparse import issparse
from sklearn import neural_network

from fastml import MLPClassifier
from fastml.optim import Adam, CosineDecay

SIZES = (256, 128, 100)  # the network whose accuracy on Fashion-MNIST is published


def small_rows(n=100_000, n_features=20):
    """Rows of two classes that a small network can tell apart."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, n_features)).astype(np.float32)
    y = (np.abs(X[:, :5]).sum(axis=1) > 4).astype(np.int64)
    return X, y, X[:1000], y[:1000]


def compiled(model, X, y):
    """The model, with all that its fit and predictions need compiled."""
    n = 2 * model.batch_size if isinstance(model.batch_size, int) else 400
    keep = model.max_iter
    timed(lambda: model.set_params(max_iter=1).fit(X[:n], y[:n]).predict(X[:n]))
    return model.set_params(max_iter=keep)


def against_scikit_learn(X, y, X_test, y_test, *, sizes=SIZES, epochs=5, batch_size=200, tolerance=0.02, rate=0.001):
    """Seconds of the same epochs from the same first weights; the loss they come to may differ by ``tolerance``."""
    settings = {"hidden_layer_sizes": sizes, "batch_size": batch_size, "learning_rate_init": rate, "random_state": 0}
    settings |= {"max_iter": epochs, "n_iter_no_change": epochs, "tol": 0, "warm_start": True}
    theirs = neural_network.MLPClassifier(**settings)
    ours = compiled(MLPClassifier(**settings), X, y)
    timed(lambda: theirs.set_params(max_iter=1).fit(X, y).set_params(max_iter=epochs))
    ours.set_params(max_iter=1, learning_rate_init=1e-30)
    timed(lambda: ours.fit(X, y).set_params(max_iter=epochs, learning_rate_init=rate))
    ours.coefs_ = [coef.astype(X.dtype) for coef in theirs.coefs_]
    ours.intercepts_ = [intercept.astype(X.dtype) for intercept in theirs.intercepts_]
    theirs, their_seconds = timed(lambda: theirs.fit(X, y))
    ours, our_seconds = timed(lambda: ours.fit(X, y))
    assert abs(ours.loss_ / theirs.loss_ - 1) < tolerance, (ours.loss_, theirs.loss_)
    scores = theirs.score(X_test, y_test), ours.score(X_test, y_test)
    return (
        their_seconds,
        our_seconds,
        "loss {:.4f}, {:.4f}; test accuracy {:.4f}, {:.4f}".format(theirs.loss_, ours.loss_, *scores),
        epochs,
    )


def texts_against_scikit_learn(X, y, X_test, y_test, *, sizes, epochs=20):
    """Seconds of the same epochs on sparse rows, to a test accuracy that is not lower."""
    settings = {"hidden_layer_sizes": sizes, "max_iter": epochs, "n_iter_no_change": epochs, "tol": 0}
    theirs = neural_network.MLPClassifier(random_state=0, **settings)
    ours = compiled(MLPClassifier(random_state=0, **settings), X, y)
    theirs, their_seconds = timed(lambda: theirs.fit(X, y))
    ours, our_seconds = timed(lambda: ours.fit(X, y))
    scores = theirs.score(X_test, y_test), ours.score(X_test, y_test)
    assert scores[1] >= scores[0], scores
    return their_seconds, our_seconds, "test accuracy {:.4f}, {:.4f}".format(*scores), epochs


def torch_epoch(X, y, sizes, batch_size, is_compiled):
    """One epoch of a network with the fused Adam, rows in a new order."""
    use_all_threads()
    widths, n_classes = (X.shape[1], *sizes), len(np.unique(y))
    layers = [torch.nn.Linear(n_in, n_out) for n_in, n_out in zip(widths, sizes, strict=False)]
    model = torch.nn.Sequential(
        *(part for layer in layers for part in (layer, torch.nn.ReLU())), torch.nn.Linear(sizes[-1], n_classes)
    )
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss_of = torch.nn.functional.cross_entropy
    if is_compiled:
        model = torch.compile(model)
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    def epoch():
        for rows in torch.randperm(len(X)).split(batch_size):
            optimizer.zero_grad()
            loss_of(model(X[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def epoch_against_torch(X, y, *_, sizes=SIZES, batch_size=64, epochs=2, is_compiled=False):
    """Medians of seconds of an epoch; what PyTorch compiles, and its first epoch, are not counted."""
    pytest.importorskip("torch")
    epoch = torch_epoch(X, y, sizes, batch_size, is_compiled)
    epoch()
    model = MLPClassifier(sizes, batch_size=batch_size, max_iter=epochs, tol=0, random_state=0)
    compiled(model, X, y)
    seconds = medians_in_turns(lambda: [epoch() for _ in range(epochs)], lambda: model.fit(X, y))
    return *(seconds / epochs), f"batch size {batch_size}", 1


def accuracy(X, y, X_test, y_test, *, epochs=20, least=0.89):
    """Test accuracy of the published network, of which .8833 is published; the seconds of its fit, twice."""
    n_steps = epochs * -(-len(y) // 128)
    optimizer = Adam(CosineDecay(0.002, n_steps))
    model = MLPClassifier(
        SIZES, optimizer=optimizer, batch_size=128, max_iter=epochs, tol=0, dropout=0.2, random_state=0
    )
    model, seconds = timed(lambda: model.fit(X, y))
    score = model.score(X_test, y_test)
    assert score >= least, score
    return seconds, seconds, f"test accuracy {score:.4f}", epochs


def operations(X, y, sizes=SIZES, **_):
    """Of an epoch: products forward, and back to coefficients and, behind the first layer, to what they multiply."""
    later = sum(a * b for a, b in itertools.pairwise((*sizes, len(np.unique(y)))))
    return 4 * (X.nnz if issparse(X) else X.size) * sizes[0] + 6 * X.shape[0] * later


SMALL_NET = {"sizes": (50,), "batch_size": 32}
COMPARISONS = {
    "accuracy, Fashion-MNIST": (accuracy, fashion_mnist, {}),
    "Fashion-MNIST, scikit-learn": (against_scikit_learn, fashion_mnist, {}),
    "small network, scikit-learn": (against_scikit_learn, small_rows, {**SMALL_NET, "epochs": 3, "tolerance": 0.05}),
    "small network, PyTorch": (epoch_against_torch, small_rows, SMALL_NET),
    "banking77 TF-IDF, scikit-learn": (texts_against_scikit_learn, banking77, {"sizes": (100,)}),
    **{
        f"Fashion-MNIST, batch {size}, {name}": (
            epoch_against_torch,
            fashion_mnist,
            {"batch_size": size, "is_compiled": name == "torch.compile"},
        )
        for name in ("PyTorch", "torch.compile")
        for size in (64, 256, 1024)
    },
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(benchmark, record_fit, small, name):
    function, data, options = COMPARISONS[name]
    X, y, X_test, y_test = data()
    if small:
        if "compile" in name:
            pytest.skip("it takes longer to compile than all others to run")
        X, y = X[:2000], y[:2000]
        fewer = {accuracy: {"least": 0.7, "epochs": 10}, texts_against_scikit_learn: {"epochs": 2}}
        options = {**options, **fewer.get(function, {"epochs": 1})}
        if function is against_scikit_learn:
            options["tolerance"] = 0.1  # after ten steps the order of rows, which is each library's own, counts
    found = benchmark.pedantic(lambda: function(X, y, X_test, y_test, **options), rounds=1)
    record_fit(found, X, flops_a_pass=operations(X, y, **options))


if __name__ == "__main__":
    print_comparisons(COMPARISONS, sys.argv[1:])
