"""
What loss curves say
====================

A softmax classifier learns handwritten digits, once as it should and five times with something wrong. The title above
each loss curve is what :func:`fastml.display.diagnose` finds in it.
"""

# %%
# The data: 1797 images of 8 x 8 pixels, each pixel scaled to mean 0 and variance 1.

import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from fastml import SoftmaxClassifier
from fastml.display import LossCurveDisplay, diagnose
from fastml.optim import Adam

warnings.simplefilter("ignore", ConvergenceWarning)
X, y = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(X)
rng = np.random.default_rng(0)

# %%
# Training as it should be: a moderate rate, rows held out, and early stopping.

good = SoftmaxClassifier(early_stopping=True, random_state=0).fit(X, y)

# %%
# The same data, the rate too high: the steps overshoot. To see the whole curve, the patience is as long as the
# training.

whole = {"max_iter": 40, "n_iter_no_change": 40, "random_state": 0}
too_fast = SoftmaxClassifier(optimizer=Adam(0.3), **whole).fit(X, y)

# %%
# A stream in batches of 100 rows. In the tenth, ten rows are outliers, as from a broken sensor.

streamed = SoftmaxClassifier(optimizer=Adam(0.01), random_state=0)
for i, rows in enumerate(rng.permutation(len(X))[:1700].reshape(17, 100)):
    batch = X[rows]
    if i == 9:
        batch[:10] = rng.normal(scale=100, size=(10, 64))
    streamed.partial_fit(batch, y[rows], classes=np.arange(10))

# %%
# Rows that are all the same: there is nothing to learn from.

repetitive = SoftmaxClassifier(**whole).fit(np.ones_like(X), y)

# %%
# Few rows, many features that are noise, no penalty: the model learns its training rows by heart.

few = rng.permutation(len(X))[:250]
X_few, y_few = np.hstack([X[few], rng.normal(size=(250, 200))]), y[few]
by_heart = SoftmaxClassifier(
    optimizer=Adam(0.01), alpha=0.0, early_stopping=True, validation_fraction=0.4, tol=0.0, **whole
).fit(X_few, y_few)

# %%
# A rate so low that the epochs run out.

too_slow = SoftmaxClassifier(optimizer=Adam(0.0003), **whole).fit(X, y)

# %%
# The curves, and what is found in them. Where rows were held out, the gap between the training and the validation loss
# is shaded, and the lowest validation loss is marked.

models = {
    "As it should be": good,
    "Rate too high": too_fast,
    "Outliers in a stream": streamed,
    "The same row again and again": repetitive,
    "Learned by heart": by_heart,
    "Rate too low": too_slow,
}
figure, axes = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")
for ax, (what, model) in zip(axes.flat, models.items(), strict=True):
    found = ", ".join(finding.name for finding in diagnose(model)) or "nothing"
    LossCurveDisplay.from_estimator(model, ax=ax, name="", show_gap=True)
    ax.set_title(f"{what}\nfound: {found}", fontsize="medium")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
plt.show()

# %%
# A finding says what was seen, and what to do about it.

for model in models.values():
    for finding in diagnose(model):
        print(finding)
