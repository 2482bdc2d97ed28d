"""A stack of dense layers, some rows at a time: the pieces of the kernels that train and apply it.

All parameters lie in one vector, and all that a batch of n rows leaves for its backward pass in another, ``work``. A
table of integers (n_layers, columns) says where, so that one compiled kernel serves every depth. ``work`` holds for
each layer the sums z that its activation is taken of (which the backward pass turns into their gradient), the
activations h and, with batch norm, the normalised sums x; then room for the gradient of one layer's activations.

Between two layers with batch norm all rows must have arrived: a pass is cut there, by ``begin`` and ``end``.
"""

import math
from typing import NamedTuple

import numpy as np

from fastml.kernels._activations import IDENTITY, PRELU, activate_row, slope_row
from fastml.kernels._blas import matmul_nn, matmul_nt, matmul_tn
from fastml.kernels._jit import part, point
from fastml.kernels._loss_tile import finish_rows, forward_tile, residual_tile
from fastml.kernels._random import key_of, random_bits
from fastml.kernels._rows import add, add_gathered, add_scaled, copy, fill, first_from, scale

N_IN, N_OUT, COEF, INTERCEPT, SCALE, SLOPE, MEAN, VARIANCE, PLACE, KIND, SWAPPED = range(11)  # columns of the table
MOMENTUM, EPSILON = 0.1, 1e-5  # of batch norm: what a batch moves the running moments by, least variance
_40 = np.uint64(40)


class Rows(NamedTuple):
    """Rows of features: an array (n, d), or the three arrays of a CSR; what is not used is empty."""

    dense: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


class Net(NamedTuple):
    """The table, how many of its layers are hidden, the sum and the largest of the widths, number of coefficients ...

    ... and how hidden layers are treated.
    """

    layers: np.ndarray
    n_hidden: int
    total: int
    widest: int
    n_coef: int
    is_normed: int
    dropped: int  # dropout times 2^24
    grow: float  # 1 / (1 - dropout), in the dtype of the rows


class Batch(NamedTuple):
    """What a batch leaves for its backward pass, and what its lanes add up."""

    work: np.ndarray  # flat
    moments: np.ndarray  # (lanes, 2, total) float64: of each lane and layer mean and sum of squares, or of gradients
    joined: np.ndarray  # (4, total) in the dtype of the rows: mean, 1 / deviation; then means of the gradients
    draw: np.ndarray  # (2,) uint64: seed and step of what dropout draws
    tails: np.ndarray  # (lanes, parameters that are no coefficients): their gradients


@point
def _matrix(vector, first, height, width):
    """Part of a vector as a matrix."""
    return vector[first : first + height * width].reshape(height, width)


@point
def _sums(n, net, layer, work):
    """Of a layer and all n rows: the sums that its activation is taken of."""
    return _matrix(work, net.layers[layer, PLACE] * n, n, net.layers[layer, N_OUT])


@point
def activations(n, net, layer, work):
    """Of a layer and all n rows: the activations."""
    return _matrix(work, (net.total + net.layers[layer, PLACE]) * n, n, net.layers[layer, N_OUT])


@point
def _normalised(n, net, layer, work):
    """Of a layer and all n rows: the sums before scale and shift, where there is batch norm."""
    return _matrix(work, (2 * net.total + net.layers[layer, PLACE]) * n, n, net.layers[layer, N_OUT])


@point
def _coef(net, layer, values):
    """Coefficients of the layer: (n_in, n_out), or (n_out, n_in) where they lie so."""
    n_in, n_out = net.layers[layer, N_IN], net.layers[layer, N_OUT]
    if net.layers[layer, SWAPPED]:
        n_in, n_out = n_out, n_in
    return _matrix(values, net.layers[layer, COEF], n_in, n_out)


@point
def _vector(net, layer, first, values):
    """The numbers that the layer has one of for each unit, from place ``first`` on."""
    return values[first : first + net.layers[layer, N_OUT]]


@point
def layer_key(layer, batch):
    """Key of the numbers that dropout draws for the layer."""
    return random_bits(key_of(batch.draw[0], batch.draw[1]), layer)


