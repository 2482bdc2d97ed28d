"""
Reading the loss curve of a softmax classifier
==============================================

A softmax classifier learns handwritten digits at three learning rates. The loss curves tell which one is too low, which one does well, and
what early stopping is for.
"""

# %%
# The data: 1797 images of 8 x 8 pixels. A quarter is kept for the test.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import SoftmaxClassifier
from fastml.display import LossCurveDisplay
from fastml.optim import Adam

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# One model for each learning rate. Features are scaled in the pipeline, and a tenth of the training rows is the validation part.


def fitted(learning_rate):
    classifier = SoftmaxClassifier(
        optimizer=Adam(learning_rate),
        early_stopping=True,
        n_iter_no_change=40,
        max_iter=40,
        tol=0.0,
        random_state=0,
    )
    return make_pipeline(StandardScaler(), classifier).fit(X_train, y_train)


rates = [0.0003, 0.003, 0.3]
models = [fitted(rate) for rate in rates]
for rate, model in zip(rates, models, strict=True):
    print(f"learning rate {rate}: test accuracy {model.score(X_test, y_test):.4f}")

# %%
# Before training, each of the ten classes has the probability 0.1, which is a loss of :math:`\log 10 = 2.303` nats. From there a good
# curve falls quickly and levels out. At the low rate it is still falling when the epochs run out. At the high rate the validation loss
# (dashed) rises while the training loss goes on falling: the model learns its training rows by heart.

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
LossCurveDisplay.from_estimator(models, ax=axes, name=[f"rate {rate}" for rate in rates], log_scale=True)
axes.axhline(np.log(10), color="gray", linestyle=":", linewidth=1)
axes.set_title("Three learning rates, Adam")

# %%
# Early stopping keeps the weights of the epoch with the lowest validation loss, so even the model with the high rate predicts as
# well as it did at its best.

for rate, model in zip(rates, models, strict=True):
    validation = model[-1].validation_loss_curve_
    print(f"learning rate {rate}: lowest validation loss {min(validation):.4f} in epoch {1 + np.argmin(validation)}")
