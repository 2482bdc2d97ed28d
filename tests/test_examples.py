"""The script of real data: its figures are those of the guide, and it runs on the guide's made-up data."""

import doctest
import importlib.util
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "user_guide" / "preparing_data.md").read_text(encoding="utf-8")
DATA = ROOT.parent / "shared" / "data" / "california_housing" / "housing.csv.gz"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("pandas")
    spec = importlib.util.spec_from_file_location("california_housing", ROOT / "examples" / "california_housing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