@point
def drop_row(row, key, position, dropped, grow):
    """Scale what is kept of a row of activations, or of their gradient; the rest becomes zero."""
    zero = row.dtype.type(0)
    for j in range(row.shape[0]):
        row[j] = row[j] * grow if np.int64(random_bits(key, position + j) >> _40) >= dropped else zero


@point
def _raw(n, net, layer, work):
    """Of a layer and all n rows: where its products go."""
    if net.is_normed and layer < net.n_hidden:
        return _normalised(n, net, layer, work)
    return _sums(n, net, layer, work)


@point
def _multiply_sparse(start, stop, X, W, out):
    for i in range(start, stop):
        fill(out[i - start], 0)
        entries = slice(X.indptr[i], X.indptr[i + 1])
        add_gathered(out[i - start], X.data.dtype.type(1), X.data[entries], X.indices[entries], W)


@part
def multiply(start, stop, layer, n, X, values, net, work):
    """Products of rows start..stop with the coefficients of the layer."""
    W, out = _coef(net, layer, values), _raw(n, net, layer, work)[start:stop]
    if layer == 0 and X.indptr.shape[0] > 0:
        _multiply_sparse(start, stop, X, W, out)
        return
    before = X.dense if layer == 0 else activations(n, net, layer - 1, work)
    if net.layers[layer, SWAPPED]:
        matmul_nt(1.0, before[start:stop], W, 0.0, out)
    else:
        matmul_nn(1.0, before[start:stop], W, 0.0, out)


@part
def measure(start, stop, layer, n, net, batch, lane):
    """Of a layer: each product's mean over the rows start..stop of a lane, and sum of squares about it."""
    x, place = _normalised(n, net, layer, batch.work), net.layers[layer, PLACE]
    mean = batch.moments[lane, 0][place : place + x.shape[1]]
    square = batch.moments[lane, 1][place : place + x.shape[1]]
    fill(mean, 0)
    fill(square, 0)
    for i in range(start, stop):
        add(mean, x[i])
    scale(mean, 1 / (stop - start))
    for i in range(start, stop):
        row = x[i]
        for j in range(row.shape[0]):
            distance = row[j] - mean[j]
            square[j] += distance * distance


@part
def join_measures(layer, bounds, values, net, batch):
    """Mean and deviation of the products of a layer from those of the lanes; moves the running ones."""
    n, place, real = bounds[-1], net.layers[layer, PLACE], values.dtype.type
    means = _vector(net, layer, net.layers[layer, MEAN], values)
    variances = _vector(net, layer, net.layers[layer, VARIANCE], values)
    for j in range(means.shape[0]):
        mean, square = 0.0, 0.0
        for lane in range(bounds.shape[0] - 1):  # Chan, Golub & LeVeque, 1979
            count = bounds[lane + 1] - bounds[lane]
            distance = batch.moments[lane, 0, place + j] - mean
            mean += distance * count / bounds[lane + 1]
            square += batch.moments[lane, 1, place + j] + distance * distance * bounds[lane] * count / bounds[lane + 1]
        batch.joined[0, place + j] = mean
        batch.joined[1, place + j] = 1 / math.sqrt(square / n + EPSILON)
        means[j] += real(MOMENTUM) * (real(mean) - means[j])
        variances[j] += real(MOMENTUM) * (real(square / max(n - 1, 1)) - variances[j])


@point
def _normalise(x, mean, inverse, gain, z):
    for j in range(x.shape[0]):
        value = (x[j] - mean[j]) * inverse[j]
        x[j] = value
        z[j] = value * gain[j]


@part
def activate(start, stop, layer, n, values, net, batch):
    """Activations of the layer for rows start..stop, from its products."""
    z, h = _sums(n, net, layer, batch.work), activations(n, net, layer, batch.work)
    b, key = _vector(net, layer, net.layers[layer, INTERCEPT], values), layer_key(layer, batch)
    a = _vector(net, layer, net.layers[layer, SLOPE], values)
    is_hidden, width = layer < net.n_hidden, z.shape[1]
    place = slice(net.layers[layer, PLACE], net.layers[layer, PLACE] + width)
    for i in range(start, stop):
        if net.is_normed and is_hidden:
            x, gain = _normalised(n, net, layer, batch.work)[i], _vector(net, layer, net.layers[layer, SCALE], values)
            _normalise(x, batch.joined[0][place], batch.joined[1][place], gain, z[i])
        activate_row(net.layers[layer, KIND], z[i], b, a, h[i])
        if net.dropped and is_hidden:
            drop_row(h[i], key, i * width, net.dropped, net.grow)


