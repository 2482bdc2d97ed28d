"""The optimizers: their rules, parameters and sources. An update is one pass over memory, in ``fastml.kernels``."""

import numpy as np

from fastml.kernels import _rules as rules
from fastml.optim._base import Optimizer
from fastml.optim._numbers import check_number


def _below_one(value, dtype):
    """A number below 1 that stays below 1 in this dtype."""
    return min(value, 1 - np.finfo(dtype).epsneg)


def _above_zero(value, dtype):
    """A positive number that stays a normal one in this dtype."""
    return max(value, np.finfo(dtype).tiny)


class SGD(Optimizer):
    """Stochastic gradient descent, plain or with (Nesterov) momentum.

    The velocity is ``v = momentum * v + g``, the step ``w -= learning_rate * v``; with ``nesterov``
    ``w -= learning_rate * (g + momentum * v)``: the form of PyTorch.

    Parameters
    ----------
    learning_rate : float or callable, default=0.01
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    momentum : float, default=0.0
        In [0, 1): how much of the velocity each step keeps.
    nesterov : bool, default=False
        Look ahead along the velocity.
    weight_decay : float, default=0.0
        Added to the gradient as ``weight_decay * w``.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep learning. ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import SGD
    >>> w, optimizer = [np.array([1.0, 2.0])], SGD(learning_rate=0.5)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([1.0, 0.0])], state)
    >>> w[0]
    array([0.5, 2. ])
    """

    _kind = rules.SGD

    def __init__(self, learning_rate=0.01, *, momentum=0.0, nesterov=False, weight_decay=0.0, max_grad_norm=None):
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm

    def _check_rule(self):
        if not isinstance(self.nesterov, bool | np.bool_):
            raise TypeError(f"nesterov of {self!r} must be True or False, got {self.nesterov!r}.")
        check_number(self, "momentum", "[0, 1)")

    def _uses(self):
        return self.momentum > 0, False

    def _hyper(self, dtype):
        return np.array([_below_one(self.momentum, dtype), 0, 0, self.nesterov, self.weight_decay], dtype)


