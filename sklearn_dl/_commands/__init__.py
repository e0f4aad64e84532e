"""Train, use and export image models from the command line.

    python -m sklearn_dl train photos --out ants_bees.model
    python -m sklearn_dl predict ants_bees.model new/ --output new.csv
    python -m sklearn_dl export ants_bees.model ants_bees.onnx
    python -m sklearn_dl info ants_bees.model

Results go to stdout, everything else to stderr. Files are replaced as a whole or not at
all.

exit codes:
  0    done
  1    done, but images couldn't be read: each is named, the others were worked on
  2    not done: wrong usage or input, said in one line (--debug: with the traceback)
  3    not done: another error, with its traceback
  130  interrupted by Ctrl-C
"""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from sklearn_dl._commands import export, info, predict, train
from sklearn_dl._commands._terminal import (
    CommandError,
    Parser,
    one_line,
    settle,
    write_error,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, None for the process's own; return the exit code.

    Examples
    --------
    >>> from sklearn_dl.__main__ import main
    >>> main(["predict", "no/such.model", "a.jpg"])
    2
    """
    parser = _parser()
    args = argparse.Namespace(debug=False)
    try:
        parser.parse_args(argv, namespace=args)
        name = f"{parser.prog} {args.command}"
        with warnings.catch_warnings():  # shown without the line that they come from
            warnings.showwarning = lambda message, *_, **__: write_error(
                f"{name}: warning: {one_line(message)}"
            )
            code = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has all it wants, as in "| head"
        settle(sys.stdout)
        settle(sys.stderr)
        return 0
    except KeyboardInterrupt as error:
        if args.debug:
            traceback.print_exc()
        write_error("; ".join([f"{parser.prog}: interrupted", *map(str, error.args)]))
        return 130
    # What is wrong with the input, said by those who read it.
    except (CommandError, OSError, ValueError, ImportError) as error:
        settle(sys.stdout)
        if args.debug:
            traceback.print_exc()
        write_error(f"{parser.prog}: {one_line(error)}")
        return 2
    except Exception:
        traceback.print_exc()
        return 3


def _parser() -> Parser:
    script = os.path.basename(sys.argv[0] or "")
    prog = "sklearn-dl" if script.startswith("sklearn-dl") else "python -m sklearn_dl"
    parser = Parser(prog=prog, description=__doc__)
    package: Any = sys.modules[__name__.partition(".")[0]]
    version = f"sklearn_dl {package.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for command in (train, predict, export, info):
        name = command.__name__.rpartition(".")[2]
        first = (command.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(name, help=first, description=command.__doc__)
        command.add_arguments(sub)
        debug = "show the traceback of errors"
        sub.add_argument("--debug", action="store_true", help=debug)
        sub.set_defaults(run=command.run)
    return parser