@point
def forward_layers(start, stop, lane, begin, end, n, X, values, net, batch):
    """Rows start..stop from the activation of layer begin - 1 to the products of layer end - 1."""
    for layer in range(begin, end):
        if layer > 0:
            activate(start, stop, layer - 1, n, values, net, batch)
        multiply(start, stop, layer, n, X, values, net, batch.work)
        if net.is_normed and layer < net.n_hidden:
            measure(start, stop, layer, n, net, batch, lane)


@part
def measure_grad(start, stop, layer, n, net, batch, lane):
    """Sums over the lane's rows of the gradient of the layer, and of its products with what was normalised."""
    z, x, place = _sums(n, net, layer, batch.work), _normalised(n, net, layer, batch.work), net.layers[layer, PLACE]
    total = batch.moments[lane, 0][place : place + z.shape[1]]
    product = batch.moments[lane, 1][place : place + z.shape[1]]
    fill(total, 0)
    fill(product, 0)
    for i in range(start, stop):
        g, row = z[i], x[i]
        for j in range(g.shape[0]):
            total[j] += g[j]
            product[j] += np.float64(g[j]) * row[j]
    copy(_vector(net, layer, net.layers[layer, SCALE] - net.n_coef, batch.tails[lane]), product)


@point
def _add_slope_grad(z, upstream, out):
    for j in range(z.shape[0]):
        out[j] += upstream[j] * min(z[j], z.dtype.type(0))


@part
def deactivate(start, stop, lane, layer, n, upstream, values, net, batch):
    """From the gradient of the activations of the layer, rows start.. of it, to that of the sums; adds to the tail."""
    z, key = _sums(n, net, layer, batch.work), layer_key(layer, batch)
    is_hidden, width = layer < net.n_hidden, z.shape[1]
    b_grad = _vector(net, layer, net.layers[layer, INTERCEPT] - net.n_coef, batch.tails[lane])
    a = _vector(net, layer, net.layers[layer, SLOPE], values)
    for i in range(start, stop):
        g = upstream[i - start]
        if net.dropped and is_hidden:
            drop_row(g, key, i * width, net.dropped, net.grow)
        if net.layers[layer, KIND] == PRELU:
            _add_slope_grad(z[i], g, _vector(net, layer, net.layers[layer, SLOPE] - net.n_coef, batch.tails[lane]))
        slope_row(net.layers[layer, KIND], z[i], a, g, z[i])
        add(b_grad, z[i])
    if net.is_normed and is_hidden:
        measure_grad(start, stop, layer, n, net, batch, lane)


@point
def join_grads(layer, bounds, net, batch):
    """Means over all rows of what ``measure_grad`` summed."""
    place = net.layers[layer, PLACE]
    for j in range(place, place + net.layers[layer, N_OUT]):
        for k in range(2):
            value = 0.0
            for lane in range(bounds.shape[0] - 1):
                value += batch.moments[lane, k, j]
            batch.joined[2 + k, j] = value / bounds[-1]


@part
def denormalise(start, stop, layer, n, values, net, batch):
    """Through batch norm: from the gradient of the sums of the layer to that of its products."""
    z, x, gain = (
        _sums(n, net, layer, batch.work),
        _normalised(n, net, layer, batch.work),
        _vector(net, layer, net.layers[layer, SCALE], values),
    )
    place = slice(net.layers[layer, PLACE], net.layers[layer, PLACE] + z.shape[1])
    inverse, mean, slope = batch.joined[1][place], batch.joined[2][place], batch.joined[3][place]
    for i in range(start, stop):
        g, row = z[i], x[i]
        for j in range(g.shape[0]):
            g[j] = gain[j] * inverse[j] * (g[j] - mean[j] - row[j] * slope[j])


