"""Learning-rate schedules: their values, their place among parameters, and bad settings."""

import math
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from fastml import SoftmaxClassifier
from fastml.optim import (
    SGD,
    Adam,
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    OneCycle,
    Schedule,
    StepDecay,
)

ALL = [
    Constant(0.2),
    InverseTimeDecay(0.2, 0.1),
    StepDecay(0.2, 10, gamma=0.5),
    ExponentialDecay(0.2, 0.97),
    CosineDecay(0.2, 40, final=0.01),
    OneCycle(0.2, 40, pct_start=0.25, div_factor=10.0, final_div_factor=100.0),
]
BY_FORMULA = [
    lambda s: 0.2,
    lambda s: 0.2 / (1 + 0.1 * s),
    lambda s: 0.2 * 0.5 ** (s // 10),
    lambda s: 0.2 * 0.97**s,
    lambda s: 0.01 + 0.19 * (1 + math.cos(math.pi * min(s, 40) / 40)) / 2,
    lambda s: (
        0.02 + 0.18 * (1 - math.cos(math.pi * s / 9)) / 2
        if s <= 9
        else 0.0002 + 0.1998 * (1 + math.cos(math.pi * min((s - 9) / 30, 1))) / 2
    ),
]


def name_of(value):
    return type(value).__name__ if isinstance(value, Schedule) else ""


@pytest.mark.parametrize("warmup_steps", [0, 1, 4])
@pytest.mark.parametrize(("schedule", "formula"), list(zip(ALL, BY_FORMULA, strict=True)), ids=name_of)
def test_values(schedule, formula, warmup_steps):
    warm = clone(schedule).set_params(warmup_steps=warmup_steps)
    rising = [formula(0) * (s + 1) / (warmup_steps + 1) for s in range(warmup_steps)]
    expected = rising + [formula(s) for s in range(60)]
    values = [warm(s) for s in range(len(expected))]
    assert {type(value) for value in values} == {float}
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-16)
    assert warm(np.int64(3)) == warm(3.0) == values[3]


@pytest.mark.parametrize("warmup_steps", [0, 17])
@pytest.mark.parametrize("schedule", ALL, ids=name_of)
def test_an_array_of_steps_gives_the_bits_of_single_steps(schedule, warmup_steps):
    schedule = clone(schedule).set_params(warmup_steps=warmup_steps)
    steps = np.arange(1000)
    assert schedule(steps).tolist() == [schedule(s) for s in steps]
    rates = SGD(schedule)._rates(5, 300)
    np.testing.assert_array_equal(rates, np.column_stack([schedule(steps[5:305]), steps[6:306]]))


def test_rates_of_callables_and_numbers():
    called = []
    rates = Adam(lambda step: called.append(step) or 1 / (step + 1))._rates(3, 4)
    assert called == [3, 4, 5, 6]
    np.testing.assert_allclose(rates[:, 0], [1 / 4, 1 / 5, 1 / 6, 1 / 7])
    np.testing.assert_array_equal(Adam(0.5)._rates(0, 2), [[0.5, 1], [0.5, 2]])


def test_a_schedule_of_ones_own_may_take_single_steps_only():
    class Own(InverseTimeDecay):
        def __call__(self, step):
            return 1.0 if step < 2 else super().__call__(step)

    np.testing.assert_allclose(SGD(Own(1.0, 1.0))._rates(0, 4)[:, 0], [1, 1, 1 / 3, 1 / 4])


def test_inverse_time_decay_halves():
    assert InverseTimeDecay(0.1, 0.01)(100) == 0.05
    assert InverseTimeDecay(0.2, 0.1)(10**9) == pytest.approx(0.2 / (1 + 10**8))


def test_same_as_pytorch():
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    pairs = [
        (StepDecay(0.2, 10, gamma=0.5), lambda o: schedulers.StepLR(o, 10, gamma=0.5)),
        (ExponentialDecay(0.2, 0.97), lambda o: schedulers.ExponentialLR(o, 0.97)),
        (CosineDecay(0.2, 40, final=0.01), lambda o: schedulers.CosineAnnealingLR(o, 40, eta_min=0.01)),
        (OneCycle(0.2, 41), lambda o: schedulers.OneCycleLR(o, 0.2, total_steps=41)),
    ]
    for ours, make in pairs:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        theirs, rates = make(optimizer), []
        for _ in range(40):
            rates.append(theirs.get_last_lr()[0])
            optimizer.step()
            theirs.step()
        np.testing.assert_allclose(ours(np.arange(40)), rates, rtol=1e-12)


