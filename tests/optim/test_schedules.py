"""Learning-rate schedules: their values, their place among parameters, and bad settings."""

import math
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from fastml import SoftmaxClassifier
from fastml.optim import SGD, Adam, InverseTimeDecay


def test_inverse_time_decay():
    schedule = InverseTimeDecay(0.2, 0.1)
    np.testing.assert_allclose([schedule(s) for s in (0, 1, 10, 10**9)], [0.2, 0.2 / 1.1, 0.1, 0.2 / (1 + 10**8)])
    warm = InverseTimeDecay(0.2, 0.1, warmup_steps=3)
    np.testing.assert_allclose([warm(s) for s in range(5)], [0.05, 0.1, 0.15, 0.2, 0.2 / 1.1])
    assert pickle.loads(pickle.dumps(warm))(1) == warm(1)


def test_settings_can_be_searched():
    model = SoftmaxClassifier(optimizer=Adam(InverseTimeDecay(0.01, 0.003)))
    assert model.get_params()["optimizer__learning_rate__decay"] == 0.003
    other = clone(model).set_params(optimizer__learning_rate__initial=0.5)
    assert other.optimizer.learning_rate(0) == 0.5
    assert model.optimizer.learning_rate(0) == 0.01


@pytest.mark.parametrize("name", ["initial", "decay", "warmup_steps"])
@pytest.mark.parametrize("value", [-1, math.nan, "0.1", None, [0.1]])
def test_bad_settings(name, value):
    schedule = InverseTimeDecay(0.1, 0.1).set_params(**{name: value})
    message = rf"{name} of InverseTimeDecay\(.* must be a number of at least 0, got"
    with pytest.raises(ValueError, match=message):
        schedule(0)
    params, optimizer = [np.ones(3)], SGD(schedule)
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, [np.ones(3)], optimizer.init(params))
    np.testing.assert_array_equal(params[0], np.ones(3))


def test_an_infinite_rate_is_refused_by_the_optimizer():
    params, optimizer = [np.ones(3)], SGD(InverseTimeDecay(math.inf, 0.1))
    with pytest.raises(ValueError, match="learning_rate of SGD"):
        optimizer.update(params, [np.ones(3)], optimizer.init(params))
