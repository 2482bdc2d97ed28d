"""Pictures of fitted estimators, in the manner of scikit-learn's displays, and what a loss curve says."""

from fastml.display._diagnose import Finding, diagnose
from fastml.display._folding import FoldingDisplay
from fastml.display._loss_curve import LossCurveDisplay

__all__ = ["Finding", "FoldingDisplay", "LossCurveDisplay", "diagnose"]
