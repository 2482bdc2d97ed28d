"""Losses of single outputs and the KL divergence, with gradients and alone: fastml, NumPy, PyTorch, JAX.

``pytest benchmarks/bench_pointwise.py`` times each on its own; ``python benchmarks/bench_pointwise.py`` takes them in
turns and prints the ratios.
"""

import numpy as np
import pytest
from _peers import N_THREADS, compare, is_installed, jax, jax_step, torch, use_all_threads

from fastml import functional

SHAPES = [(16_000_000,), (1_000_000,), (1000,)]
KL_SHAPES = [(8192, 1000), (65536, 10)]
SMALL = {
    (16_000_000,): (100_000,),
    (1_000_000,): (10_000,),
    (1000,): (1000,),
    (8192, 1000): (64, 1000),
    (65536, 10): (500, 10),
}
POINTWISE = ["binary_cross_entropy", "squared_error", "absolute_error", "huber"]
CASES = [(name + "_grad", shape) for name in POINTWISE for shape in SHAPES]
CASES += [("kl_divergence_grad", shape) for shape in KL_SHAPES]
CASES += [(name, (1_000_000,)) for name in POINTWISE] + [("kl_divergence", (8192, 1000))]
OPERATIONS = {"binary_cross_entropy": 8, "squared_error": 3, "absolute_error": 3, "huber": 6, "kl_divergence": 12}
OPERATIONS = {name + "_grad": operations for name, operations in OPERATIONS.items()}
OPERATIONS |= {"binary_cross_entropy": 6, "squared_error": 3, "absolute_error": 2, "huber": 5, "kl_divergence": 9}


def data(name, shape):
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape, dtype=np.float32)
    if name.startswith("binary_cross_entropy"):
        t = (t > 0).astype(np.float32)
    if name.startswith("kl_divergence"):
        t = functional.softmax(t)
    return z, t


def numpy_binary_cross_entropy(z, t):
    loss = np.abs(z)
    np.negative(loss, out=loss)
    np.exp(loss, out=loss)
    np.log1p(loss, out=loss)
    part = np.maximum(z, 0)
    loss += part
    np.multiply(z, t, out=part)
    loss -= part
    return loss


def numpy_binary_cross_entropy_grad(z, t):
    """The sigmoid by tanh takes half the time of that from the exponential, which needs a choice by sign."""
    grad = z * np.float32(0.5)
    np.tanh(grad, out=grad)
    grad += 1
    grad *= np.float32(0.5)
    grad -= t
    return numpy_binary_cross_entropy(z, t), grad


def numpy_squared_error(z, t):
    loss = z - t
    loss *= loss
    loss *= np.float32(0.5)
    return loss


def numpy_squared_error_grad(z, t):
    grad = z - t
    loss = grad * grad
    loss *= np.float32(0.5)
    return loss, grad


def numpy_absolute_error(z, t):
    loss = z - t
    return np.abs(loss, out=loss)


def numpy_absolute_error_grad(z, t):
    loss = z - t
    grad = np.sign(loss)  # in place it is slower
    np.abs(loss, out=loss)
    return loss, grad


def numpy_huber(z, t):
    loss = z - t
    half = np.clip(loss, -1, 1)
    half *= np.float32(0.5)
    loss -= half
    loss *= half
    loss *= 2
    return loss


def numpy_huber_grad(z, t):
    """With the residual clipped to c, the loss is c (r - c / 2)."""
    loss = z - t
    grad = np.clip(loss, -1, 1)
    half = grad * np.float32(0.5)
    loss -= half
    loss *= grad
    return loss, grad


def kl_divergence_and_log_softmax(z, t):
    log_p = z - z.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    terms = np.log(t)
    terms -= log_p
    terms *= t
    return terms.sum(axis=1), log_p


def numpy_kl_divergence(z, t):
    return kl_divergence_and_log_softmax(z, t)[0]


def numpy_kl_divergence_grad(z, t):
    loss, grad = kl_divergence_and_log_softmax(z, t)
    np.exp(grad, out=grad)
    grad -= t
    return loss, grad


IN_NUMPY = {name.removeprefix("numpy_"): function for name, function in globals().items() if name.startswith("numpy_")}


def torch_loss(name, reduction):
    loss = torch.nn.functional
    return {
        "binary_cross_entropy": lambda z, t: loss.binary_cross_entropy_with_logits(z, t, reduction=reduction),
        "squared_error": lambda z, t: loss.mse_loss(z, t, reduction=reduction) / 2,
        "absolute_error": lambda z, t: loss.l1_loss(z, t, reduction=reduction),
        "huber": lambda z, t: loss.huber_loss(z, t, reduction=reduction),
        "kl_divergence": lambda z, t: loss.kl_div(loss.log_softmax(z, dim=1), t, reduction=reduction),
    }[name]


