"""One step of an optimizer, float32: fastml, with and without its look for NaN, in-place NumPy, PyTorch fused.

``pytest benchmarks/bench_optimizers.py`` times each on its own; ``python benchmarks/bench_optimizers.py`` takes them in
turns and prints the ratios, and fastml's share of the bandwidth of a triad.
"""

import numpy as np
import pytest
import sklearn
from _peers import compare, machine, torch, use_all_threads

from fastml.optim import SGD, AdaGrad, AdamW, RMSProp

SIZES = [1_000, 100_000, 1_000_000, 30_000_000]
RULES = {  # fastml's optimizer, bytes a parameter: gradient read, the others read and written
    "adamw": (AdamW(1e-3), 4 * 7),
    "sgd": (SGD(1e-3, momentum=0.9), 4 * 5),
    "adagrad": (AdaGrad(1e-3, epsilon=1e-8), 4 * 5),
    "rmsprop": (RMSProp(1e-3, rho=0.9, epsilon=1e-8), 4 * 5),
}
OPERATIONS = {"adamw": 14, "sgd": 4, "adagrad": 7, "rmsprop": 9}  # a parameter


def data(n):
    rng = np.random.default_rng(0)
    return rng.standard_normal(n, dtype=np.float32), rng.standard_normal(n, dtype=np.float32)


def make_fastml(rule, w, g):
    optimizer = RULES[rule][0]
    state = optimizer.init([w])
    return lambda: optimizer.update([w], [g], state)


def make_unchecked(rule, w, g):
    """Without the sweep that looks for NaN in the gradient, which PyTorch does not do either."""
    update = make_fastml(rule, w, g)

    def unchecked():
        with sklearn.config_context(assume_finite=True):
            update()

    return unchecked


def make_numpy(rule, w, g):
    """The baseline: in place, with one array for what comes between."""
    real, between = np.float32, np.empty_like(w)
    m, v, step = np.zeros_like(w), np.zeros_like(w), [0]

    def adamw():
        step[0] += 1
        np.multiply(m, real(0.9), out=m)
        np.multiply(g, real(0.1), out=between)
        np.add(m, between, out=m)
        np.multiply(v, real(0.999), out=v)
        np.multiply(g, g, out=between)
        np.multiply(between, real(0.001), out=between)
        np.add(v, between, out=v)
        np.sqrt(v, out=between)
        np.multiply(between, real((1 - 0.999 ** step[0]) ** -0.5), out=between)
        np.add(between, real(1e-8), out=between)
        np.divide(m, between, out=between)
        np.multiply(between, real(1e-3 / (1 - 0.9 ** step[0])), out=between)
        np.multiply(w, real(1 - 1e-5), out=w)
        np.subtract(w, between, out=w)

    def sgd():
        np.multiply(m, real(0.9), out=m)
        np.add(m, g, out=m)
        np.multiply(m, real(1e-3), out=between)
        np.subtract(w, between, out=w)

    def scaled_step():
        np.sqrt(v, out=between)
        np.add(between, real(1e-8), out=between)
        np.divide(g, between, out=between)
        np.multiply(between, real(1e-3), out=between)
        np.subtract(w, between, out=w)

    def adagrad():
        np.multiply(g, g, out=between)
        np.add(v, between, out=v)
        scaled_step()

    def rmsprop():
        np.multiply(v, real(0.9), out=v)
        np.multiply(g, g, out=between)
        np.multiply(between, real(0.1), out=between)
        np.add(v, between, out=v)
        scaled_step()

    return {"adamw": adamw, "sgd": sgd, "adagrad": adagrad, "rmsprop": rmsprop}[rule]


def make_torch(rule, w, g):
    """Moments are PyTorch's own; parameters and gradients are the same memory as the others'."""
    use_all_threads()
    parameter = torch.from_numpy(w).requires_grad_()
    parameter.grad = torch.from_numpy(g)
    return {
        "adamw": lambda: torch.optim.AdamW([parameter], lr=1e-3, fused=True),
        "sgd": lambda: torch.optim.SGD([parameter], lr=1e-3, momentum=0.9, fused=True),
        "adagrad": lambda: torch.optim.Adagrad([parameter], lr=1e-3, eps=1e-8, fused=True),
        "rmsprop": lambda: torch.optim.RMSprop([parameter], lr=1e-3, alpha=0.9, eps=1e-8),  # there is no fused one
    }[rule]().step


MAKERS = {"fastml": make_fastml, "unchecked": make_unchecked, "numpy": make_numpy, "torch": make_torch}


def check(maker, rule, w, g):
    """Three steps, against the baseline's."""
    mine, reference = w.copy(), w.copy()
    function, baseline = maker(rule, mine, g), make_numpy(rule, reference, g)
    for _ in range(3):
        function()
        baseline()
    np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", SIZES)
def test_update(benchmark, record, small, n, rule, name):
    if name == "torch":
        pytest.importorskip("torch")
    if small:
        n = min(n, 10_000)
    benchmark.group = f"{rule} {n}"
    w, g = data(n)
    check(MAKERS[name], rule, w, g)
    benchmark.pedantic(MAKERS[name](rule, w, g), rounds=15, warmup_rounds=3, iterations=max(10_000 // n, 1))
    record(bytes_moved=RULES[rule][1] * n, operations=OPERATIONS[rule] * n)


def main():
    """Print the ratios, taken in turns."""
    triad = machine()["triad"]
    print(f"triad {triad:.1f} GB/s", flush=True)
    names = [name for name in MAKERS if torch is not None or name != "torch"]
    for rule, (_, size) in RULES.items():
        for n in SIZES:
            w, g = data(n)
            for name in names:
                check(MAKERS[name], rule, w, g)
            seconds = compare({name: MAKERS[name](rule, w.copy(), g) for name in names}, rounds=7)
            rate = size * n / seconds["fastml"] / 1e9
            print(f"{rule} {n}: {rate:.1f} GB/s, {rate / triad:.0%} of the triad")
            for name, median in seconds.items():
                print(f"  {name:9} {1e6 * median:10.1f} us {median / seconds['fastml']:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
