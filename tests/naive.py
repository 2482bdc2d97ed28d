"""Every quantity of the library, defined once in plain NumPy and float64: no blocks, no tricks, no checks.

Where a definition has choices, this file is where they are made.
"""

import numpy as np
import scipy.sparse
import scipy.special


def _dense(array):
    """A float64 array; CSR is filled in."""
    return np.asarray(array.toarray() if scipy.sparse.issparse(array) else array, dtype=np.float64)


def _weights(sample_weight, n_rows):
    return np.ones(n_rows) if sample_weight is None else _dense(sample_weight)


# ---------------------------------------------------------------------------------------------- softmax


def log_sum_exp(logits):
    """log sum_c exp(z_c) of each row."""
    z = _dense(logits)
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def log_softmax(logits, temperature=1.0):
    """log p_c = z_c / T - log sum exp(z / T)."""
    z = _dense(logits) / temperature
    return z - log_sum_exp(z)[:, None]


def softmax(logits, temperature=1.0):
    """p_c = exp(z_c / T) / sum exp(z / T); 0 for a masked class (z = -inf)."""
    return np.exp(log_softmax(logits, temperature))


def smoothed_target(logits, target, label_smoothing=0.0):
    """(1 - s) t + s / (number of unmasked classes) on unmasked classes, for labels or probabilities t."""
    unmasked = ~np.isneginf(_dense(logits))
    target = np.asarray(target)
    t = (target[:, None] == np.arange(unmasked.shape[1])) * 1.0 if target.ndim == 1 else _dense(target)
    return (1 - label_smoothing) * t + label_smoothing * unmasked / unmasked.sum(axis=1, keepdims=True)


