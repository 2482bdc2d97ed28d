"""
Preparing the California housing data
=====================================

How far a linear model gets with each way of preparing its features: 5-fold cross-validation on 20,640 districts of
California.

The ways are those of :doc:`/user_guide/preparing_data`. The data are not part of fastml, so this script is not run
here:

.. code-block:: bash

    python examples/california_housing.py housing.csv

``housing.csv`` may be compressed, or an address; without it the file is read from
https://github.com/ageron/handson-ml (Apache-2.0; census of 1990, Pace and Barry: *Sparse spatial autoregressions*,
1997). It needs pandas.
"""

import sys

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)

from fastml import LinearRegressor

ADDRESS = "https://raw.githubusercontent.com/ageron/handson-ml/master/datasets/housing/housing.csv"
COUNTS = ["total_rooms", "total_bedrooms", "population", "households"]
OTHERS = ["housing_median_age", "median_income"]
PLACE = ["longitude", "latitude"]

# %%
# The preparations, each one change away from the one before.


def prepared(counts, others, place):
    """What to do with skewed counts, of which some are missing, with the other numbers, and with the place."""
    category = OneHotEncoder(handle_unknown="ignore")
    parts = [(counts, COUNTS), (others, OTHERS), (place, PLACE), (category, ["ocean_proximity"])]
    return ColumnTransformer([(columns[0], step, columns) for step, columns in parts])


def filled(*steps):
    return make_pipeline(SimpleImputer(strategy="median"), *steps)


def preparations():
    z = StandardScaler()
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -3, "a_max": 3})
    log = FunctionTransformer(np.log1p)
    bins = KBinsDiscretizer(12, quantile_method="averaged_inverted_cdf")
    cross = make_pipeline(bins, PolynomialFeatures((2, 2), interaction_only=True, include_bias=False))
    return {
        "as they are": prepared(filled(), "passthrough", "passthrough"),
        "to 0..1": prepared(filled(MinMaxScaler()), MinMaxScaler(), MinMaxScaler()),
        "z-score": prepared(filled(z), z, z),
        "counts clipped": prepared(filled(z, clip), z, z),
        "counts by log": prepared(filled(log, z), z, z),
        "income clipped": prepared(filled(log, z), make_pipeline(z, clip), z),
        "place in bins": prepared(filled(log, z), make_pipeline(z, clip), bins),
        "bins crossed": prepared(filled(log, z), make_pipeline(z, clip), cross),
    }


# %%
# The root mean squared error of each, in thousands of dollars, with either solver.


def errors(housing):
    """For each preparation the errors of "lbfgs" and "minibatch"."""
    X, y = housing.drop(columns="median_house_value"), housing["median_house_value"] / 1000
    folds, table = KFold(5, shuffle=True, random_state=0), {}
    for name, preparation in preparations().items():
        models = [LinearRegressor(solver=solver, random_state=0) for solver in ("lbfgs", "minibatch")]
        table[name] = [
            -cross_val_score(
                make_pipeline(preparation, model), X, y, cv=folds, scoring="neg_root_mean_squared_error"
            ).mean()
            for model in models
        ]
    return table


if __name__ == "__main__":
    print(f"{'':16}{'lbfgs':>9}{'minibatch':>11}")
    for name, (lbfgs, minibatch) in errors(pd.read_csv(sys.argv[1] if len(sys.argv) > 1 else ADDRESS)).items():
        print(f"{name:16}{lbfgs:9.1f}{minibatch:11.1f}")
