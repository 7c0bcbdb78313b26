"""Inner parts of the scikit-learn estimators."""
