"""
A small network learns from a large one
=======================================

A forest of trees, and a wide network, teach networks of a few units: how good the students get beside the same
networks trained on the labels, how large they are, and how long they take to predict.

:doc:`/user_guide/distillation` says what is computed. As a script it does the same with the images of Fashion-MNIST,
whose four files lie in ``FOLDER``:

.. code-block:: bash

    python examples/plot_distillation.py FOLDER
"""

import gzip
import pickle
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from fastml import DistilledClassifier, MLPClassifier

warnings.simplefilter("ignore", ConvergenceWarning)

# %%
# The data: digits, or Fashion-MNIST. The teachers learn from all training rows, the students too.


def fashion_mnist(folder):
    """Pixels in 0..1 float32 and labels, for training and testing."""
    parts = []
    for part in ("train", "t10k"):
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
            with gzip.open(Path(folder) / f"{part}-{kind}-ubyte.gz") as file:
                parts.append(np.frombuffer(file.read(), np.uint8, offset=header))
    return [part.reshape(-1, 784).astype(np.float32) / 255 if k % 2 == 0 else part for k, part in enumerate(parts)]


def digits():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split((X / 16).astype(np.float32), y, stratify=y, random_state=0)
    return X, y, X_test, y_test


is_large = len(sys.argv) > 1
X, y, X_test, y_test = fashion_mnist(sys.argv[1]) if is_large else digits()

# %%
# The teachers, and the temperature of each. The probabilities of a forest, which are averages, are soft as they are;
# those of a network are nearly all 0 or 1, and need a higher temperature to tell more than the labels.

epochs = {"max_iter": 20 if is_large else 300, "learning_rate_init": 0.003 if is_large else 0.01}
teachers = {
    "forest of 200 trees": (RandomForestClassifier(200, min_samples_leaf=2, n_jobs=-1, random_state=0), 1.0),
    "network 512-512": (MLPClassifier((512, 512), dropout=0.3, max_iter=20, random_state=0), 2.0),
}
for teacher, _ in teachers.values():
    teacher.fit(X, y)

# %%
# The students: networks of one hidden layer, on labels, and on what each teacher says. All see the same rows as often.
# Three of each, as small networks depend on how they begin.

widths = [16, 32, 64] if is_large else [8, 16, 32, 64]
seeds = range(3)


def students(width):
    """Name -> three fitted models."""
    plain = [MLPClassifier((width,), random_state=s, tol=0, n_iter_no_change=1000, **epochs) for s in seeds]
    fits = {"labels": [clone(model).fit(X, y) for model in plain]}
    for name, (teacher, temperature) in teachers.items():
        fits[name] = [DistilledClassifier(model, teacher, temperature=temperature).fit(X, y) for model in plain]
    return fits


def described(model):
    """Size in kB, milliseconds to predict the test rows, and test accuracy."""
    kept = getattr(model, "student_", model)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        kept.predict(X_test)
        best = min(best, time.perf_counter() - start)
    return len(pickle.dumps(kept)) / 1e3, 1e3 * best, model.score(X_test, y_test)


rows = {name: [described(teacher)] for name, (teacher, _) in teachers.items()}
by_width = {width: {name: [described(m) for m in fits] for name, fits in students(width).items()} for width in widths}
for width, fits in by_width.items():
    rows |= {f"{width} units, taught by {name}": found for name, found in fits.items()}

print(f"{'':42}{'kB':>10}{'ms':>8}{'accuracy':>10}")
for name, found in rows.items():
    size, milliseconds, accuracy = np.mean(found, axis=0)
    print(f"{name:42}{size:10.0f}{milliseconds:8.2f}{accuracy:10.4f}")

# %%
# Accuracy on the test rows; the shaded range is that of the three students, the gray lines are the teachers.

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name in by_width[widths[0]]:
    accuracies = np.array([[accuracy for *_, accuracy in by_width[width][name]] for width in widths])
    mean = accuracies.mean(axis=1)
    axes.plot(widths, mean, marker="o", label=f"taught by {name}")
    axes.fill_between(widths, accuracies.min(axis=1), accuracies.max(axis=1), alpha=0.15)
for (name, (teacher, _)), style in zip(teachers.items(), (":", "--"), strict=True):
    axes.axhline(teacher.score(X_test, y_test), color="gray", linestyle=style, linewidth=1, label=name)
axes.set_xscale("log", base=2)
axes.set_xticks(widths, widths)
axes.set(xlabel="Hidden units of the student", ylabel="Test accuracy", title="Students on labels and on probabilities")
axes.legend()
plt.show()
