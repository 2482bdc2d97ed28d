"""Training and applying a stack of dense layers: what one thread does with a lane of a batch, see ``_network``."""

from fastml.kernels import _network as pieces
from fastml.kernels._jit import kernel, point
from fastml.kernels._rows import copy


@kernel
def forward(start, stop, lane, begin, end, n, X, values, net, batch):
    """Rows start..stop of n up to the products of layer end - 1."""
    pieces.forward_layers(start, stop, lane, begin, end, n, X, values, net, batch)


@kernel
def outputs(start, stop, lane, n, values, net, batch, output):
    """``output`` (n, n_outputs) of rows start..stop, from the products of the last layer."""
    last = net.layers.shape[0] - 1
    pieces.activate(start, stop, last, n, values, net, batch)
    h = pieces.activations(n, net, last, batch.work)
    for i in range(start, stop):
        copy(output[i], h[i])


@kernel
def outputs_grad(start, stop, lane, n, upstream, values, net, batch):
    """Gradient of the last layer's sums from ``upstream`` (n, n_outputs), that of the outputs."""
    pieces.begin_lane(lane, batch)
    pieces.deactivate(start, stop, lane, net.layers.shape[0] - 1, n, upstream[start:stop], values, net, batch)


@kernel
def backward(start, stop, lane, begin, end, n, values, net, batch):
    """Rows start..stop of n down to the gradient of the sums of layer begin - 1."""
    pieces.backward_layers(start, stop, lane, begin, end, n, values, net, batch)


@kernel
def join_measures(layer, bounds, values, net, batch):
    """Between two calls of ``forward``, with batch norm: the moments of all lanes' rows."""
    pieces.join_measures(layer, bounds, values, net, batch)


@kernel
def join_grads(layer, bounds, net, batch):
    """Between two calls of ``backward``, with batch norm."""
    pieces.join_grads(layer, bounds, net, batch)


@kernel
def coef_grad(first, last, layer, n, X, net, work, grad):
    """Gradient of rows first..last of the coefficients of the layer."""
    pieces.coef_grad(first, last, layer, n, X, net, work, grad)


@kernel
def tail_grad(net, tails, grad):
    """Gradient of all parameters that are no coefficients."""
    pieces.tail_grad(net, tails, grad)


@point
def _predict(start, stop, X, values, net, batch):
    """Rows start..stop of X up to the products of the last layer, as rows from 0 on."""
    n = stop - start
    if X.indptr.shape[0] > 0:
        part = pieces.Rows(X.dense, X.indptr[start : stop + 1], X.indices, X.data)
    else:
        part = pieces.Rows(X.dense[start:stop], X.indptr, X.indices, X.data)
    for layer in range(net.layers.shape[0]):
        if layer > 0:
            pieces.activate(0, n, layer - 1, n, values, net, batch)
        pieces.multiply(0, n, layer, n, part, values, net, batch.work)


@kernel
def predict(start, stop, X, values, net, batch, output):
    """``output`` (n, n_outputs) of rows start..stop, for which ``batch`` has room."""
    n, last = stop - start, net.layers.shape[0] - 1
    _predict(start, stop, X, values, net, batch)
    pieces.activate(0, n, last, n, values, net, batch)
    h = pieces.activations(n, net, last, batch.work)
    for i in range(n):
        copy(output[start + i], h[i])


@kernel
def predict_losses(start, stop, X, target, weights, settings, values, net, batch, stats, loss):
    """Losses (n,) of rows start..stop, for which ``batch`` has room; ``weights`` and ``stats`` are theirs alone."""
    _predict(start, stop, X, values, net, batch)
    part = target[start:stop], weights, settings, stats, loss[start:stop]
    pieces.loss_layer(0, stop - start, 0, stop - start, *part, values, net, batch)
