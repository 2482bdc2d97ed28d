"""Linear layer and loss in one, a tile of logits (or predictions) at a time: ``X W' + b`` is never whole in memory.

Where the outputs (classes) are few, a tile holds whole rows of logits, and everything about its rows is done while
it lies in L2 (``rows_*``). Where they are many, a tile holds a panel of classes: ``panel_forward`` for each,
``join_panels`` for the rows' log-sum-exp, then ``panel_backward`` for each. For CSR rows the weights lie transposed,
(d, C), so that a stored entry meets one contiguous row (``csr_*``). ``settings`` choose the loss; its temperature
divides the products here, and ``b`` comes divided by it. The losses themselves and ``stats``: see ``_loss_tile``.
"""

from fastml.kernels._blas import matmul_nn, matmul_nt, matmul_tn
from fastml.kernels._jit import kernel
from fastml.kernels._loss_tile import finish_rows, forward_tile, residual_tile
from fastml.kernels._math import exp
from fastml.kernels._rows import add, add_gathered, dot, fill


@kernel
def rows_loss(start, stop, X, W, b, target, weights, settings, z, stats, loss):
    """Losses (n,) of rows start..stop; scratch ``z`` (tile rows, C)."""
    for first in range(start, stop, z.shape[0]):
        last = min(first + z.shape[0], stop)
        tile = z[: last - first]
        matmul_nt(settings.beta, X[first:last], W, 0.0, tile)
        forward_tile(tile, b, first, 0, target, settings, stats)
        finish_rows(first, last, weights, stats, loss)


@kernel
def rows_loss_grad(start, stop, X, W, b, target, weights, settings, z, stats, loss, X_grad, W_grad, b_grad):
    """Losses and gradients of rows start..stop, all overwritten; ``X_grad`` may have no rows."""
    fill(b_grad, 0)
    for first in range(start, stop, z.shape[0]):
        last = min(first + z.shape[0], stop)
        tile = z[: last - first]
        matmul_nt(settings.beta, X[first:last], W, 0.0, tile)
        forward_tile(tile, b, first, 0, target, settings, stats)
        finish_rows(first, last, weights, stats, loss)
        residual_tile(tile, W.shape[0], first, 0, target, weights, settings, stats)
        for i in range(last - first):
            add(b_grad, tile[i])
        if X_grad.shape[0] > 0:
            matmul_nn(settings.beta, tile, W, 0.0, X_grad[first:last])
        matmul_tn(settings.beta, tile, X[first:last], 0.0 if first == start else 1.0, W_grad)


@kernel
def panel_forward(first, last, first_class, X, W, b, target, settings, z, stats):
    """Rows first..last up to what their gradient needs, for the panel of classes with weights ``W`` and bias ``b``."""
    tile = z[: last - first]
    matmul_nt(settings.beta, X[first:last], W, 0.0, tile[:, : W.shape[0]])
    forward_tile(tile, b, first, first_class, target, settings, stats)


@kernel
def join_panels(first, last, weights, panels, stats, loss):
    """Losses of rows first..last, and in ``stats`` their log-sum-exp, from the ``panels`` (p, 4, rows)."""
    tops, totals, dots = stats[0], stats[1], stats[2]
    for i in range(last - first):
        tops[i], totals[i], dots[i] = panels[0, 0, i], panels[0, 1, i], panels[0, 2, i]
        for p in range(1, panels.shape[0]):
            top = max(tops[i], panels[p, 0, i])
            totals[i] = totals[i] * exp(tops[i] - top) + panels[p, 1, i] * exp(panels[p, 0, i] - top)
            dots[i] += panels[p, 2, i]
            tops[i] = top
    finish_rows(first, last, weights, stats, loss)
    for p in range(panels.shape[0]):
        for i in range(last - first):
            panels[p, 3, i] = stats[3, i]


@kernel
def panel_backward(first, last, first_class, X, W, target, weights, settings, z, stats, carry, X_grad, W_grad, b_grad):
    """Gradients of one panel for rows first..last, from what ``panel_forward`` left; adds to all three.

    What ``X_grad`` holds is taken ``carry`` times, 0 or 1.
    """
    tile = z[: last - first]
    width = W.shape[0]
    residual_tile(tile, width, first, first_class, target, weights, settings, stats)
    matmul_nn(settings.beta, tile[:, :width], W, carry, X_grad[: last - first])
    matmul_tn(settings.beta, tile[:, :width], X[first:last], 1.0, W_grad)
    for i in range(last - first):
        add(b_grad, tile[i][:width])


@kernel
def csr_logits(start, stop, first, X, W, first_class, settings, z):
    """Logits of CSR rows start..stop for the panel of classes ``W`` (d, panel); row 0 of ``z`` is row ``first``."""
    indptr, indices, data = X
    for i in range(start, stop):
        row = z[i - first][first_class : first_class + W.shape[1]]
        fill(row, 0)
        entries = slice(indptr[i], indptr[i + 1])
        add_gathered(row, settings.beta, data[entries], indices[entries], W)


@kernel
def csr_losses(start, stop, first, b, target, weights, settings, z, stats, loss):
    """From products to losses, and to what ``csr_residual`` needs."""
    tile, part = z[start - first : stop - first], stats[:, start - first : stop - first]
    forward_tile(tile, b, start, 0, target, settings, part)
    finish_rows(start, stop, weights, part, loss)


@kernel
def csr_residual(start, stop, first, target, weights, settings, z, stats):
    """From what ``csr_losses`` left to the gradient of the logits."""
    tile, part = z[start - first : stop - first], stats[:, start - first : stop - first]
    residual_tile(tile, z.shape[1], start, 0, target, weights, settings, part)


@kernel
def csr_entry_grad(start, stop, first, X, W, first_class, settings, z, X_grad):
    """Gradient of the stored entries of rows start..stop: what the panel of classes ``W`` adds, from 0 if first."""
    indptr, indices, data = X
    for i in range(start, stop):
        row = z[i - first][first_class : first_class + W.shape[1]]
        for k in range(indptr[i], indptr[i + 1]):
            before = data.dtype.type(0) if first_class == 0 else X_grad[k]
            X_grad[k] = before + settings.beta * dot(row, W[indices[k]])


@kernel
def csc_weight_grad(start, stop, X, z, settings, is_first, W_grad):
    """Adds X' z to the features start..stop of ``W_grad`` (d, C), from 0 if first; the columns of X in CSC."""
    indptr, indices, data = X
    for j in range(start, stop):
        row = W_grad[j]
        if is_first:
            fill(row, 0)
        entries = slice(indptr[j], indptr[j + 1])
        add_gathered(row, settings.beta, data[entries], indices[entries], z)