def softmax_cross_entropy(logits, target, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """w_i times - sum_c t_c log p_c; a class without target mass counts for nothing."""
    t = smoothed_target(logits, target, label_smoothing)
    log_p = np.where(t > 0, log_softmax(logits, temperature), 0.0)
    return _weights(sample_weight, len(t)) * -(t * log_p).sum(axis=1)


def softmax_cross_entropy_grad(logits, target, sample_weight=None, label_smoothing=0.0, temperature=1.0):
    """Gradient of the sum of the losses: w_i / T (p sum_c t_c - t)."""
    t = smoothed_target(logits, target, label_smoothing)
    w = _weights(sample_weight, len(t))[:, None]
    return w / temperature * (softmax(logits, temperature) * t.sum(axis=1, keepdims=True) - t)


def _linear(X, W, b):
    return _dense(X) @ _dense(W).T + (0 if b is None else _dense(b))


def linear_softmax_cross_entropy(X, W, b, target, **options):
    """softmax_cross_entropy of the logits X W' + b."""
    return softmax_cross_entropy(_linear(X, W, b), target, **options)


def linear_softmax_cross_entropy_grad(X, W, b, target, **options):
    """Gradients of the sum of the losses with respect to X, W and b (None without a b)."""
    g = softmax_cross_entropy_grad(_linear(X, W, b), target, **options)
    return g @ _dense(W), g.T @ _dense(X), None if b is None else g.sum(axis=0)


def kl_divergence(logits, target, sample_weight=None, temperature=1.0):
    """w_i times sum_c t_c (log t_c - log p_c); a class without target mass counts for nothing."""
    t = _dense(target)
    some = t > 0
    terms = np.log(np.where(some, t, 1)) - np.where(some, log_softmax(logits, temperature), 0)
    return _weights(sample_weight, len(t)) * (t * terms).sum(axis=1)


def kl_divergence_grad(logits, target, sample_weight=None, temperature=1.0):
    """Gradient of the sum of the losses: that of the cross-entropy, as the target's entropy is a constant."""
    return softmax_cross_entropy_grad(logits, target, sample_weight, 0.0, temperature)


# ---------------------------------------------------------------------------------------------- single outputs


def _by_row(sample_weight, values):
    """The weights of rows, to be multiplied with ``values`` (n,) or (n, K)."""
    return _weights(sample_weight, len(values)).reshape(-1, *[1] * (values.ndim - 1))


def sigmoid(z):
    """1 / (1 + exp(-z))."""
    z = _dense(z)
    return np.where(z > 0, 1, np.exp(-np.abs(z))) / (1 + np.exp(-np.abs(z)))


def sigmoid_grad(z, upstream):
    """s (1 - s), where 1 - s(z) = s(-z)."""
    return sigmoid(z) * sigmoid(-_dense(z)) * _dense(upstream)


def tanh(z):
    """(exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return np.tanh(_dense(z))


def tanh_grad(z, upstream):
    """1 - tanh^2, which is 4 s(2 z) (1 - s(2 z))."""
    return 4 * sigmoid_grad(2 * _dense(z), upstream)


def relu(z):
    """max(z, 0)."""
    return np.maximum(_dense(z), 0)


def relu_grad(z, upstream):
    """1 above zero, 0 up to there."""
    return (_dense(z) > 0) * _dense(upstream)


def leaky_relu(z, slope=0.01):
    """z, or slope times z below zero; PReLU is the same with a slope for each column."""
    z = _dense(z)
    return np.where(z > 0, z, slope * z)


def leaky_relu_grad(z, upstream, slope=0.01):
    """1 above zero, the slope up to there."""
    return np.where(_dense(z) > 0, 1, slope) * _dense(upstream)


def prelu(z, slope=0.25):
    return leaky_relu(z, slope)


def prelu_grad(z, upstream, slope=0.25):
    return leaky_relu_grad(z, upstream, slope)


def elu(z):
    """z, or exp(z) - 1 below zero."""
    z = _dense(z)
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def elu_grad(z, upstream):
    """1, or exp(z) below zero."""
    return np.exp(np.minimum(_dense(z), 0)) * _dense(upstream)


def gelu(z):
    """z Phi(z), with the distribution function of the standard normal distribution."""
    return _dense(z) * scipy.special.ndtr(_dense(z))


def gelu_grad(z, upstream):
    """Phi(z) + z phi(z)."""
    z = _dense(z)
    return (scipy.special.ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)) * _dense(upstream)


def gelu_tanh(z):
    """z (1 + tanh u) / 2 with u = sqrt(2 / pi) (z + 0.044715 z^3)."""
    z = _dense(z)
    return z * sigmoid(np.sqrt(8 / np.pi) * (z + 0.044715 * z**3))


def gelu_tanh_grad(z, upstream):
    """By the product and the chain rule."""
    z = _dense(z)
    u, slope = np.sqrt(8 / np.pi) * (z + 0.044715 * z**3), np.sqrt(8 / np.pi) * (1 + 3 * 0.044715 * z**2)
    return (sigmoid(u) + z * sigmoid_grad(u, slope)) * _dense(upstream)


def identity(z):
    return _dense(z)


def identity_grad(z, upstream):
    return _dense(upstream)


# ---------------------------------------------------------------------------------------------- networks


def dropout_mask(shape, dropout, seed, step, layer):
    """What the activations (n, width) of a layer are multiplied by: 0, or 1 / (1 - dropout)."""
    key = mixed(mixed(mixed(seed) + step * GAMMA) + layer * GAMMA)
    draws = [mixed(key + position * GAMMA) >> 40 for position in range(shape[0] * shape[1])]
    return (np.array(draws).reshape(shape) >= round(dropout * 2**24)) / (1 - dropout)


class Network:
    """Dense layers, each a dictionary of ``coef``, ``intercept`` and, if hidden, what batch norm and PReLU need.

    ``forward`` is a step of training: batch norm takes the moments of the batch (and adds 1e-5 to the variance).
    """

    def __init__(self, layers, activation, output_activation="identity", dropout=0.0, seed=0, step=0):
        self.layers = [{name: _dense(array) for name, array in layer.items()} for layer in layers]
        self.names = [activation] * (len(layers) - 1) + [output_activation]
        self.dropout, self.draw = dropout, (seed, step)

    def _slope(self, k):
        return {"slope": self.layers[k]["slope"]} if self.names[k] == "prelu" else {}

    def forward(self, X):
        h, self.kept = _dense(X), []
        for k, (layer, name) in enumerate(zip(self.layers, self.names, strict=True)):
            before, z, x, deviation = h, h @ layer["coef"], None, None
            if "scale" in layer:
                deviation = np.sqrt(z.var(axis=0) + 1e-5)
                x = (z - z.mean(axis=0)) / deviation
                z = x * layer["scale"]
            z = z + layer["intercept"]
            h, mask = globals()[name](z, **self._slope(k)), 1.0
            if k < len(self.layers) - 1 and self.dropout:
                mask = dropout_mask(h.shape, self.dropout, *self.draw, k)
            h = h * mask
            self.kept.append((before, z, x, deviation, mask))
        return h

    def backward(self, upstream):
        """Gradients of (upstream * outputs).sum(): a dictionary for each layer."""
        g, result = _dense(upstream), []
        for k in range(len(self.layers) - 1, -1, -1):
            (before, z, x, deviation, mask), layer, grads = self.kept[k], self.layers[k], {}
            g = g * mask
            if self.names[k] == "prelu":
                grads["slope"] = (g * np.minimum(z, 0)).sum(axis=0)
            g = globals()[self.names[k] + "_grad"](z, g, **self._slope(k))
            grads["intercept"] = g.sum(axis=0)
            if x is not None:
                grads["scale"] = (g * x).sum(axis=0)
                g = layer["scale"] / deviation * (g - g.mean(axis=0) - x * (g * x).mean(axis=0))
            grads["coef"] = before.T @ g
            g = g @ layer["coef"].T
            result.append(grads)
        return result[::-1]


# ---------------------------------------------------------------------------------------------- single outputs' losses


def binary_cross_entropy(logits, target, sample_weight=None):
    """w_i times - t log s(z) - (1 - t) log(1 - s(z)), where - log s(z) = log(1 + exp(-z))."""
    z, t = _dense(logits), _dense(target)
    return _by_row(sample_weight, z) * (t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z))


def binary_cross_entropy_grad(logits, target, sample_weight=None):
    """w_i (s(z) - t)."""
    z = _dense(logits)
    return _by_row(sample_weight, z) * (sigmoid(z) - _dense(target))


def squared_error(prediction, target, sample_weight=None):
    """w_i times half the square of the residual."""
    r = _dense(prediction) - _dense(target)
    return _by_row(sample_weight, r) * 0.5 * r**2


def squared_error_grad(prediction, target, sample_weight=None):
    """w_i r."""
    r = _dense(prediction) - _dense(target)
    return _by_row(sample_weight, r) * r


def absolute_error(prediction, target, sample_weight=None):
    """w_i times the size of the residual."""
    r = _dense(prediction) - _dense(target)
    return _by_row(sample_weight, r) * np.abs(r)


def absolute_error_grad(prediction, target, sample_weight=None):
    """w_i times the sign of the residual, 0 where there is none."""
    r = _dense(prediction) - _dense(target)
    return _by_row(sample_weight, r) * np.sign(r)


def huber(prediction, target, sample_weight=None, delta=1.0):
    """w_i times r^2 / 2 where |r| <= delta, delta (|r| - delta / 2) beyond."""
    r = _dense(prediction) - _dense(target)
    loss = np.where(np.abs(r) <= delta, 0.5 * r**2, delta * (np.abs(r) - 0.5 * delta))
    return _by_row(sample_weight, r) * loss


def huber_grad(prediction, target, sample_weight=None, delta=1.0):
    """w_i r, clipped to a size of delta."""
    r = _dense(prediction) - _dense(target)
    return _by_row(sample_weight, r) * np.clip(r, -delta, delta)


# ---------------------------------------------------------------------------------------------- optimizers


def shrink(w, threshold):
    """The proximal step of an L1 penalty: towards zero by ``threshold``, and not beyond."""
    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0)


def clip(grads, max_grad_norm=None):
    """The gradients, scaled down to a Euclidean norm of at most ``max_grad_norm`` over all of them."""
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    return grads if max_grad_norm is None or norm <= max_grad_norm else [g * max_grad_norm / norm for g in grads]


def sgd(w, g, state, rate, step, *, momentum=0.0, nesterov=False, weight_decay=0.0, l1=0.0):
    """v = momentum v + g, and w - rate v, or with Nesterov w - rate (g + momentum v); returns w and the state."""
    g = g + weight_decay * w
    v = g if state is None else momentum * state + g
    w = w - rate * (g + momentum * v if nesterov else v)
    return shrink(w, rate * l1 / (1 - momentum)), v


def adam(w, g, state, rate, step, *, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.0, l1=0.0):
    """Kingma and Ba 2015, algorithm 1, ``step`` from 1; returns w and the state."""
    g = g + weight_decay * w
    m, v = (0, 0) if state is None else state
    m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
    scale = rate / (np.sqrt(v / (1 - beta_2**step)) + epsilon)
    return shrink(w - scale * m / (1 - beta_1**step), scale * l1), (m, v)


class SoftmaxTraining:
    """Mini-batch training of W (C, d) and b (C,) from zero, one ``epoch`` after the other.

    The gradient of a step is that of the mean loss of its rows, weights scaled to a mean of one over all rows.
    ``rule`` is ``sgd`` or ``adam``, ``learning_rate`` a number or a function of the steps done. The loss of an
    epoch is the mean of its losses on the way, plus the penalty at its end.
    """

    def __init__(self, X, target, n_classes, rule, learning_rate, *, batch_size, l2=0.0, l1=0.0, sample_weight=None,
                 label_smoothing=0.0, fit_intercept=True, max_grad_norm=None, **options):  # fmt: skip
        self.X, self.target = _dense(X), np.asarray(target)
        w = _weights(sample_weight, len(self.X))
        self.weight, self.label_smoothing, self.fit_intercept = w / w.mean(), label_smoothing, fit_intercept
        self.W, self.b = np.zeros((n_classes, self.X.shape[1])), np.zeros(n_classes)
        self.batch_size, self.l2, self.l1, self.max_grad_norm = batch_size, l2, l1, max_grad_norm
        self.rule, self.options, self.learning_rate = rule, options, learning_rate
        self.steps, self.states = 0, [None, None]

    def epoch(self, order):
        """One pass over the rows in this order; returns its loss."""
        total = 0.0
        for first in range(0, len(order), self.batch_size):
            total += self.step(order[first : first + self.batch_size])
        return total / len(order) + self.l2 / 2 * (self.W**2).sum() + self.l1 * np.abs(self.W).sum()

    def step(self, rows):
        """One update from these rows; returns the sum of their losses before it."""
        batch = self.X[rows], self.W, self.b, self.target[rows]
        settings = {"sample_weight": self.weight[rows], "label_smoothing": self.label_smoothing}
        loss = linear_softmax_cross_entropy(*batch, **settings).sum()
        _, W_grad, b_grad = linear_softmax_cross_entropy_grad(*batch, **settings)
        b_grad = b_grad / len(rows) if self.fit_intercept else np.zeros_like(b_grad)
        grads = clip([W_grad / len(rows) + self.l2 * self.W, b_grad], self.max_grad_norm)
        rate = self.learning_rate(self.steps) if callable(self.learning_rate) else self.learning_rate
        self.steps += 1
        common = {"rate": rate, "step": self.steps, **self.options}
        self.W, self.states[0] = self.rule(self.W, grads[0], self.states[0], l1=self.l1, **common)
        self.b, self.states[1] = self.rule(self.b, grads[1], self.states[1], **common)
        return loss


# ---------------------------------------------------------------------------------------------- WALS


def stored(array):
    """Where a sparse matrix stores an entry, as booleans; stored zeros too."""
    array = scipy.sparse.coo_array(array)
    result = np.zeros(array.shape, bool)
    result[array.coords] = True
    return result


def wals_penalties(X, regularization, unobserved_weight, regularization_exponent):
    """lambda n_u^nu of each row, n_u = entries of u + a0 I."""
    n = stored(X).sum(axis=1) + unobserved_weight * X.shape[1]
    return regularization * n**regularization_exponent


def wals_objective(X, W, H, *, regularization, unobserved_weight, regularization_exponent):
    """Implicit feedback: its three parts, observed, unobserved and regularization; X has the weights c."""
    c, scores, settings = _dense(X), _dense(W) @ _dense(H).T, (unobserved_weight, regularization_exponent)
    penalties = wals_penalties(X, regularization, *settings), wals_penalties(X.T, regularization, *settings)
    squares = (_dense(W) ** 2).sum(axis=1), (_dense(H) ** 2).sum(axis=1)
    penalty = penalties[0] @ squares[0] + penalties[1] @ squares[1]
    return (c * (scores - 1) ** 2).sum(), unobserved_weight * (scores**2).sum(), penalty


def normal_equations(H, c, t, unobserved_weight, ridge):
    """System of one row, (sum c h h' + a0 H'H + ridge I) w = sum c t h; c is 0 where nothing is stored."""
    H, c, t = _dense(H), _dense(c), _dense(t)
    return (H.T * (c + unobserved_weight)) @ H + ridge * np.eye(H.shape[1]), H.T @ (c * t)


def block_descent(A, b, x, size):
    """A x = b, solved for some unknowns after the others, from x on; with size 1 that is coordinate descent."""
    x = _dense(x).copy()
    for first in range(0, len(x), size):
        block = slice(first, first + size)
        x[block] += np.linalg.solve(A[block, block], (b - A @ x)[block])
    return x


def conjugate_gradient(A, b, x, preconditioner, n_steps):
    """A x = b, some steps from x on (Hestenes & Stiefel, 1952, with a preconditioner)."""
    x = _dense(x)
    r = b - A @ x
    p = np.linalg.solve(preconditioner, r)
    product = r @ p
    for _ in range(n_steps):
        if product == 0:
            break
        q = A @ p
        length = product / (p @ q)
        x, r = x + length * p, r - length * q
        z = np.linalg.solve(preconditioner, r)
        product, last = r @ z, product
        p = z + product / last * p
    return x


def wals_users(X, H, *, regularization, unobserved_weight, regularization_exponent):
    """The users' factors that minimise it given the items: (sum_S c h h' + a0 H'H + lambda n_u^nu) w = sum_S c h."""
    c, H = _dense(X), _dense(H)
    penalties = wals_penalties(X, regularization, unobserved_weight, regularization_exponent)
    return np.array([
        np.linalg.solve(*normal_equations(H, c_u, np.ones(len(H)), unobserved_weight, penalty))
        if c_u.any() else np.zeros(H.shape[1])
        for c_u, penalty in zip(c, penalties, strict=True)
    ])  # fmt: skip


def ratings_objective(X, W, H, b, d, mean, *, regularization, regularization_exponent, weights=None):
    """Explicit feedback: the same parts; X has the ratings, biases b and d are regularised as factors are."""
    residual = _dense(W) @ _dense(H).T + _dense(b)[:, None] + _dense(d) + mean - _dense(X)
    c = stored(X) if weights is None else _dense(weights)
    squares = (_dense(W) ** 2).sum(axis=1) + _dense(b) ** 2, (_dense(H) ** 2).sum(axis=1) + _dense(d) ** 2
    penalties = [wals_penalties(side, regularization, 0, regularization_exponent) for side in (X, X.T)]
    return (c * residual**2).sum(), 0.0, penalties[0] @ squares[0] + penalties[1] @ squares[1]


def ratings_users(X, H, d, mean, *, regularization, regularization_exponent, weights=None):
    """The users' factors and biases that minimise it given the items: ridge regression on (h_i, 1) of each row."""
    c = (stored(X) if weights is None else _dense(weights)) * 1.0
    x, targets = np.column_stack([_dense(H), np.ones(len(H))]), _dense(X) - _dense(d) - mean
    penalties = wals_penalties(X, regularization, 0, regularization_exponent)
    solved = np.array([
        np.linalg.solve(*normal_equations(x, c_u, t_u, 0, penalty))
        if c_u.any() else np.zeros(x.shape[1])
        for c_u, t_u, penalty in zip(c, targets, penalties, strict=True)
    ])  # fmt: skip
    return solved[:, :-1], solved[:, -1]


# ---------------------------------------------------------------------------------------------- contrastive


def similarities(queries, keys, similarity="cosine"):
    """Cosines, of rows of zeros 0; or inner products."""
    queries, keys = _dense(queries), _dense(keys)
    if similarity == "cosine":
        queries, keys = (x / np.where(x.any(axis=1), np.linalg.norm(x, axis=1), 1)[:, None] for x in (queries, keys))
    return queries @ keys.T


def folding_score(queries, keys, k=10):
    """Of the k other keys that are nearest to a query, the share that is nearly as near as its own; mean of all."""
    s = similarities(queries, keys)
    nearer, k = (s >= np.diag(s)[:, None] - 0.01).sum(axis=1) - 1, min(k, len(s) - 1)
    return np.minimum(nearer, k).mean() / k


def info_nce(queries, keys, *, negatives=None, temperature=0.07, similarity="cosine", symmetric=False, ids=None,
             log_q=None, sample_weight=None):  # fmt: skip
    """Row i of keys is the positive of row i of queries, all other keys and negatives are its negatives."""
    n, keys = len(queries), keys if negatives is None else np.vstack([keys, negatives])
    z = similarities(queries, keys, similarity) / temperature
    if log_q is not None:
        z[:, : len(log_q)] -= log_q
    if ids is not None:
        same = np.equal.outer(np.asarray(ids), np.asarray(ids)) & ~np.eye(n, dtype=bool)
        z[:, :n][same] = -np.inf
    own = np.diag(z)
    loss = np.logaddexp.reduce(z, axis=1) - own
    if symmetric:
        loss = (loss + np.logaddexp.reduce(z[:, :n], axis=0) - own) / 2
    return loss if sample_weight is None else loss * sample_weight


# ---------------------------------------------------------------------------------------------- sampled losses


def _candidates(X, W, b, target, negatives, log_q=None, remove_accidental_hits=True):
    """Classes (n, 1 + m), target first, and their logits - log q, of the target too; -inf for an accidental hit."""
    target, negatives = np.asarray(target), np.asarray(negatives)
    classes = np.column_stack([target, np.tile(negatives, (len(target), 1))])
    z = np.take_along_axis(_linear(X, W, b) - (0 if log_q is None else _dense(log_q)), classes, axis=1)
    if remove_accidental_hits:
        z[:, 1:][classes[:, 1:] == target[:, None]] = -np.inf
    return classes, z


def sampled_softmax_cross_entropy(X, W, b, target, negatives, sample_weight=None, **options):
    """softmax_cross_entropy among the candidates; a negative counts as often as it was drawn."""
    _, z = _candidates(X, W, b, target, negatives, **options)
    return softmax_cross_entropy(z, np.zeros(len(z), int), sample_weight)


def sampled_softmax_cross_entropy_grad(X, W, b, target, negatives, sample_weight=None, **options):
    """Gradients of the sum of the losses with respect to X, W and b (None without a b)."""
    classes, z = _candidates(X, W, b, target, negatives, **options)
    g = np.zeros((len(z), len(W)))
    np.add.at(g, (np.arange(len(z))[:, None], classes), softmax_cross_entropy_grad(z, 0 * classes[:, 0], sample_weight))
    return g @ _dense(W), g.T @ _dense(X), None if b is None else g.sum(axis=0)


def _pair_logits(queries, keys, negatives):
    """Logits of the key (n, 1) and, with the other sign, of the negatives (n, m): all of them are to be large."""
    queries, keys, negatives = _dense(queries), _dense(keys), _dense(negatives)
    return np.column_stack([(queries * keys).sum(axis=1), -np.einsum("nd,nmd->nm", queries, negatives)])


def negative_sampling_loss(queries, keys, negatives, sample_weight=None):
    """w_i times - log s(q.k) - sum_j log s(-q.n_j)."""
    return _weights(sample_weight, len(keys)) * np.logaddexp(0, -_pair_logits(queries, keys, negatives)).sum(axis=1)


def negative_sampling_loss_grad(queries, keys, negatives, sample_weight=None):
    """Gradients of the sum of the losses with respect to queries, keys and negatives."""
    g = -sigmoid(-_pair_logits(queries, keys, negatives)) * _weights(sample_weight, len(keys))[:, None]
    q, pull, push = _dense(queries), g[:, :1], -g[:, 1:]
    queries_grad = pull * _dense(keys) + np.einsum("nm,nmd->nd", push, _dense(negatives))
    return queries_grad, pull * q, push[:, :, None] * q[:, None, :]


# ---------------------------------------------------------------------------------------------- sampled factorization


def pairwise_loss(loss, own, others):
    """Losses (n,) of BPR or negative sampling, from logits (n,) of the items and (n, m) of their negatives."""
    if loss == "bpr":
        return np.logaddexp(0, others - own[:, None]).mean(axis=1)
    return np.logaddexp(0, -own) + np.logaddexp(0, others).sum(axis=1)


def mf_ridges(X, regularization, exponent):
    """What holds back the factors of each user and item: regularization n^(exponent - 1), n relative to its mean."""
    ridges = []
    for axis in (1, 0):
        n = _dense(X).sum(axis=axis)
        n = n / n[n > 0].mean()
        ridges.append(np.array([regularization * k ** (exponent - 1) if k > 0 else 0.0 for k in n]))
    return ridges


def mf_penalty(X, W, H, regularization, exponent):
    """By the unit of weight: the sum over interactions of c / 2 (ridge_u |w_u|^2 + ridge_i |h_i|^2)."""
    ridges = mf_ridges(X, regularization, exponent)
    pairs = ((i, j, c) for (i, j), c in np.ndenumerate(_dense(X)) if c > 0)
    total = sum(c / 2 * (ridges[0][i] * W[i] @ W[i] + ridges[1][j] * H[j] @ H[j]) for i, j, c in pairs)
    return total / _dense(X).sum()


def pairwise_batch(loss, W, H, users, items, negatives, weight, ridges):
    """The objective of a batch: interactions (n,), each with negatives (n, m)."""
    own, others = (W[users] * H[items]).sum(axis=1), np.einsum("nf,nmf->nm", W[users], H[negatives])
    squares = ridges[0][users] * (W[users] ** 2).sum(axis=1) + ridges[1][items] * (H[items] ** 2).sum(axis=1)
    return weight @ (pairwise_loss(loss, own, others) + squares / 2)


def user_objective(loss, w, row, H, ridge, *, shift=0.0, share=None, n_negatives=1):
    """What a user with this dense row has in the objective, averaged over what is drawn (``share``)."""
    z, c = H @ w, row / row.sum()
    if loss in ("softmax", "sampled_softmax"):
        value = log_sum_exp((z + shift)[None])[0] - c @ z
    else:
        share = np.where(row > 0, 0, share)
        share = share / share.sum()
        seen = np.flatnonzero(row)
        if loss == "bpr":
            value = sum(c[i] * share @ np.logaddexp(0, z - z[i]) for i in seen)
        else:
            value = c @ np.logaddexp(0, -z) + n_negatives * share @ np.logaddexp(0, z)
    return value + ridge / 2 * w @ w


# ---------------------------------------------------------------------------------------------- tools


def finite_differences(function, x, step=1e-6):
    """Gradient of a scalar function of the float64 array ``x`` by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (function(up) - function(down)) / (2 * step)
    return gradient


# ---------------------------------------------------------------------------------------------- rankings


def top_k(queries, items, k, exclude=None):
    """Ids and scores of the k largest inner products, ties by lower id, then -1 and -inf."""
    scores = _dense(queries) @ _dense(items).T
    ids = np.full((len(scores), k), -1)
    best = np.full((len(scores), k), -np.inf)
    for i, row in enumerate(scores):
        excluded = set() if exclude is None else set(exclude.tocsr()[[i]].indices.tolist())
        order = [j for j in np.argsort(-row, kind="stable").tolist() if j not in excluded][:k]
        ids[i, : len(order)], best[i, : len(order)] = order, row[order]
    return ids, best


def _hits(ranked_ids, relevant, k):
    """For each row, whether the item at each of the first k ranks is relevant, and how many items are."""
    for ranked, row in zip(np.asarray(ranked_ids)[:, :k], _dense(relevant), strict=True):
        items = set(np.flatnonzero(row).tolist())
        yield [item in items for item in ranked.tolist()], len(items)


def precision(ranked_ids, relevant, k):
    """Hits / k."""
    return np.array([sum(hits) / k for hits, n in _hits(ranked_ids, relevant, k)])


def recall(ranked_ids, relevant, k):
    """Hits / number relevant; 0 where nothing is relevant, as all metrics."""
    return np.array([sum(hits) / n if n else 0.0 for hits, n in _hits(ranked_ids, relevant, k)])


def hit_rate(ranked_ids, relevant, k):
    """1 if there is a hit."""
    return np.array([float(any(hits)) for hits, n in _hits(ranked_ids, relevant, k)])


def reciprocal_rank(ranked_ids, relevant, k):
    """1 / rank of the first hit, ranks from 1; 0 without one."""
    return np.array([1 / (1 + hits.index(True)) if any(hits) else 0.0 for hits, n in _hits(ranked_ids, relevant, k)])


def average_precision(ranked_ids, relevant, k):
    """Sum over the hits of the precision at their rank / min(k, number relevant)."""
    return np.array([
        sum(sum(hits[: j + 1]) / (j + 1) for j in range(k) if hits[j]) / min(k, n) if n else 0.0
        for hits, n in _hits(ranked_ids, relevant, k)
    ])  # fmt: skip


def ndcg(ranked_ids, relevant, k):
    """Sum over the hits of 1 / log2(rank + 1) / the same for hits at the first min(k, number relevant) ranks."""
    gains = [1 / np.log2(j + 2) for j in range(k)]
    return np.array([
        sum(gains[j] for j in range(k) if hits[j]) / sum(gains[: min(k, n)]) if n else 0.0
        for hits, n in _hits(ranked_ids, relevant, k)
    ])  # fmt: skip


# ---------------------------------------------------------------------------------------------- sampling


def splitmix64(seed, step, position):
    """Random bits number ``position`` of a step, as a Python integer (Steele, Lea & Flood, 2014)."""
    return hashed(mixed(mixed(seed) + step * GAMMA), position)


GAMMA, BITS = 0x9E3779B97F4A7C15, 2**64 - 1


def mixed(z):
    """A bijection of 64 bits."""
    z &= BITS
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & BITS
    return z ^ (z >> 31)


def hashed(key, position):
    """Number ``position`` of a key."""
    return mixed(key + position * GAMMA)


def corrupted(X, rows, seed, step, rate):
    """The rows of X, where a feature is another row's if its random number is below the rate."""
    X, result = np.asarray(X), np.array(X)[rows]
    n, d = X.shape
    for i, row in enumerate(np.asarray(rows).tolist()):
        for j in range(d):
            bits = splitmix64(seed, step, row * d + j)
            if bits < rate * 2**64:
                result[i, j] = X[hashed(bits, 1) * n >> 64, j]
    return result


def alias_probability(table):
    """Of each class of an alias table: a cell has mass 1 / C, and threshold / 2^64 is the share of its own class."""
    share = table[:, 0] / 2.0**64
    total = share.copy()
    np.add.at(total, table[:, 1].astype(int), 1 - share)
    return total / len(table)


def inclusion_probability(q, m):
    """Of each class to be among the first m different ones; by all sets that may be drawn so far."""
    sets = {frozenset(): 1.0}
    for _ in range(m):
        longer = {}
        for drawn, probability in sets.items():
            left = 1 - sum(q[c] for c in drawn)
            for c in set(range(len(q))) - drawn:
                longer[drawn | {c}] = longer.get(drawn | {c}, 0) + probability * q[c] / left
        sets = longer
    return np.array([sum(p for drawn, p in sets.items() if c in drawn) for c in range(len(q))])
