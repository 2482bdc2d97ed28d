"""What a fitted WALS answers: recommendations, scores, similarity, explanations, and users that come later."""

import naive
import numpy as np
import pytest
from recommenders import (
    N_ITEMS,
    N_USERS,
    TERMS,
    TOLERANCE,
    interactions,
    make,
    users_by_definition,
    weights_like,
    with_zeros,
)
from scipy.sparse import csr_array, vstack

FEEDBACK = pytest.mark.parametrize("feedback", ["implicit", "explicit"])


def scores_by_definition(model, users=None, biases=None):
    """Of all pairs, for the stored users or others."""
    users, biases = (model.user_factors_, model.user_biases_) if users is None else (users, biases)
    scores = users.astype(np.float64) @ model.item_factors_.T
    return scores if biases is None else scores + biases[:, None] + model.item_biases_ + model.mean_


def best(scores, allowed, k):
    """The k best allowed items of each row, padded."""
    scores = np.where(allowed, scores, -np.inf)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, ids, axis=1)
    ids, short = np.where(np.isneginf(found), -1, ids), max(k - scores.shape[1], 0)
    return np.pad(ids, ((0, 0), (0, short)), constant_values=-1), np.pad(
        found, ((0, 0), (0, short)), constant_values=-np.inf
    )


@pytest.fixture(scope="module", params=["implicit", "explicit"])
def fitted(request):
    X = with_zeros(interactions())
    return make(request.param).fit(X), X


def seen_by(model, X):
    return naive.stored(X) if model.feedback == "explicit" else X.toarray() != 0


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [1, 5, N_ITEMS, 3 * N_ITEMS])
def test_recommend_to_users(k, exclude_seen, fitted):
    model, X = fitted
    allowed = ~seen_by(model, X) if exclude_seen else np.ones(X.shape, bool)
    ids, scores = model.recommend(np.arange(N_USERS), k, exclude_seen=exclude_seen)
    expected = best(scores_by_definition(model), allowed, k)
    np.testing.assert_array_equal(ids[4:], expected[0][4:])  # user 3 has ties only
    np.testing.assert_allclose(scores, expected[1], rtol=1e-9, atol=1e-12)
    assert ids.dtype == np.int64
    assert scores.dtype == np.float64
    assert ids.shape == scores.shape == (N_USERS, k)


def test_ties_go_to_the_lower_id():
    model = make().fit(interactions())
    ids, scores = model.recommend(3, 4)
    np.testing.assert_array_equal(ids, [0, 1, 2, 3])
    np.testing.assert_array_equal(scores, 0)


def test_one_user(fitted):
    model, _ = fitted
    ids, scores = model.recommend(8, 4)
    many = model.recommend([8, 2], 4)
    assert ids.shape == scores.shape == (4,)
    np.testing.assert_array_equal(ids, many[0][0])
    np.testing.assert_allclose(scores, many[1][0], rtol=1e-12)
    np.testing.assert_array_equal(model.recommend(np.int32(8), 4)[0], ids)
    assert model.recommend([8], 4)[0].shape == (1, 4)


def test_recommend_to_rows(fitted):
    model, _ = fitted
    rows = interactions(seed=9, shape=(11, N_ITEMS))
    users = users_by_definition(model, rows)
    ids, scores = model.recommend(rows, 7)
    expected = best(scores_by_definition(model, *users), rows.toarray() == 0, 7)
    np.testing.assert_array_equal(ids[4:], expected[0][4:])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-8, atol=1e-12)
    for other in rows.toarray(), rows.tocsc(), rows.toarray().tolist():
        np.testing.assert_array_equal(model.recommend(other, 7)[0], ids)
    seen = model.recommend(rows, N_ITEMS, exclude_seen=False)[0]
    assert (np.sort(seen) == np.arange(N_ITEMS)).all()


def test_known_rows_and_ids_agree(fitted):
    model, X = fitted
    for mine, theirs in zip(model.recommend(np.arange(N_USERS)), model.recommend(X), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.recommend(X, model.n_recommendations)[0])


def test_predict_never_gives_what_is_in_the_row(fitted):
    model, X = fitted
    ids = model.set_params(n_recommendations=N_ITEMS).predict(X)
    for found, seen in zip(ids, seen_by(model, X), strict=True):
        real = found[found >= 0]
        assert len(set(real)) == len(real)
        assert sorted(real) == np.flatnonzero(~seen).tolist()
    model.set_params(n_recommendations=10)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_candidates(exclude_seen, fitted):
    model, X = fitted
    candidates = [31, 2, 17, 5, 24]
    allowed = np.zeros(X.shape, bool)
    allowed[:, candidates] = True
    if exclude_seen:
        allowed &= ~seen_by(model, X)
    ids, scores = model.recommend(np.arange(N_USERS), 6, exclude_seen=exclude_seen, candidates=candidates)
    expected = best(scores_by_definition(model), allowed, 6)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(
        model.recommend(X, 6, exclude_seen=exclude_seen, candidates=candidates)[0][4:], ids[4:]
    )


