"""
Paths of the optimizers
=======================

Seven optimizers walk down the same valley, 100 times as steep across as along: once it lies along the axes, once it
lies askew. Then the schedules of their learning rates.
"""

# %%
# The valley is a quadratic bowl with its lowest point at :math:`(3, 1)`. Its loss and gradient at ``w``:

import numpy as np
from matplotlib import pyplot as plt
from sklearn.base import clone

from fastml.optim import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    OneCycle,
    RMSProp,
    StepDecay,
)

LOWEST, START, N_STEPS = np.array([3.0, 1.0]), np.array([-5.0, 3.0]), 100


def valley(angle):
    """Matrix of the second derivatives: curvature 0.02 along the valley, 2 across it."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag([0.02, 2.0]) @ turn.T


def loss(w, bend):
    away = w - LOWEST
    return 0.5 * np.sum(away @ bend * away, axis=-1)


def path(optimizer, bend):
    """Where the optimizer is after 0, 1, ... steps."""
    w = [START.copy()]
    state, places = optimizer.init(w), [START]
    for _ in range(N_STEPS):
        optimizer.update(w, [bend @ (w[0] - LOWEST)], state)
        places.append(w[0].copy())
    return np.array(places)


# %%
# Each optimizer gets the rate at which its mean loss along the way is lowest, out of 31 between 0.005 and 5.

OPTIMIZERS = {
    "SGD": SGD(),
    "SGD, momentum 0.9": SGD(momentum=0.9),
    "SGD, Nesterov": SGD(momentum=0.9, nesterov=True),
    "AdaGrad": AdaGrad(),
    "RMSProp": RMSProp(rho=0.9),
    "Adam": Adam(),
    "AdamW, weight decay 0.1": AdamW(weight_decay=0.1),
}


def best_path(optimizer, bend):
    rates = np.geomspace(0.005, 5, 31)
    paths = [path(clone(optimizer).set_params(learning_rate=rate), bend) for rate in rates]
    best = np.argmin([loss(places, bend).mean() for places in paths])
    return rates[best], paths[best]


def draw(bend, title):
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    x, y = np.meshgrid(np.linspace(-7, 7, 141), np.linspace(-4, 5, 91))
    height = loss(np.stack([x, y], axis=-1), bend)
    losses = axes.flat[-1]
    for i, (ax, (name, optimizer)) in enumerate(zip(axes.flat, OPTIMIZERS.items(), strict=False)):
        rate, places = best_path(optimizer, bend)
        ax.contour(x, y, height, levels=np.geomspace(0.02, 40, 12), colors="0.8", linewidths=0.8)
        ax.plot(*places.T, ".-", color=f"C{i}", markersize=4, linewidth=1)
        ax.plot(*LOWEST, "k+", markersize=10)
        ax.set(xlim=(-7, 7), ylim=(-4, 5), xticks=[], yticks=[])
        ax.set_title(f"{name}\nrate {rate:.2g}", fontsize="medium", color=f"C{i}")
        losses.semilogy(loss(places, bend), color=f"C{i}", linewidth=1)
    losses.set(ylim=(1e-4, 50), xlabel="step")
    losses.set_title("loss, in the colors of the titles", fontsize="medium")
    losses.yaxis.tick_right()
    figure.suptitle(title)


# %%
# Along the axes:
#
# - SGD must not take larger steps than the steep sides allow, and creeps along the floor.
# - Momentum goes faster along the floor, and swings from side to side. Nesterov's looks ahead and swings less.
# - AdaGrad, RMSProp and Adam divide each coordinate by the size of its gradients. To them this valley is round.
#   Adam has momentum on top, and swings.
# - AdamW ends beside the lowest point: weight decay pulls it towards 0.

draw(valley(0.0), "A valley along the axes")
plt.show()

# %%
# Askew the gradients of both coordinates are of like size, and there is little to gain by dividing: AdaGrad and RMSProp
# creep along the floor as SGD does. RMSProp, whose rate does not fall like AdaGrad's, swings about the lowest point
# once the gradients are small. Momentum, alone or in Adam, still helps.

draw(valley(np.pi / 6), "The same valley, turned by 30 degrees")
plt.show()

# %%
# Schedules are callables from a step, or an array of steps, to rates. All of them take ``warmup_steps``.

SCHEDULES = [
    Constant(0.1, warmup_steps=20),
    InverseTimeDecay(0.1, 0.03),
    StepDecay(0.1, 40, gamma=0.5),
    ExponentialDecay(0.1, 0.97),
    CosineDecay(0.1, 100, warmup_steps=10),
    OneCycle(0.1, 100),
]
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
steps = np.arange(120)
for schedule in SCHEDULES:
    axes.plot(steps, schedule(steps), label=repr(schedule))
axes.set(xlabel="step", ylabel="learning rate", title="Learning-rate schedules")
axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
figure.set_size_inches(10, 4)
plt.show()
