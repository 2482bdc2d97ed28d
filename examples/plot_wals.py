"""
WALS: objective, search, and new users
======================================

What :class:`fastml.WALS` lowers from epoch to epoch, how two parameters decide the quality of its recommendations, and
how many items of a new user it needs to know.
"""

# %%
# 1500 users choose among 500 items. Each user likes two or three of 15 genres, each item is of one genre, and some are
# far more popular than others.

import numpy as np
from matplotlib import pyplot as plt
from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV, KFold

from fastml import WALS
from fastml.functional import ndcg, top_k

rng = np.random.default_rng(0)
N_USERS, N_ITEMS, N_GENRES = 1500, 500, 15
genre = rng.integers(N_GENRES, size=N_ITEMS)
popularity = rng.permutation(1 / np.arange(5, N_ITEMS + 5) ** 0.8)
taste = rng.dirichlet(np.full(N_GENRES, 0.15), size=N_USERS) + 0.002
chance = np.log(taste[:, genre] * popularity) + rng.gumbel(size=(N_USERS, N_ITEMS))  # the largest k: k draws
rank = np.argsort(np.argsort(-chance, axis=1), axis=1)
n_chosen = rng.lognormal(2.7, 0.5, N_USERS).clip(8, 80)
X = csr_array((rank < n_chosen[:, np.newaxis]).astype(np.float32))
print(f"{X.nnz} interactions, {np.median(np.diff(X.indptr)):.0f} of a median user")

# %%
# ``loss_curve_`` has the three parts of the objective. The factors begin near 0, where nothing is explained. The first
# epochs explain the observed pairs, and pay with the other parts. Each sum is lower than the one before.

model = WALS(n_factors=32, unobserved_weight=0.3, regularization=0.02, random_state=0).fit(X)
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
epochs = np.arange(1, model.n_iter_ + 1)
ax.stackplot(epochs, model.loss_curve_.T, labels=["observed", "unobserved", "regularization"], alpha=0.8)
ax.set(xlabel="epoch", ylabel="objective", title="The parts of the objective", xlim=(1, epochs[-1]))
ax.legend(loc="upper right")
plt.show()

# %%
# ``unobserved_weight`` and ``regularization`` have to be searched together. Cross-validation over rows asks how well
# users are served whom the factors never saw: a fifth of each row is held out and to be found among all items that the
# rest of the row does not have. The best pairs lie along a diagonal, close to where both are so large that every factor
# is 0 and items come in the order of their ids.

grid = {"unobserved_weight": [0.03, 0.1, 0.3, 1.0, 3.0], "regularization": [0.001, 0.003, 0.01, 0.03, 0.1]}
estimator = WALS(n_factors=32, max_iter=8, random_state=0)
search = GridSearchCV(estimator, grid, cv=KFold(3, shuffle=True, random_state=0)).fit(X)
print(search.best_params_)

scores = search.cv_results_["mean_test_score"].reshape(5, 5)
figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
image = ax.imshow(scores, cmap="viridis", origin="lower")
for (row, column), score in np.ndenumerate(scores):
    ax.text(column, row, f"{score:.3f}", ha="center", va="center", color="k" if score > scores.mean() else "w")
ax.set_xticks(range(5), grid["unobserved_weight"])
ax.set_yticks(range(5), grid["regularization"])
ax.set(xlabel="unobserved_weight", ylabel="regularization", title="NDCG@10 of users whom training never saw")
plt.show()

# %%
# A user who comes later is folded in: one least squares problem, the items stay as they are. 300 users come with their
# first 0, 1, 2, ... items, and those from the eighth on are to be found. A user without items has the factor 0, and
# gets the items in the order of their ids; who is known by a single item is already served better than by what is
# popular.

train, new = X[300:], X[:300]
model = search.best_estimator_.fit(train)
order = np.argsort(np.where(new.toarray() > 0, rng.random(new.shape), 1), axis=1)  # each user's items come first


def part(first, last):
    """The items of each new user in ``first..last - 1`` of their random order."""
    ids = [order[u, first : min(last, n)] for u, n in enumerate(np.diff(new.indptr))]
    indptr = np.cumsum([0, *map(len, ids)])
    return csr_array((np.ones(indptr[-1], np.float32), np.concatenate(ids), indptr), new.shape)


relevant, known = part(7, N_ITEMS), range(8)
ndcgs = [ndcg(model.recommend(part(0, n), k=10)[0], relevant).mean() for n in known]
counts = train.sum(axis=0)[:, np.newaxis]
popular = [ndcg(top_k(np.ones((300, 1)), counts, 10, exclude=part(0, n)).ids, relevant).mean() for n in known]

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.plot(known, ndcgs, "o-", label="folded in")
ax.plot(known, popular, "k:", label="most popular items")
ax.set(xlabel="items known of a new user", ylabel="NDCG@10 of the others", title="Folding in")
ax.legend()
plt.show()