def test_no_users_get_no_recommendations(fitted):
    model, _ = fitted
    for nobody in [], np.array([], np.int64):
        ids, scores = model.recommend(nobody, 3)
        assert ids.shape == scores.shape == (0, 3)
        assert model.similar_items(nobody, 3)[0].shape == (0, 3)


def test_predict_pairs(fitted):
    model, _ = fitted
    scores = scores_by_definition(model)
    users, items = np.random.default_rng(0).integers(0, [[N_USERS], [N_ITEMS]], (2, 40_000))
    np.testing.assert_allclose(model.predict_pairs(users, items), scores[users, items], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.predict_pairs(4, range(N_ITEMS)), scores[4], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.predict_pairs(range(N_USERS), 6), scores[:, 6], rtol=1e-9, atol=1e-12)
    assert isinstance(model.predict_pairs(4, 6), float)


@pytest.mark.parametrize("kind", ["item", "user"])
def test_similar(kind, fitted):
    model, _ = fitted
    factors = getattr(model, f"{kind}_factors_")
    empty, n = {"item": 5, "user": 3}[kind], len(factors)
    length = np.linalg.norm(factors, axis=1)
    cosine = factors @ factors.T / np.where(length, length, 1) / np.where(length, length, 1)[:, None]
    allowed = (length > 0) & ~np.eye(n, dtype=bool)
    allowed[empty] = False
    similar = getattr(model, f"similar_{kind}s")
    ids, scores = similar(np.arange(n), n)
    expected = best(cosine, allowed, n)
    np.testing.assert_array_equal(ids[:, :5], expected[0][:, :5])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-9, atol=1e-12)
    assert not (ids == empty).any()
    assert (ids[empty] == -1).all()
    assert not np.isnan(scores).any()
    one = similar(11, 4)
    np.testing.assert_array_equal(one[0], ids[11, :4])
    assert one[0].shape == one[1].shape == (4,)


@pytest.mark.parametrize("item", [0, 5, 16])
def test_explain(item, fitted):
    model, X = fitted
    scores = scores_by_definition(model)
    for user in 0, 11, 20:
        score, ids, contributions, baseline = explanation = model.explain(user, item, k=None)
        np.testing.assert_allclose(score, scores[user, item], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(contributions.sum() + baseline, score, rtol=1e-12, atol=1e-14)
        assert sorted(ids) == np.flatnonzero(seen_by(model, X)[user]).tolist()
        assert (np.diff(contributions) <= 0).all()
        few = model.explain(user, item, k=2)
        assert few.score == score
        np.testing.assert_array_equal(few.ids, ids[:2])
        np.testing.assert_array_equal(few.contributions, contributions[:2])
        of_row = model.explain(X[[user]], item, k=None)
        np.testing.assert_array_equal(of_row.contributions, explanation.contributions)


@FEEDBACK
def test_a_contribution_is_what_the_score_is_linear_in(feedback):
    """Scaling what one observation pulls to changes the score by its contribution, the normal matrix being the same."""
    X = interactions()
    model = make(feedback).fit(X)
    row, item = X[[11]], 4
    explanation = model.explain(row, item, k=None)
    if feedback == "explicit":  # a rating at its baseline pulls to 0
        for j, contribution in zip(explanation.ids, explanation.contributions, strict=True):
            moved = row.copy()
            moved.data[row.indices == j] = model.mean_ + model.item_biases_[j]
            lost = explanation.score - model.explain(moved, item).score
            np.testing.assert_allclose(lost, contribution, rtol=1e-8, atol=1e-12)
    else:
        H, c = model.item_factors_, row.toarray()[0]
        A = (H.T * (c + 0.1)) @ H + naive.wals_penalties(row, unobserved_weight=0.1, **TERMS)[0] * np.eye(6)
        for j, contribution in zip(explanation.ids, explanation.contributions, strict=True):
            np.testing.assert_allclose(contribution, c[j] * H[item] @ np.linalg.solve(A, H[j]), rtol=1e-8)


def test_explain_weighted_ratings_and_empty_users():
    X = interactions()
    model = make("explicit").fit(X, weights=weights_like(X))
    np.testing.assert_allclose(model.explain(11, 4).score, model.predict_pairs(11, 4), rtol=1e-8)
    nothing = model.explain(3, 4)
    assert nothing.score == nothing.baseline == model.mean_ + model.item_biases_[4]
    assert len(nothing.ids) == len(nothing.contributions) == 0
    assert make().fit(X).explain(3, 4).score == 0


@FEEDBACK
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_partial_fit(dtype, feedback):
    X, new = interactions(dtype=dtype), interactions(seed=7, shape=(10, N_ITEMS), dtype=dtype)
    model = make(feedback).fit(X)
    items, users = model.item_factors_, model.user_factors_
    before = users.copy()
    ids = np.array([61, 5, 60, 9, 62, 3, 0, 63, 59, 64])
    assert model.partial_fit(new, ids) is model
    assert model.item_factors_ is items
    np.testing.assert_array_equal(users, before)
    rows = vstack([X, csr_array((5, N_ITEMS))]).toarray()
    rows[ids] = new.toarray()
    np.testing.assert_allclose(
        model.user_factors_,
        users_by_definition(model, csr_array(rows))[0],
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype],
    )
    assert model.user_factors_.dtype == dtype
    found = model.recommend(np.arange(65), N_ITEMS)[0]
    assert not any(rows[user, ids[ids >= 0]].any() for user, ids in enumerate(found))
    np.testing.assert_allclose(model.recommend(ids)[1], model.recommend(new)[1], rtol=1e-5)
    untouched = np.setdiff1d(np.arange(N_USERS), ids)
    np.testing.assert_array_equal(model.user_factors_[untouched], before[untouched])


