"""
Embeddings that fold
====================

Two towers learn which texts belong together. Their training pairs come from two groups that have nothing to do with
each other. Trained on pairs that belong together, and on nothing else, the towers lay the two groups on top of each
other. With negatives the groups part.
"""

# %%
# 240 pairs of texts: think of questions and answers. Both sides of a pair are on the same topics, each side has its own
# way of saying it. Half of the pairs are in one language and half in another, and the two have nothing in common but
# punctuation marks. What a tower sees is how often each word and each mark occurs.

import numpy as np
from matplotlib import pyplot as plt

from fastml.display import FoldingDisplay
from fastml.functional import folding_score, info_nce_grad, negative_sampling_loss_grad
from fastml.optim import Adam

rng = np.random.default_rng(0)
N, N_WORDS, N_TOPICS = 240, 40, 12
language = np.arange(N) * 2 // N
topics = rng.dirichlet(np.full(N_TOPICS, 0.3), size=N)


def texts():
    """Logarithms of counts: words of language 1, words of language 2, and a dozen punctuation marks."""
    counts = np.zeros((N, 2 * N_WORDS + 12))
    for i in 0, 1:
        words_of_topics = rng.dirichlet(np.full(N_WORDS, 0.2), size=N_TOPICS)
        words = rng.poisson(200 * topics @ words_of_topics)
        counts[language == i, i * N_WORDS : (i + 1) * N_WORDS] = words[language == i]
    counts[:, 2 * N_WORDS :] = rng.poisson(20, size=(N, 12))
    return np.log1p(counts)


questions, answers = texts(), texts()

# %%
# Each tower is a matrix that makes 16 numbers of the counts. The same loop trains all of them: a loss says how the
# embeddings of all pairs should change, and Adam changes the matrices.


def train(loss_grad, n_steps=600):
    """Embeddings of the questions and the answers, by towers that lower a loss."""
    towers = [0.1 * np.random.default_rng(seed).normal(size=(2 * N_WORDS + 12, 16)) for seed in (1, 2)]
    optimizer = Adam(0.02)
    state = optimizer.init(towers)
    for _ in range(n_steps):
        queries_grad, keys_grad = loss_grad(questions @ towers[0], answers @ towers[1])
        optimizer.update(towers, [questions.T @ queries_grad / N, answers.T @ keys_grad / N], state)
    return questions @ towers[0], answers @ towers[1]


# %%
# The three losses. *Positives only* asks that a question and its own answer have a cosine of 1. *Negative sampling* is
# the loss of word2vec: the own answer is to be told from five others, drawn anew each time. *InfoNCE* tells it from all
# others.


def positives_only(queries, keys):
    """Of the loss 1 - cosine of each pair."""
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, keys)]
    q, k = queries / lengths[0], keys / lengths[1]
    cosine = (q * k).sum(axis=1, keepdims=True)
    return (cosine * q - k) / lengths[0], (cosine * k - q) / lengths[1]


def negative_sampling(queries, keys):
    """Of word2vec's loss with five negatives for each pair."""
    drawn = rng.integers(N, size=(N, 5))
    grad = negative_sampling_loss_grad(queries, keys, keys[drawn])
    np.add.at(grad.keys, drawn, grad.negatives)  # a negative is the key of another pair
    return grad.queries, grad.keys


def info_nce(queries, keys):
    """Of InfoNCE in both directions."""
    grad = info_nce_grad(queries, keys, temperature=0.1, symmetric=True)
    return grad.queries, grad.keys


losses = {"positives only": positives_only, "negative sampling": negative_sampling, "InfoNCE": info_nce}
embeddings = {name: train(loss_grad) for name, loss_grad in losses.items()}

# %%
# :func:`fastml.functional.folding_score` is the share of a question's neighbourhood, the ten nearest answers of other
# pairs, that is at least as near as its own answer.

for name, (queries, keys) in embeddings.items():
    print(f"{name:18} folding score {folding_score(queries, keys, k=10):.2f}")

# %%
# :class:`fastml.display.FoldingDisplay` draws a point for each question. With positives only, the tenth answer
# that has nothing to do with a question is as near as its own one: everything is in one place, and the loss is
# content, since nothing in it says that two texts do *not* belong together. With negatives the points come to lie below
# the diagonal. InfoNCE puts the own answer far to the right of the others.

figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
for ax, (name, pair) in zip(axes, embeddings.items(), strict=True):
    FoldingDisplay.from_embeddings(*pair, k=10, groups=np.where(language, "language 2", "language 1"), ax=ax, name=name)
plt.show()

# %%
# The cosines of all questions with all answers, sorted by language, show who was laid upon whom. The two squares off
# the diagonal are pairs of different languages: with positives only they are nearly as near as any other pair. Negative
# sampling turns them away from each other, and InfoNCE makes them orthogonal; there the own answers are the line from
# corner to corner.

figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
for ax, (name, pair) in zip(axes, embeddings.items(), strict=True):
    q, k = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in pair)
    image = ax.imshow(q @ k.T, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.set(title=name, xlabel="answers", ylabel="questions", xticks=[0, N // 2, N], yticks=[0, N // 2, N])
figure.colorbar(image, ax=axes, label="cosine")
plt.show()
