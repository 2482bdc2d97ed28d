"""Pictures of fitted estimators, in the manner of scikit-learn's displays."""

from fastml.display._loss_curve import LossCurveDisplay

__all__ = ["LossCurveDisplay"]