@FEEDBACK
def test_partial_fit_appends_without_ids(feedback):
    X, new = interactions(), interactions(seed=7, shape=(8, N_ITEMS))
    model = make(feedback).fit(X).partial_fit(new)
    assert model.user_factors_.shape == (N_USERS + 8, 6)
    np.testing.assert_array_equal(model.user_factors_[N_USERS:], model.transform(new))
    assert model.n_features_in_ == N_ITEMS


def test_partial_fit_with_weights():
    X = interactions()
    weights = weights_like(X)
    model = (
        make("explicit")
        .fit(X, weights=weights)
        .partial_fit(X[:9])
        .partial_fit(X[9:12], [0, 5, 6], weights=weights[9:12])
    )
    for user, row, weight in (5, X[[10]], weights[[10]]), (N_USERS + 4, X[[4]], None), (20, X[[20]], weights[[20]]):
        expected = users_by_definition(model, row, weight)
        np.testing.assert_allclose(model.user_factors_[user], expected[0][0], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(model.explain(user, 1).score, model.predict_pairs(user, 1), rtol=1e-8)
    model = make("explicit").fit(X).partial_fit(X[:9], weights=weights[:9])
    np.testing.assert_allclose(model.explain(N_USERS + 4, 1).score, model.predict_pairs(N_USERS + 4, 1), rtol=1e-8)


def held_out(model, row):
    """Which items of one row the score holds out: those that are missing in the fold-in."""
    asked = []

    class Spy(type(model)):
        def _fold_in(self, X, factors, weights=None):
            asked.append(X)
            return super()._fold_in(X, factors, weights)

    spy = Spy(**model.get_params())
    vars(spy).update(vars(model))
    spy.score(row)
    return set(row.indices) - set(asked[0].indices)


def test_score(fitted):
    model, X = fitted
    usable, values = [], []
    for row in (X[[user]] for user in range(N_USERS)):
        row = csr_array(row.toarray()) if model.feedback == "implicit" else row
        if row.nnz < 2:
            continue
        held = held_out(model, row)
        assert len(held) == max(1, round(row.nnz / 5))
        keep = ~np.isin(row.indices, list(held))
        kept = csr_array((row.data[keep], (np.zeros(keep.sum(), int), row.indices[keep])), row.shape)
        ids, _ = model.recommend(kept, 10)
        relevant = csr_array((np.ones(len(held)), (np.zeros(len(held), int), list(held))), row.shape)
        values += naive.ndcg(ids, relevant, 10).tolist()
        usable.append(row)
    np.testing.assert_allclose(model.score(X), np.mean(values), rtol=1e-12)
    for order in np.random.default_rng(0).permuted([np.arange(len(usable))] * 2, axis=1):
        np.testing.assert_allclose(model.score(vstack([usable[i] for i in order])), np.mean(values), rtol=1e-12)


def test_the_split_depends_on_the_items_of_a_row_only():
    X = interactions()
    splits = [
        held_out(model, X[[20]].astype(dtype) * scale)
        for model in (make().fit(X), make(random_state=5, n_factors=2).fit(X))
        for dtype in (np.float64, np.float32)
        for scale in (1, 0.3)
    ]
    assert all(split == splits[0] for split in splits)
    many = [frozenset(held_out(make().fit(X), X[[user]])) for user in range(20, 32)]
    assert len(set(many)) > 8  # and other rows have other ones


def test_score_looks_at_n_recommendations():
    model = make(n_recommendations=1).fit(interactions())
    one = model.score(interactions())
    assert one != model.set_params(n_recommendations=10).score(interactions())
    assert 0 < one < 1
