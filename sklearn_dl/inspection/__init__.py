"""Displays of estimators: what a network is made of."""

from sklearn_dl.inspection._summary import ModelSummary, model_summary

__all__ = ["ModelSummary", "model_summary"]
