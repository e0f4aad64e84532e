"""The command line: ``python -m sklearn_dl --help``."""

from sklearn_dl._commands import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
