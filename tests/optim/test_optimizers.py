"""Optimizers against their definitions, against PyTorch, and against bad arguments."""

import copy
import math
import pickle

import numpy as np
import pytest
import rules
from numba import config
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from fastml import SoftmaxClassifier
from fastml.optim import SGD, AdaGrad, Adam, AdamW, InverseTimeDecay, Optimizer, OptimizerState, RMSProp
from fastml.optim import _base as base

DTYPES = [np.float32, np.float64]
SHAPES = [(), (3,), (4, 5), (0,), (2, 3, 2)]
SETTINGS = [
    (SGD, {}),
    (SGD, {"weight_decay": 0.1}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (AdaGrad, {}),
    (AdaGrad, {"initial_accumulator_value": 0.5, "epsilon": 1e-3, "weight_decay": 0.01}),
    (RMSProp, {}),
    (RMSProp, {"rho": 0.8, "momentum": 0.9, "epsilon": 1e-4, "weight_decay": 0.01}),
    (Adam, {}),
    (Adam, {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4, "weight_decay": 0.01}),
    (AdamW, {}),
    (AdamW, {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4, "weight_decay": 0.3}),
]
RULES = {SGD: rules.sgd, AdaGrad: rules.adagrad, RMSProp: rules.rmsprop, Adam: rules.adam, AdamW: rules.adamw}
IN_PYTORCH = {"epsilon": "eps", "rho": "alpha"}


def arrays(shapes=SHAPES, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 1e6])
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_update_follows_its_definition(kind, settings, max_grad_norm, dtype):
    params = arrays(dtype=dtype)
    truth, states = [p.astype(np.float64) for p in params], [None] * len(params)
    optimizer = kind(lambda step: 0.1 / (step + 1), max_grad_norm=max_grad_norm, **settings)
    state = optimizer.init(params)
    for step in range(5):
        grads = arrays(dtype=dtype, seed=step + 1)
        kept = [g.copy() for g in grads]
        optimizer.update(params, grads, state)
        assert state.step == step + 1
        assert all(np.array_equal(a, b) for a, b in zip(grads, kept, strict=True))
        clipped = rules.clip([g.astype(np.float64) for g in grads], max_grad_norm)
        for i, g in enumerate(clipped):
            truth[i], states[i] = RULES[kind](truth[i], g, states[i], 0.1 / (step + 1), step + 1, **settings)
    for got, expected in zip(params, truth, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(
            got, expected, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=1e-6 * (dtype == np.float32)
        )


def trajectory(optimizer, n_steps=200):
    """Parameters after many steps down a quadratic bowl with noise."""
    params, noise = arrays(), np.random.default_rng(1)
    state = optimizer.init(params)
    for _ in range(n_steps):
        optimizer.update(params, [np.asarray(p + 0.3 * noise.standard_normal(p.shape)) for p in params], state)
    return params


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_200_steps_follow_the_definition(kind, settings):
    truth, noise, states = arrays(), np.random.default_rng(1), [None] * len(SHAPES)
    for step in range(1, 201):
        for i, w in enumerate(truth):
            g = w + 0.3 * noise.standard_normal(w.shape)
            truth[i], states[i] = RULES[kind](w, g, states[i], 0.05, step, **settings)
    for got, expected in zip(trajectory(kind(0.05, **settings)), truth, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_200_steps_are_pytorchs(kind, settings):
    torch = pytest.importorskip("torch")
    options = {IN_PYTORCH.get(k, k): v for k, v in settings.items() if not k.startswith("beta_")}
    if kind in (Adam, AdamW):
        options["betas"] = settings.get("beta_1", 0.9), settings.get("beta_2", 0.999)
    tensors, noise = [torch.tensor(p, requires_grad=True) for p in arrays()], np.random.default_rng(1)
    name = {AdaGrad: "Adagrad", RMSProp: "RMSprop"}.get(kind, kind.__name__)
    theirs = getattr(torch.optim, name)(tensors, lr=0.05, **options)
    for _ in range(200):
        for tensor in tensors:
            noisy = tensor.detach().numpy() + 0.3 * noise.standard_normal(tuple(tensor.shape))
            tensor.grad = torch.tensor(noisy)
        theirs.step()
    for p, tensor in zip(trajectory(kind(0.05, **settings)), tensors, strict=True):
        np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_bias_correction_makes_the_first_step_one_rate_long(kind):
    for scale in 1e-3, 1.0, 1e3:
        params, g = [np.zeros(3)], scale * np.array([1.0, -2.0, 0.5])
        optimizer = kind(0.1, epsilon=1e-30)
        optimizer.update(params, [g], optimizer.init(params))
        np.testing.assert_allclose(params[0], -0.1 * np.sign(g), rtol=1e-12)


def test_the_norm_is_that_of_all_arrays_together():
    params, grads = [np.zeros(1), np.zeros(1, np.float32)], [np.array([3.0]), np.array([4.0], np.float32)]
    optimizer = SGD(1.0, max_grad_norm=1.0)
    optimizer.update(params, grads, optimizer.init(params))
    np.testing.assert_allclose([params[0][0], params[1][0]], [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [lambda **options: SGD(0.1, momentum=0.9, **options), AdaGrad, RMSProp, AdamW])
def test_any_number_of_threads_gives_the_same_bits(kind, dtype, max_grad_norm, monkeypatch):
    n = 40_000 if config.DISABLE_JIT else 700_000
    monkeypatch.setattr(base, "_BLOCK", n // 7)
    monkeypatch.setattr(base, "_SMALL", 100)
    results = []
    for n_threads in 1, 2, 5:
        monkeypatch.setattr(base, "thread_count", lambda n=n_threads: n)
        params, optimizer = arrays([(n,), (n // 2, 3), (5,)], dtype), kind(max_grad_norm=max_grad_norm)
        state = optimizer.init(params)
        for step in range(2):
            optimizer.update(params, arrays([(n,), (n // 2, 3), (5,)], dtype, seed=step + 1), state)
        results.append(params + state.first + state.second)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@pytest.mark.parametrize("n", [50, 400_000])
def test_a_bad_gradient_anywhere_changes_nothing(n, max_grad_norm, bad):
    if config.DISABLE_JIT and n > 50:
        pytest.skip("takes minutes without compilation")
    for place in 0, n - 1:
        params, grads = arrays([(7,), (n,)], np.float32), arrays([(7,), (n,)], np.float32, seed=1)
        optimizer = AdamW(max_grad_norm=max_grad_norm)
        state = optimizer.init(params)
        optimizer.update(params, grads, state)
        before = copy.deepcopy((params, state))
        grads[1][place] = bad
        with pytest.raises(
            ValueError, match=rf"grads\[1\] has NaN or infinite values, the first is {bad} at \({place},\)"
        ):
            optimizer.update(params, grads, state)
        assert state.step == before[1].step == 1
        now, then = params + state.first + state.second, before[0] + before[1].first + before[1].second
        assert all(np.array_equal(a, b) for a, b in zip(now, then, strict=True))


def test_finite_gradients_may_be_assumed():
    n = 10_000 if config.DISABLE_JIT else 300_000
    params, grads = [np.zeros(n), np.zeros(3)], [np.ones(n), np.ones(3)]
    grads[0][5] = np.nan
    with config_context(assume_finite=True):
        for optimizer in SGD(1.0), SGD(1.0, max_grad_norm=1e9):
            state = optimizer.init(params)
            if optimizer.max_grad_norm is None:
                optimizer.update(params, grads, state)
                continue
            with pytest.raises(ValueError, match="NaN or infinite"):
                optimizer.update(params, grads, state)
    assert np.flatnonzero(params[0] != -1).tolist() == [5]
    np.testing.assert_array_equal(params[1], -np.ones(3))


def test_gradients_whose_squares_overflow_are_fine():
    for max_grad_norm, expected in (None, [-3e200, -4e200]), (1.0, [-0.6, -0.8]):
        params, optimizer = [np.zeros(2), np.zeros(0)], SGD(1.0, max_grad_norm=max_grad_norm)
        optimizer.update(params, [np.array([3e200, 4e200]), np.zeros(0)], optimizer.init(params))
        np.testing.assert_allclose(params[0], expected, rtol=1e-12)


def test_moments_lie_in_cache_lines_as_the_parameters_do():
    for n in 100, 10_000:
        memory = np.zeros(n + 3, np.float32)
        w = memory[3:]
        state = Adam().init([w])
        for moment in state.first[0], state.second[0]:
            assert (moment.ctypes.data - w.ctypes.data) % 64 == 0
            assert moment.flags.carray
            assert not moment.any()


def test_a_changed_parameter_is_seen_and_checked():
    params, grads, optimizer = [np.zeros(1)], [np.ones(1)], SGD(1.0)
    state = optimizer.init(params)
    optimizer.update(params, grads, state)
    optimizer.weight_decay = 1.0
    optimizer.update(params, grads, state)
    np.testing.assert_array_equal(params[0], [-1.0])
    optimizer.set_params(weight_decay=-1.0)
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.update(params, grads, state)


def test_searches():
    X, y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 2
    X[:, 0] += 4 * y
    model = SoftmaxClassifier(optimizer=Adam(), max_iter=20, tol=1.0, random_state=0)
    search = GridSearchCV(model, {"optimizer__learning_rate": [1e-7, 0.1]}, cv=3).fit(X, y)
    assert search.best_params_["optimizer__learning_rate"] == 0.1
    every = [Adam(1e-7), SGD(1e-7), AdaGrad(1e-7), RMSProp(1e-7), AdamW(1e-7), RMSProp(0.1)]
    search = GridSearchCV(model, {"optimizer": every}, cv=3).fit(X, y)
    assert repr(search.best_params_["optimizer"]) == "RMSProp(learning_rate=0.1)"
    model.set_params(optimizer=AdaGrad(InverseTimeDecay(0.1, 0.01)))
    search = GridSearchCV(model, {"optimizer__learning_rate__initial": [1e-7, 0.1]}, cv=3).fit(X, y)
    assert search.best_params_["optimizer__learning_rate__initial"] == 0.1


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_clones_pickles_and_reprs(kind, settings):
    optimizer = kind(0.5, **settings)
    optimizer.update([], [], optimizer.init([]))
    for twin in (
        clone(optimizer),
        pickle.loads(pickle.dumps(optimizer)),
        copy.deepcopy(optimizer),
        eval(repr(optimizer)),
    ):
        assert twin.get_params() == optimizer.get_params()
    assert "learning_rate=0.5" in repr(optimizer)


def test_parameters_are_scikit_learns():
    optimizer = Adam(0.5, beta_1=0.7)
    assert optimizer.get_params() == {
        "learning_rate": 0.5, "beta_1": 0.7, "beta_2": 0.999,
        "epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": None,
    }  # fmt: skip
    assert clone(optimizer).get_params() == optimizer.get_params()
    assert clone(optimizer.set_params(epsilon=1.0)).epsilon == 1.0
    assert pickle.loads(pickle.dumps(optimizer)).beta_1 == 0.7
    assert repr(SGD()) == "SGD()"


def test_state_can_be_copied_and_pickled():
    params, grads = arrays(), arrays(seed=1)
    optimizer = Adam(0.1)
    state = optimizer.init(params)
    optimizer.update(params, grads, state)
    twins = [(copy.deepcopy(params), s) for s in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)))]
    optimizer.update(params, grads, state)
    for twin_params, twin_state in twins:
        optimizer.update(twin_params, grads, twin_state)
        assert all(np.array_equal(a, b) for a, b in zip(params, twin_params, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_settings_at_the_edge_of_the_dtype_give_finite_updates(dtype):
    for optimizer in (
        Adam(0.1, beta_1=math.nextafter(1, 0), beta_2=math.nextafter(1, 0)),
        Adam(0.1, epsilon=5e-324),
        SGD(0.1, momentum=math.nextafter(1, 0)),
        SGD(0.1, max_grad_norm=5e-324),
        SGD(0.0, momentum=np.float32(0.5), nesterov=np.True_),
        AdaGrad(0.1, epsilon=5e-324),
        RMSProp(0.1, rho=math.nextafter(1, 0), momentum=math.nextafter(1, 0), epsilon=5e-324),
    ):
        params, grads = [np.ones(3, dtype)], [np.array([0, 1, 1e-30], dtype)]
        state = optimizer.init(params)
        for _ in range(3):
            optimizer.update(params, grads, state)
        assert np.isfinite(params[0]).all(), optimizer


def test_large_single_precision_gradients_are_clipped_not_refused():
    params, grads = [np.zeros(2, np.float32)], [np.array([3e30, 4e30], np.float32)]
    optimizer = SGD(1.0, max_grad_norm=1.0)
    optimizer.update(params, grads, optimizer.init(params))
    np.testing.assert_allclose(params[0], [-0.6, -0.8], rtol=1e-6)


def test_read_only_gradients_and_subclasses_of_arrays_are_fine():
    params, grads = [np.ones((2, 3))], [np.ones((2, 3))]
    grads[0].flags.writeable = False
    optimizer = SGD(0.5)
    optimizer.update(params, grads, optimizer.init(params))
    np.testing.assert_array_equal(params[0], np.full((2, 3), 0.5))
    matrix = [np.ones((2, 3)).view(np.matrix)]
    optimizer.update(matrix, grads, optimizer.init(matrix))
    np.testing.assert_array_equal(np.asarray(matrix[0]), np.full((2, 3), 0.5))


BAD_SETTINGS = [
    (SGD, {"learning_rate": -1.0}, ValueError, r"learning_rate of SGD\(.*must be in \[0, inf\), got -1.0"),
    (SGD, {"learning_rate": math.nan}, ValueError, "learning_rate .* got nan"),
    (SGD, {"learning_rate": math.inf}, ValueError, "learning_rate .* got inf"),
    (SGD, {"learning_rate": "fast"}, TypeError, "learning_rate .* must be a real number, got 'fast'"),
    (SGD, {"learning_rate": None}, TypeError, "learning_rate .* must be a real number, got None"),
    (SGD, {"learning_rate": True}, TypeError, "learning_rate .* must be a real number, got True"),
    (SGD, {"learning_rate": 1j}, TypeError, "learning_rate .* must be a real number"),
    (SGD, {"momentum": 1.0}, ValueError, r"momentum .* must be in \[0, 1\), got 1.0"),
    (SGD, {"momentum": -0.1}, ValueError, r"momentum .* must be in \[0, 1\)"),
    (SGD, {"momentum": [0.9]}, TypeError, "momentum .* must be a real number"),
    (SGD, {"nesterov": "yes"}, TypeError, "nesterov .* must be True or False, got 'yes'"),
    (SGD, {"nesterov": 2}, TypeError, "nesterov .* must be True or False, got 2"),
    (SGD, {"weight_decay": -1e-9}, ValueError, "weight_decay"),
    (SGD, {"weight_decay": "1"}, TypeError, "weight_decay"),
    (SGD, {"max_grad_norm": 0}, ValueError, r"max_grad_norm .* must be in \(0, inf\), got 0"),
    (SGD, {"max_grad_norm": math.nan}, ValueError, "max_grad_norm"),
    (SGD, {"max_grad_norm": "1"}, TypeError, "max_grad_norm"),
    (Adam, {"beta_1": 1}, ValueError, r"beta_1 .* must be in \[0, 1\)"),
    (Adam, {"beta_2": -0.5}, ValueError, "beta_2"),
    (Adam, {"beta_2": None}, TypeError, "beta_2"),
    (Adam, {"epsilon": 0.0}, ValueError, r"epsilon .* must be in \(0, inf\), got 0.0"),
    (Adam, {"epsilon": math.nan}, ValueError, "epsilon"),
    (Adam, {"learning_rate": np.array([0.1])}, TypeError, "learning_rate"),
    (AdamW, {"weight_decay": -1}, ValueError, r"weight_decay of AdamW\(.* must be in \[0, inf\), got -1"),
    (AdaGrad, {"initial_accumulator_value": -1}, ValueError, "initial_accumulator_value of AdaGrad"),
    (AdaGrad, {"epsilon": 0}, ValueError, "epsilon of AdaGrad"),
    (RMSProp, {"rho": 1.0}, ValueError, r"rho of RMSProp\(.* must be in \[0, 1\), got 1.0"),
    (RMSProp, {"momentum": 1.0}, ValueError, "momentum of RMSProp"),
    (RMSProp, {"epsilon": "small"}, TypeError, "epsilon of RMSProp"),
]


@pytest.mark.parametrize(("kind", "settings", "error", "message"), BAD_SETTINGS)
def test_bad_settings(kind, settings, error, message):
    params, grads = [np.ones(3)], [np.ones(3)]
    optimizer, state = kind(**settings), kind().init(params)
    with pytest.raises(error, match=message):
        optimizer.init(params)
    with pytest.raises(error, match=message):
        optimizer.update(params, grads, state)
    np.testing.assert_array_equal(params[0], np.ones(3))
    assert state.step == 0


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1, "0.1", None, 1j, np.array([0.1])])
def test_bad_schedules(rate):
    params = [np.ones(3)]
    optimizer = Adam(lambda step: rate)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match=r"learning_rate .* must give numbers in \[0, inf\), but gave .* at step 0"):
        optimizer.update(params, [np.ones(3)], state)
    np.testing.assert_array_equal(params[0], np.ones(3))
    assert state.step == 0
    assert not state.first[0].any()


def frozen():
    array = np.ones(3)
    array.flags.writeable = False
    return array


def unaligned():
    return np.frombuffer(bytearray(25), dtype=np.uint8)[1:].view(np.float64)


SHARED = np.ones(6)
NOT_FINITE = r"grads\[0\] has NaN or infinite values, the first is (nan|-inf) at \(1,\)"
BAD_ARRAYS = [
    (np.ones(3), [np.ones(3)], TypeError, "params must be a list of arrays, got ndarray"),
    ([np.ones(3)], np.ones(3), TypeError, "grads must be a list of arrays, got ndarray"),
    ([[1.0, 2.0]], [np.ones(2)], TypeError, r"params\[0\] must be a float32 or float64 array, got list"),
    ([np.ones(3)], [np.ones(3, int)], TypeError, r"grads\[0\] must be a float32 or float64 array, got dtype int64"),
    ([np.ones(3, complex)], [np.ones(3)], TypeError, r"params\[0\] .* got dtype complex128"),
    ([np.ones(3, object)], [np.ones(3)], TypeError, r"params\[0\] .* got dtype object"),
    ([np.ones(3, ">f8")], [np.ones(3)], TypeError, r"params\[0\] .* got dtype >f8"),
    ([np.ones(3, np.float16)], [np.ones(3)], TypeError, r"params\[0\] .* got dtype float16"),
    ([np.ones(3)], [np.ones(4)], ValueError, "grads must have the shapes and dtypes of params"),
    ([np.ones(3)], [np.ones(3, np.float32)], ValueError, "grads must have the shapes and dtypes of params"),
    ([np.ones(3)], [np.ones((3, 1))], ValueError, "grads must have the shapes and dtypes of params"),
    ([np.ones(3)], [], ValueError, "grads must have the shapes and dtypes of params"),
    ([np.ones(6)[::2]], [np.ones(3)], ValueError, r"params\[0\] must be C-contiguous"),
    ([np.ones((2, 2))], [np.asfortranarray(np.ones((2, 2)))], ValueError, r"grads\[0\] must be C-contiguous"),
    ([unaligned()], [np.ones(3)], ValueError, r"params\[0\] must be C-contiguous and aligned"),
    ([frozen()], [np.ones(3)], ValueError, r"params\[0\] is read-only, and updates are in place"),
    ([np.ones(3)], [np.array([1, np.nan, 1])], ValueError, NOT_FINITE),
    ([np.ones(3)], [np.array([1, -np.inf, 1])], ValueError, NOT_FINITE),
    ([SHARED], [SHARED], ValueError, "shares memory with another array"),
    ([SHARED, SHARED], [np.ones(6), np.ones(6)], ValueError, r"params\[1\] shares memory"),
    ([SHARED[:4]], [SHARED[2:]], ValueError, r"grads\[0\] shares memory"),
    ([SHARED[2:]], [SHARED[:4]], ValueError, r"params\[0\] shares memory"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "grads", "error", "message"), BAD_ARRAYS)
def test_bad_arrays(params, grads, error, message):
    before = copy.deepcopy((params, grads))
    optimizer = Adam()
    dtypes = [p.dtype if getattr(p, "dtype", None) in DTYPES else np.float64 for p in params]
    state = optimizer.init([np.zeros(np.shape(p), dtype) for p, dtype in zip(params, dtypes, strict=True)])
    with pytest.raises(error, match=message):
        optimizer.update(params, grads, state)
    for now, then in zip((params, grads), before, strict=True):
        np.testing.assert_array_equal(np.asarray(now), np.asarray(then))
    assert state.step == 0
    assert not any(m.any() for m in state.first + state.second)


def test_bad_states():
    params, grads = arrays([(3,), (2, 2)]), arrays([(3,), (2, 2)], seed=1)
    for state in (
        SGD().init(params),
        Adam().init(params[:1]),
        Adam().init(params[::-1]),
        Adam().init(arrays([(3,), (2, 2)], np.float32)),
        OptimizerState(0, [], []),
    ):
        with pytest.raises(ValueError, match=r"state does not belong to these params: make it with init\(params\)"):
            Adam().update(params, grads, state)
    for state in None, {}, (0, [], []):
        with pytest.raises(TypeError, match="state must be what init"):
            Adam().update(params, grads, state)


def test_gradients_may_share_memory_with_each_other():
    params, g = [np.ones(3), np.ones(3)], np.ones(3)
    optimizer = SGD(1.0)
    optimizer.update(params, [g, g], optimizer.init(params))
    assert not np.any(params)


def test_the_base_class_is_no_optimizer():
    with pytest.raises(TypeError, match="abstract"):
        Optimizer()


def test_no_parameters_at_all():
    state = Adam().init([])
    Adam().update([], [], state)
    assert state.step == 1