def test_one_cycle_with_hardly_a_step_up():
    np.testing.assert_allclose(
        OneCycle(1.0, 2, pct_start=1e-3, final_div_factor=4)(np.arange(4)), [1, 0.01, 0.01, 0.01]
    )


@pytest.mark.parametrize("schedule", ALL, ids=name_of)
def test_clones_pickles_and_reprs(schedule):
    for twin in clone(schedule), pickle.loads(pickle.dumps(schedule)), eval(repr(schedule)):
        assert twin.get_params() == schedule.get_params()
        assert twin(7) == schedule(7)


def test_settings_can_be_searched():
    model = SoftmaxClassifier(optimizer=Adam(InverseTimeDecay(0.01, 0.003)))
    assert model.get_params()["optimizer__learning_rate__decay"] == 0.003
    other = clone(model).set_params(optimizer__learning_rate__initial=0.5)
    assert other.optimizer.learning_rate(0) == 0.5
    assert model.optimizer.learning_rate(0) == 0.01


INTERVALS = {
    "initial": "[0, inf)", "maximum": "[0, inf)", "decay": "[0, inf)", "final": "[0, inf)", "warmup_steps": "[0, inf)",
    "step_size": "[1, inf)", "n_steps": "[1, inf)", "div_factor": "[1, inf)", "final_div_factor": "[1, inf)",
    "gamma": "(0, 1]", "pct_start": "(0, 1)",
}  # fmt: skip


@pytest.mark.parametrize("schedule", ALL, ids=name_of)
def test_bad_settings(schedule):
    params = [np.ones(3)]
    for name in schedule.get_params():
        for value, error, what in [
            (-1, ValueError, f"in {INTERVALS[name]}"),
            ("0.1", TypeError, "a real number|an integer"),
            (None, TypeError, "a real number|an integer"),
            ([0.1], TypeError, "a real number|an integer"),
            (True, TypeError, "a real number|an integer"),
        ]:
            bad = clone(schedule).set_params(**{name: value})
            what = what.replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")
            with pytest.raises(
                error, match=rf"(?s){name} of {type(schedule).__name__}\(.* must be ({what}), got"
            ) as caught:
                bad(0)
            optimizer = SGD(bad)
            with pytest.raises(error) as again:
                optimizer.update(params, [np.ones(3)], optimizer.init(params))
            assert str(again.value) == str(caught.value)
    np.testing.assert_array_equal(params[0], np.ones(3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rates_must_be_finite(value):
    with pytest.raises(ValueError, match=r"initial of InverseTimeDecay\(.* must be in \[0, inf\), got"):
        InverseTimeDecay(value, 0.1)(0)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (StepDecay(0.1, 2.5), "step_size of .* must be an integer, got 2.5"),
        (Constant(0.1, warmup_steps=1.5), "warmup_steps of .* must be an integer, got 1.5"),
        (OneCycle(0.1, 1), "n_steps of .* must be at least 2"),
        (StepDecay(0.1, 10, gamma=1.1), r"gamma of .* must be in \(0, 1\], got 1.1"),
        (OneCycle(0.1, 10, pct_start=1.0), r"pct_start of .* must be in \(0, 1\), got 1.0"),
    ],
)
def test_other_bad_settings(schedule, message):
    with pytest.raises((TypeError, ValueError), match=message):
        schedule(0)


def test_rates_beyond_double_precision_are_refused():
    class Growing(Schedule):
        warmup_steps = 0

        def _check(self):
            pass

        def _values(self, steps):
            with np.errstate(over="ignore"):
                return 10.0 ** (100 * steps)

    with pytest.raises(ValueError, match=r"must give numbers in \[0, inf\), but gave .*inf.* at step 4"):
        SGD(Growing())._rates(0, 10)
    with pytest.raises(TypeError, match="abstract"):
        Schedule()
