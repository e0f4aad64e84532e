"""Stands in until the exports name its home."""

from sklearn_dl._files import ModelFileError as ModelFileError
from sklearn_dl._files import check_file as check_file
