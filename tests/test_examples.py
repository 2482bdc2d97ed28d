"""The scripts of real data: their figures are those of the guide, and they run on made-up data."""

import ast
import doctest
import gzip
import importlib.util
import re
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from fastml.functional import ndcg, recall, top_k

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "user_guide" / "preparing_data.md").read_text(encoding="utf-8")
WALS_PAGE = (ROOT / "docs" / "user_guide" / "wals.md").read_text(encoding="utf-8")
DATA = ROOT.parent / "shared" / "data" / "california_housing" / "housing.csv.gz"
GOWALLA = ROOT.parent / "shared" / "data" / "gowalla"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("pandas")
    return load("california_housing")


@pytest.fixture(scope="module")
def gowalla():
    return load("gowalla")


@pytest.fixture(scope="module")
def made_up(script):
    block = next(b for b in re.findall(r"```\{doctest\}\n(.*?)```", PAGE, flags=re.DOTALL) if "DataFrame" in b)
    names = {"np": np}
    for example in doctest.DocTestParser().get_examples(block):
        exec(example.source, names)
    return names["housing"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_preparations_help(script, made_up):
    table = script.errors(made_up)
    lbfgs = {name: errors[0] for name, errors in table.items()}
    assert lbfgs["bins crossed"] < lbfgs["place in bins"] < lbfgs["counts by log"] < lbfgs["z-score"]
    assert lbfgs["as they are"] < 0.9 * table["as they are"][1]  # unscaled mini-batches


def test_figures_of_the_guide(script):
    if not DATA.is_file():
        pytest.skip("the data set california_housing is not there")
    rows = re.findall(r"^\| ([^|`]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    told = {name: [float(lbfgs), float(minibatch)] for name, lbfgs, minibatch in rows}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = script.errors(script.pd.read_csv(DATA))
    assert list(told) == list(found)
    for name, errors in found.items():
        np.testing.assert_allclose(errors, told[name], atol=0.051, err_msg=name)


def made_up_interactions(n_users=120, n_items=40):
    rng = np.random.default_rng(0)
    alike = rng.integers(4, size=(n_users, 1)) == np.arange(n_items) % 4
    return csr_array((rng.random(alike.shape) < np.where(alike, 0.6, 0.05)).astype(np.float32))


def test_gowalla_files(gowalla, tmp_path):
    (tmp_path / "train.txt").write_text("0 2 0\n1 1\n")
    with gzip.open(tmp_path / "test.txt.gz", "wt") as file:
        file.write("0 1\n1\n")
    train = gowalla.interactions(tmp_path, "train.txt")
    test = gowalla.interactions(tmp_path, "test.txt", train.shape)
    assert train.dtype == test.dtype == np.float32
    np.testing.assert_array_equal(train.toarray(), [[1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(test.toarray(), [[0, 1, 0], [0, 0, 0]])


def test_popularity_weights(gowalla):
    X = made_up_interactions()
    weights = gowalla.PopularityWeights(user_power=0.5, item_power=0.25).fit_transform(X)
    dense = X.toarray()
    expected = dense * dense.sum(axis=1, keepdims=True) ** -0.5 * dense.sum(axis=0) ** -0.25
    np.testing.assert_allclose(weights.toarray(), expected / expected.sum() * X.nnz, rtol=1e-5)
    assert weights.dtype == np.float32


def test_held_out_fifth(gowalla):
    X = made_up_interactions()
    kept, held = gowalla.held_out_fifth(X)
    np.testing.assert_array_equal((kept + held).toarray(), X.toarray())
    np.testing.assert_array_equal(np.diff(held.indptr), np.diff(X.indptr) // 5)


def test_gowalla_search(gowalla, capsys):
    start = {**gowalla.START, "n_factors": 2, "max_iter": 3, "unobserved_weight": 0.1}
    best = gowalla.tune(made_up_interactions(), start, [("n_factors", [2, 4]), ("regularization", [1.0, 0.01])])
    assert (best["n_factors"], best["regularization"]) == (4, 0.01)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert {len(line) for line in lines} == {len(lines[0])}


def test_chosen_parameters_are_those_of_the_printed_search(gowalla):
    search, best = re.search(r"```text\n(n_factors .*?)\nbest: (.*?)\n```", WALS_PAGE, flags=re.DOTALL).groups()
    names, *rows = (line.split() for line in search.splitlines())
    assert len(rows) == sum(len(values) for _, values in gowalla.SEARCH)
    row = max(rows, key=lambda row: float(row[-1]))
    assert ast.literal_eval(best) == gowalla.CHOSEN
    assert {name: float(value) for name, value in zip(names[:-2], row[:-2], strict=True)} == gowalla.CHOSEN


def test_gowalla_beats_popularity(gowalla):
    if not GOWALLA.is_dir():
        pytest.skip("the data set gowalla is not there")
    train = gowalla.interactions(GOWALLA, "train.txt")
    test = gowalla.interactions(GOWALLA, "test.txt", train.shape)
    assert (train.shape, train.nnz, test.nnz) == ((29858, 40981), 810128, 217242)
    popular = top_k(np.ones((len(train.indptr) - 1, 1)), train.sum(axis=0)[:, None], 20, exclude=train).ids
    baseline = recall(popular, test).mean(), ndcg(popular, test).mean()
    np.testing.assert_allclose(baseline, [0.0416, 0.0317], atol=6e-5)
    assert (np.array(gowalla.figures(train, test, n_factors=16, max_iter=2)) > 1.3 * np.array(baseline)).all()


def test_uci_regression(tmp_path, monkeypatch):
    script, rng = load("uci_regression"), np.random.default_rng(0)
    table, folder = rng.standard_normal((60, 4)), tmp_path / "made-up"
    table[:, 3] = 100 + 20 * table[:, 0]
    folder.mkdir()
    rows = rng.permutation(60)
    files = {"data": table, "index_features": [0, 1, 2], "index_target": [3], "n_splits": [2]}
    for k in range(2):
        files |= {f"index_train_{k}": rows[10:], f"index_test_{k}": rows[:10]}
    for name, values in files.items():
        np.savetxt(folder / f"{name}.txt", values)
    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as archive:
        archive.add(folder, "made-up")
    (X, y, splits), (X_tar, *_) = (script.load(place, "made-up") for place in (tmp_path, tmp_path / "all.tar.xz"))
    np.testing.assert_array_equal(X, X_tar)
    np.testing.assert_allclose(X, table[:, :3])
    np.testing.assert_array_equal(splits[1][1], rows[:10])
    own = [{"rate": rate, "alpha": 0.0, "init": "auto"} for rate in (1e-6, 0.03)]
    others = [{"rate": rate, "alpha": 0.0, "sizes": (5,)} for rate in (1e-6, 0.03)]
    monkeypatch.setattr(script, "CANDIDATES", {script.ours: own, script.theirs: others})
    found = script.errors(X, y, splits)
    assert found.shape == (2, 2)
    assert found.max() < 10


def test_gowalla_sampled(gowalla, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    script, X = load("gowalla_sampled"), made_up_interactions()
    small = {"n_factors": 4, "max_iter": 2, "batch_size": 50, "n_negatives": 5}
    for parameters in script.VARIANTS.values():
        assert all(np.isfinite(script.figures(*gowalla.held_out_fifth(X), **{**parameters, **small})))
    monkeypatch.setattr(script, "SOFTMAX", {**script.SOFTMAX, **small})
    monkeypatch.setattr(script, "SEARCH", {"n_factors": [2, 3], "sampler": ["popularity"]})
    script.tune(X)
    assert len(capsys.readouterr().out.splitlines()) == 3


def made_up_translations(n_things=400, n_ideas=30):
    """Lines of two languages: two ideas a thing, each a word in either language; some things are said twice."""
    rng = np.random.default_rng(0)
    alphabets = list("aeiknrst"), list("bdglmouv")
    words = [["".join(letters) for letters in rng.choice(side, (n_ideas, 6))] for side in alphabets]
    first, second = np.divmod(rng.permutation(n_ideas**2)[:n_things], n_ideas)
    lines = []
    for i, j in zip(first, second, strict=True):
        english, french = (f"{side[i]} {side[j]}" for side in words)
        lines += [f"{english}.\t{french}.", f"{english}!\t{french}."][: 1 + (i < n_ideas // 3)]
    return lines


def test_tatoeba(tmp_path):
    script, lines = load("tatoeba"), made_up_translations()
    with gzip.open(tmp_path / "fra.txt.gz", "wt") as file:
        file.write("".join(f"{line}\tattribution\r\n" for line in lines))
    english, french = script.sentences(tmp_path)
    assert [f"{pair[0]}\t{pair[1]}" for pair in zip(english, french, strict=True)] == lines
    groups = script.groups_of(english, french)
    train, held_out = script.split(groups, 50)
    assert len(held_out) == len(set(groups[held_out])) == 50
    for side in english, french:
        assert not set(side[train]) & set(side[held_out])
    small = {**script.CHOSEN, "batch_size": 64}
    *_, masked = rows = list(script.table(english, french, 50, 16, small))
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| PLS", "| CCA", "| TwoTower", "| TwoTower, ids"]
    assert float(masked.split(" | ")[1]) > 0.5
    *tried, best = script.tune(english, french, 50, 16, {**small, "max_iter": 1}, {"max_iter": [1, 8]})
    assert len(tried) == 2
    assert best.startswith("best: ")
    assert "'max_iter': 8" in best
