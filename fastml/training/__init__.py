"""What iterative estimators share: the problem to minimise, the steps, and the watch over their progress."""