def make_fastml(name, z, t):
    function = getattr(functional, name)
    return lambda: function(z, t)


def make_numpy(name, z, t):
    return lambda: IN_NUMPY[name](z, t)


def torch_step(wrap, name, z, t):
    """With the gradient, losses are summed, as it is of the sum."""
    use_all_threads()
    is_grad, prediction, target = name.endswith("_grad"), torch.from_numpy(z), torch.from_numpy(t)
    loss_function = wrap(torch_loss(name.removesuffix("_grad"), "sum" if is_grad else "none"))

    def value():
        with torch.no_grad():
            loss = loss_function(prediction, target)
            return (loss.sum(1) if name == "kl_divergence" else loss).numpy()

    def step():
        prediction.grad = None
        loss = loss_function(prediction, target)
        loss.backward()
        return loss.detach().numpy(), prediction.grad.numpy()

    prediction.requires_grad_(is_grad)
    return step if is_grad else value


def make_torch(*arguments):
    return torch_step(lambda function: function, *arguments)


def make_torch_compile(*arguments):
    torch._dynamo.reset()
    return torch_step(lambda function: torch.compile(function, dynamic=False), *arguments)


def jax_loss(name):
    log_softmax, xlogy = jax.nn.log_softmax, jax.scipy.special.xlogy
    return {
        "binary_cross_entropy": lambda z, t: (jax.numpy.logaddexp(0, z) - z * t).sum(),
        "squared_error": lambda z, t: jax.numpy.square(z - t).sum() / 2,
        "absolute_error": lambda z, t: abs(z - t).sum(),
        "huber": lambda z, t: (jax.numpy.clip(z - t, -1, 1) * (z - t - jax.numpy.clip(z - t, -1, 1) / 2)).sum(),
        "kl_divergence": lambda z, t: (xlogy(t, t) - t * log_softmax(z, axis=1)).sum(),
    }[name]


def make_jax(name, z, t):
    return jax_step(jax_loss(name.removesuffix("_grad")), z, fixed=(t,))


MAKERS = {
    "fastml": make_fastml,
    "numpy": make_numpy,
    "torch": make_torch,
    "torch.compile": make_torch_compile,
    "jax": make_jax,
}


def is_candidate(name, maker):
    """JAX is compared where gradients are wanted."""
    return is_installed(maker) and (name.endswith("_grad") or maker != "jax")


def check(result, name, z, t):
    """Against the baseline; PyTorch returns the sum of the losses beside a gradient."""
    expected = IN_NUMPY[name](z, t)
    if not name.endswith("_grad"):
        return np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    loss, grad = expected
    np.testing.assert_allclose(np.sum(result[0], dtype=np.float64), loss.sum(dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(result[1], grad, atol=1e-6)


def moved(name, z):
    """Bytes that are read and written at least: two inputs, the gradient, and the losses of single outputs."""
    return (2 + name.endswith("_grad") + (not name.startswith("kl_divergence"))) * z.nbytes


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("name", "shape"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_loss(benchmark, record, small, name, shape, maker):
    if not is_candidate(name, maker) or (small and maker == "torch.compile"):
        pytest.skip(f"{maker} is not installed, has no {name}, or takes longer to compile than all others to run")
    if small:
        shape = SMALL[shape]
    benchmark.group = f"{name} {'x'.join(map(str, shape))}"
    z, t = data(name, shape)
    function = MAKERS[maker](name, z, t)
    check(function(), name, z, t)
    benchmark.pedantic(function, rounds=15, warmup_rounds=1)
    record(bytes_moved=moved(name, z), operations=OPERATIONS[name] * z.size)


def main():
    """Print the ratios, taken in turns."""
    print(f"{N_THREADS} threads; time over that of fastml")
    for name, shape in CASES:
        z, t = data(name, shape)
        functions = {maker: make(name, z, t) for maker, make in MAKERS.items() if is_candidate(name, maker)}
        for function in functions.values():
            check(function(), name, z, t)
        seconds = compare(functions, rounds=3 if z.size > 2**23 else 15)
        own = seconds.pop("fastml")
        ratios = ", ".join(f"{maker} {theirs / own:.2f}x" for maker, theirs in seconds.items())
        rate = f"{1e6 * own:.0f} us, {moved(name, z) / own / 1e9:.1f} GB/s"
        print(f"{name} {'x'.join(map(str, shape))}: {rate}; {ratios}", flush=True)


if __name__ == "__main__":
    main()