class Adam(Optimizer):
    """Adam: steps in units of the learning rate, from bias-corrected means of the gradient and of its square.

    ``m = beta_1 m + (1 - beta_1) g``, ``v = beta_2 v + (1 - beta_2) g^2``, and at step t
    ``w -= learning_rate * m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable, default=0.001
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    beta_1, beta_2 : float, default=0.9 and 0.999
        In [0, 1): how long the mean of the gradient and the mean of its square remember.
    epsilon : float, default=1e-8
        Keeps the divisor from 0.
    weight_decay : float, default=0.0
        Added to the gradient as ``weight_decay * w``.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import Adam
    >>> w, optimizer = [np.array([1.0, 2.0])], Adam(learning_rate=0.5)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([10.0, 0.0])], state)
    >>> w[0]
    array([0.5, 2. ])
    """

    _kind = rules.ADAM

    def __init__(
        self, learning_rate=1e-3, *, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0, max_grad_norm=None
    ):
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm

    def _check_rule(self):
        check_number(self, "beta_1", "[0, 1)")
        check_number(self, "beta_2", "[0, 1)")
        check_number(self, "epsilon", "(0, inf)")

    def _uses(self):
        return True, True

    def _hyper(self, dtype):
        betas = _below_one(self.beta_1, dtype), _below_one(self.beta_2, dtype)
        return np.array([*betas, _above_zero(self.epsilon, dtype), 0, self.weight_decay], dtype)


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameters shrink by themselves, whatever the size of the gradients.

    At each step first ``w *= 1 - learning_rate * weight_decay``, then the step of :class:`Adam` without weight decay.

    Parameters
    ----------
    learning_rate : float or callable, default=0.001
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    beta_1, beta_2 : float, default=0.9 and 0.999
        In [0, 1): how long the mean of the gradient and the mean of its square remember.
    epsilon : float, default=1e-8
        Keeps the divisor from 0.
    weight_decay : float, default=0.01
        How fast the parameters shrink, per unit of the learning rate.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019; in PyTorch's form, where the learning rate
    multiplies the decay.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import AdamW
    >>> w, optimizer = [np.array([1.0, 2.0])], AdamW(learning_rate=0.5, weight_decay=0.5)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([10.0, 0.0])], state)
    >>> w[0]
    array([0.25, 1.5 ])
    """

    _kind = rules.ADAMW

    def __init__(
        self, learning_rate=1e-3, *, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=1e-2, max_grad_norm=None
    ):
        super().__init__(
            learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
        )


class AdaGrad(Optimizer):
    """AdaGrad: each coordinate's rate falls with the sum of its squared gradients, so that rare ones keep theirs.

    ``s = s + g^2``, ``w -= learning_rate * g / (sqrt(s) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable, default=0.01
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    initial_accumulator_value : float, default=0.0
        Where the sum of squares begins.
    epsilon : float, default=1e-10
        Keeps the divisor from 0.
    weight_decay : float, default=0.0
        Added to the gradient as ``weight_decay * w``.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Duchi, Hazan, Singer: Adaptive subgradient methods for online learning and stochastic optimization. JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import AdaGrad
    >>> w, optimizer = [np.array([1.0, 2.0])], AdaGrad(learning_rate=0.5)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([10.0, 0.0])], state)
    >>> w[0]
    array([0.5, 2. ])
    """

    _kind = rules.ADAGRAD

    def __init__(
        self,
        learning_rate=0.01,
        *,
        initial_accumulator_value=0.0,
        epsilon=1e-10,
        weight_decay=0.0,
        max_grad_norm=None,
    ):
        self.learning_rate = learning_rate
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm

    def _check_rule(self):
        check_number(self, "initial_accumulator_value", "[0, inf)")
        check_number(self, "epsilon", "(0, inf)")

    def _uses(self):
        return False, True

    def _hyper(self, dtype):
        return np.array([0, 1, _above_zero(self.epsilon, dtype), 0, self.weight_decay], dtype)

    def _moments(self, n, dtype, beside=0):
        first, second = super()._moments(n, dtype, beside)
        second += self.initial_accumulator_value
        return first, second


class RMSProp(Optimizer):
    """RMSProp: steps in units of the gradient's recent root mean square, plain or with momentum.

    ``s = rho * s + (1 - rho) * g^2``, ``v = momentum * v + g / (sqrt(s) + epsilon)``, ``w -= learning_rate * v``: the
    form of PyTorch, not centred.

    Parameters
    ----------
    learning_rate : float or callable, default=0.01
        Size of a step, or a schedule ``step -> rate`` with steps counted from 0.
    rho : float, default=0.99
        In [0, 1): how long the mean of the squared gradient remembers.
    momentum : float, default=0.0
        In [0, 1): how much of the velocity each step keeps.
    epsilon : float, default=1e-8
        Keeps the divisor from 0.
    weight_decay : float, default=0.0
        Added to the gradient as ``weight_decay * w``.
    max_grad_norm : float or None, default=None
        Gradients of a larger Euclidean norm (over all arrays) are scaled down to it.

    References
    ----------
    Tieleman, Hinton: Lecture 6.5 - RMSProp. COURSERA: Neural networks for machine learning, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.optim import RMSProp
    >>> w, optimizer = [np.array([1.0, 2.0])], RMSProp(learning_rate=0.05)
    >>> state = optimizer.init(w)
    >>> optimizer.update(w, [np.array([10.0, 0.0])], state)
    >>> w[0].round(6)
    array([0.5, 2. ])
    """

    _kind = rules.RMSPROP

    def __init__(
        self,
        learning_rate=0.01,
        *,
        rho=0.99,
        momentum=0.0,
        epsilon=1e-8,
        weight_decay=0.0,
        max_grad_norm=None,
    ):
        self.learning_rate = learning_rate
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm

    def _check_rule(self):
        check_number(self, "rho", "[0, 1)")
        check_number(self, "momentum", "[0, 1)")
        check_number(self, "epsilon", "(0, inf)")

    def _uses(self):
        return self.momentum > 0, True

    def _hyper(self, dtype):
        keep = _below_one(self.momentum, dtype), _below_one(self.rho, dtype)
        return np.array([*keep, _above_zero(self.epsilon, dtype), 0, self.weight_decay], dtype)
