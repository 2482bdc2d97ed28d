"""
Reading the loss curve of a softmax classifier
==============================================

A softmax classifier learns handwritten digits at three learning rates. The loss curves tell which of them is too low,
which one is too high, and what early stopping is for.
"""

# %%
# The data: 1797 images of 8 x 8 pixels. A quarter is kept for the test.

import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import SoftmaxClassifier
from fastml.display import LossCurveDisplay
from fastml.optim import Adam

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# One model for each learning rate. Features are scaled in the pipeline, and a tenth of the training rows is the
# validation part. To see whole curves, the patience ``n_iter_no_change`` is as long as the training.

warnings.simplefilter("ignore", ConvergenceWarning)
n_epochs = 60


def fitted(learning_rate):
    classifier = SoftmaxClassifier(
        optimizer=Adam(learning_rate),
        batch_size=64,
        max_iter=n_epochs,
        early_stopping=True,
        n_iter_no_change=n_epochs,
        random_state=0,
    )
    return make_pipeline(StandardScaler(), classifier).fit(X_train, y_train)


rates = [0.0003, 0.01, 0.3]
models = [fitted(rate) for rate in rates]

# %%
# Before training each of the ten classes has the probability 0.1, which is a loss of :math:`\log 10 = 2.303` nats, the
# dotted line. From there a good curve falls quickly and levels out.
#
# - At the low rate the loss is still falling when the epochs run out.
# - At the middle rate both curves level out. After some thirty epochs the validation loss (dashed) rises a little while
#   the training loss goes on falling: from there on the model learns its training rows by heart.
# - At the high rate the steps overshoot: the loss jumps, and stays above what the middle rate reaches.

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
LossCurveDisplay.from_estimator(models, ax=axes, name=[f"rate {rate}" for rate in rates], log_scale=True)
axes.axhline(np.log(10), color="gray", linestyle=":", linewidth=1)
figure.suptitle("Softmax classifier of digits, Adam at three learning rates")
plt.show()

# %%
# Early stopping keeps the weights of the epoch with the lowest validation loss.

for rate, model in zip(rates, models, strict=True):
    validation = model[-1].validation_loss_curve_
    best = f"lowest validation loss {min(validation):.3f} in epoch {1 + np.argmin(validation)}"
    print(f"learning rate {rate}: {best}, test accuracy {model.score(X_test, y_test):.3f}")
