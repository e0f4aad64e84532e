"""The command line: one module for each command."""

from sklearn_dl._commands._main import main as main
