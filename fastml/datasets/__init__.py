"""Interactions of users and items: read from files, or fetched as the public sets that papers compare on."""

from fastml.datasets._interactions import load_interactions
from fastml.datasets._movielens import fetch_movielens

__all__ = ["fetch_movielens", "load_interactions"]