@point
def backward_layers(start, stop, lane, begin, end, n, values, net, batch):
    """Rows start..stop from the gradient of the sums of layer end - 1 down to that of layer begin - 1."""
    for layer in range(end - 1, begin - 1, -1):
        if net.is_normed and layer < net.n_hidden:
            denormalise(start, stop, layer, n, values, net, batch)
        if layer > 0:
            place = (2 + net.is_normed) * net.total * n + start * net.widest
            W, g = _coef(net, layer, values), _matrix(batch.work, place, stop - start, net.layers[layer - 1, N_OUT])
            z = _sums(n, net, layer, batch.work)[start:stop]
            if net.layers[layer, SWAPPED]:
                matmul_nn(1.0, z, W, 0.0, g)
            else:
                matmul_nt(1.0, z, W, 0.0, g)
            deactivate(start, stop, lane, layer - 1, n, g, values, net, batch)


@point
def _sparse_coef_grad(first, last, n, X, z, W_grad):
    for k in range(last - first):
        fill(W_grad[k], 0)
    for i in range(n):
        end = X.indptr[i + 1]
        k = first_from(X.indices, X.indptr[i], end, first)
        while k < end and X.indices[k] < last:
            add_scaled(W_grad[X.indices[k] - first], X.data[k], z[i])
            k += 1


@part
def coef_grad(first, last, layer, n, X, net, work, grad):
    """Gradient of the rows first..last of the coefficients of a layer as they lie in ``grad``, from all n rows."""
    W_grad, z = _coef(net, layer, grad)[first:last], _sums(n, net, layer, work)
    if layer == 0 and X.indptr.shape[0] > 0:
        _sparse_coef_grad(first, last, n, X, z, W_grad)
        return
    before = X.dense if layer == 0 else activations(n, net, layer - 1, work)
    if net.layers[layer, SWAPPED]:
        matmul_tn(1.0, z[:, first:last], before[:n], 0.0, W_grad)
    else:
        matmul_tn(1.0, before[:n, first:last], z, 0.0, W_grad)


@point
def tail_grad(net, tails, grad):
    """Gradient of all parameters that are no coefficients, from those of the lanes."""
    out = grad[net.n_coef : net.n_coef + tails.shape[1]]
    fill(out, 0)
    for lane in range(tails.shape[0]):
        add(out, tails[lane])


@point
def begin_lane(lane, batch):
    """Nothing is known of the gradient of the tail."""
    fill(batch.tails[lane], 0)


@part
def loss_layer(start, stop, lane, n, target, weights, settings, stats, loss, values, net, batch):
    """Losses of rows start..stop from the last layer's products, which become the gradient of its sums."""
    layer = net.layers.shape[0] - 1
    z, b, tail = (
        _sums(n, net, layer, batch.work),
        _vector(net, layer, net.layers[layer, INTERCEPT], values),
        batch.tails[lane],
    )
    part = stats[:, start:stop]
    if net.layers[layer, KIND] == IDENTITY:
        tile = z[start:stop]
        forward_tile(tile, b, start, 0, target, settings, part)
        finish_rows(start, stop, weights, part, loss)
        residual_tile(tile, b.shape[0], start, 0, target, weights, settings, part)
        for i in range(start, stop):
            add(_vector(net, layer, net.layers[layer, INTERCEPT] - net.n_coef, tail), z[i])
    else:
        activate(start, stop, layer, n, values, net, batch)
        tile, none = activations(n, net, layer, batch.work)[start:stop], batch.joined[0][net.layers[layer, PLACE] :]
        forward_tile(tile, none[: b.shape[0]], start, 0, target, settings, part)
        finish_rows(start, stop, weights, part, loss)
        residual_tile(tile, b.shape[0], start, 0, target, weights, settings, part)
        deactivate(start, stop, lane, layer, n, tile, values, net, batch)


@part
def gather_rows(start, stop, picked, X, out):
    """Rows picked[start:stop] of X as rows start..stop of ``out``; of a CSR all at once, from 0 on."""
    for i in range(start, stop):
        row = picked[i]
        if X.indptr.shape[0] > 0:
            first, size = X.indptr[row], X.indptr[row + 1] - X.indptr[row]
            place = slice(out.indptr[i], out.indptr[i] + size)
            copy(out.indices[place], X.indices[first : first + size])
            copy(out.data[place], X.data[first : first + size])
            out.indptr[i + 1] = out.indptr[i] + size
        else:
            copy(out.dense[i], X.dense[row])
