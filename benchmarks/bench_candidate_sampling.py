"""SoftmaxClassifier with ``n_negatives`` against the softmax over all of very many classes: time of a step, and loss.

``python benchmarks/bench_candidate_sampling.py`` prints the time of a step of each, trains both for equal epochs, and
prints the loss over all classes on held-out rows; with pytest the same is done once on small shapes, and asserted.

The classes are as frequent as words are, and each occurs. A row is the centroid of its class under more noise: a linear
model is the right one, but even that is wrong more often than not, and what has to be learned are probabilities.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, timed

from fastml import SoftmaxClassifier
from fastml.functional import linear_softmax_cross_entropy
from fastml.optim import Adam, CosineDecay

SHAPE = (200_000, 64, 100_000)  # rows, features, classes
SMALL = (6000, 16, 1000)
NOISE = np.float32(2.5)
BATCH = 1024
N_NEGATIVES = 1024
LEAST_RATIO = 10  # of a step over all classes to a step over sampled ones
MOST_EXCESS = 0.02  # of the loss on held-out rows


def make_data(shape, n_held_out=5000):
    """Rows (n, d) and labels for training, and as many as are held out, of the same frequencies."""
    n, d, n_classes = shape
    rng = np.random.default_rng(0)
    p = 1 / np.arange(10.0, n_classes + 10)
    centroids = rng.standard_normal((n_classes, d), dtype=np.float32)
    y = np.append(np.arange(n_classes), rng.choice(n_classes, n - n_classes, p=p / p.sum()))
    y = np.append(y, rng.choice(y, n_held_out))
    X = centroids[y] + NOISE * rng.standard_normal((len(y), d), dtype=np.float32)
    X /= np.sqrt(1 + NOISE**2)
    return X[:n], y[:n], X[n:], y[n:]


def classifier(n_rows, n_negatives, epochs=1):
    """One that ends with a rate of 0, so that what is compared is not the noise of the last steps."""
    optimizer = Adam(CosineDecay(0.03, epochs * -(-n_rows // BATCH)))
    return SoftmaxClassifier(
        optimizer=optimizer, batch_size=BATCH, max_iter=epochs, alpha=1e-7, n_negatives=n_negatives, random_state=0
    )


def make_steps(X, y, n_classes, n_negatives, n_steps=4):
    """Steps as a fit does them, without what comes before and after."""
    model = classifier(len(X), n_negatives)
    model.classes_ = np.arange(n_classes)
    problem = model._problem(X, y, np.ones(len(y)))
    steps = model._steps(problem, np.zeros(problem.n_trained, X.dtype))
    order = np.random.default_rng(0).permutation(len(X))[: n_steps * BATCH]
    return lambda: steps.run(order, steps.optimizer._rates(0, n_steps), np.empty(n_steps))


def held_out_loss(model, X, y):
    """Mean over all classes, in nats."""
    return linear_softmax_cross_entropy(X, model.coef_, model.intercept_, y).mean(dtype=np.float64)


def losses_of_fits(X, y, X_test, y_test, n_negatives, epochs=1):
    """Loss on held-out rows after equal epochs, and seconds of the fit: over all classes, and sampled."""
    results = []
    for m in None, n_negatives:
        model, seconds = timed(lambda m=m: classifier(len(X), m, epochs).fit(X, y))
        results.append((held_out_loss(model, X_test, y_test), seconds))
    return results


def seconds_of_step(X, y, n_classes, n_negatives):
    """Of a step over all classes, and of one over sampled ones."""
    steps = {m: make_steps(X, y, n_classes, m) for m in (None, n_negatives)}
    seconds = compare(steps, rounds=2)
    return seconds[None] / 4, seconds[n_negatives] / 4


@pytest.mark.parametrize("name", ["a step, 100,000 classes"])
def test_step(benchmark, record_fit, small, name):
    shape, n_negatives = (SMALL, SMALL[2] // 4) if small else (SHAPE, N_NEGATIVES)
    X, y, *_ = make_data(shape)
    found = benchmark.pedantic(lambda: seconds_of_step(X, y, shape[2], n_negatives), rounds=1)
    note = f"{'x'.join(map(str, shape))}, full softmax against {n_negatives} negatives"
    record_fit((*found, note, 1), X[:BATCH], n_outputs=1.5 * (n_negatives + BATCH))


def test_candidate_sampling(benchmark):
    X, y, X_test, y_test = make_data(SMALL)
    (full, _), (sampled, _) = benchmark.pedantic(
        lambda: losses_of_fits(X, y, X_test, y_test, SMALL[2] // 4, epochs=4), rounds=1
    )
    assert full < 0.95 * np.log(SMALL[2])
    assert sampled < (1 + MOST_EXCESS) * full


def main():
    """Print both comparisons."""
    print(f"{N_THREADS} threads; {'x'.join(map(str, SHAPE))}, batch {BATCH}, {N_NEGATIVES} negatives", flush=True)
    X, y, X_test, y_test = make_data(SHAPE)
    full, sampled = seconds_of_step(X, y, SHAPE[2], N_NEGATIVES)
    print(f"step, full {1e3 * full:.1f} ms, sampled {1e3 * sampled:.1f} ms")
    print(f"ratio {full / sampled:.1f}x, at least {LEAST_RATIO}x", flush=True)
    results = losses_of_fits(X, y, X_test, y_test, N_NEGATIVES)
    for name, (loss, time) in zip(("full", "sampled"), results, strict=True):
        print(f"held-out loss, {name:8} {loss:.4f} nats, fit in {time:.0f} s")
    print(f"excess {results[1][0] / results[0][0] - 1:+.2%}, at most {MOST_EXCESS:.0%}")


if __name__ == "__main__":
    main()
