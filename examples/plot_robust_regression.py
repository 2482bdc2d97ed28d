"""
Squared error follows outliers, Huber's loss and the absolute error do not
==========================================================================

A line through 60 points, six of which are wrong, with each loss of :class:`fastml.LinearRegressor`; and why: what each
residual pulls with.
"""

# %%
# The points lie about the line of slope 2 and intercept 1. The six with the largest ``x`` have got the target 0.

import numpy as np
from matplotlib import pyplot as plt

from fastml import LinearRegressor
from fastml.functional import absolute_error_grad, huber_grad, squared_error_grad

rng = np.random.default_rng(0)
x = np.sort(rng.uniform(0, 10, size=60))[:, np.newaxis]
y = 1 + 2 * x[:, 0] + rng.normal(size=60)
y[-6:] = 0
models = {
    loss: LinearRegressor(loss=loss, solver="lbfgs", alpha=0).fit(x, y) for loss in ["squared", "huber", "absolute"]
}
for loss, model in models.items():
    print(f"{loss:8}  slope {model.coef_[0]:.2f}, intercept {model.intercept_:.2f}")

# %%
# The gradient with respect to a prediction says what a residual pulls with: its own size in the squared error,
# ``delta`` at most in Huber's loss, always 1 in the absolute error.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(x, y, ".", color="0.6")
left.plot([0, 10], [1, 21], ":", color="k", label="true line")
styles = dict(zip(models, ["-", "-", "--"], strict=True))
for loss, model in models.items():
    left.plot([0, 10], model.predict([[0.0], [10.0]]), styles[loss], label=loss)
left.set(xlabel="x", ylabel="y", title="Six wrong targets, at the lower right")
left.legend()

residual, zero = np.linspace(-3, 3, 301), np.zeros(301)
for gradient, style in zip([squared_error_grad, huber_grad, absolute_error_grad], styles.values(), strict=True):
    right.plot(residual, gradient(residual, zero).prediction, style)
right.set(xlabel="residual, prediction - target", ylabel="gradient", title="What a residual pulls with")
plt.show()

# %%
# How far does it go? The slope, as the wrong targets get worse.

sizes = [1, 3, 10, 30, 100, 300, 1000]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for loss in models:
    slopes = []
    for size in sizes:
        target = y.copy()
        target[-6:] = -size
        slopes.append(LinearRegressor(loss=loss, solver="lbfgs", alpha=0).fit(x, target).coef_[0])
    axes.semilogx(sizes, slopes, "o" + styles[loss], label=loss)
axes.axhline(2, color="k", linestyle=":", label="true slope")
axes.set(xlabel="the wrong targets are minus this", ylabel="slope", title="The slope that is found")
axes.legend()
plt.show()
