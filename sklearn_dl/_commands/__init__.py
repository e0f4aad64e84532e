"""Train, use and export image models, and extract features, from the command line.

    python -m sklearn_dl train photos --out ants_bees.model
    python -m sklearn_dl predict ants_bees.model new/ --output new.csv
    python -m sklearn_dl report ants_bees.model photos --folds 5 --out report.html
    python -m sklearn_dl export ants_bees.model ants_bees.onnx
    python -m sklearn_dl info ants_bees.model
    python -m sklearn_dl features photos --out photos.npy

Results go to stdout, the rest to stderr. Files are replaced as a whole or not at all.

exit codes:
  0    done
  1    done, but images couldn't be read: each is named, the others were worked on
  2    not done: wrong usage or input, said in one line (--debug: with the traceback)
  3    not done: another error, with its traceback
  130  interrupted by Ctrl-C
"""

import argparse
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from sklearn_dl._commands import export, features, info, predict, report, train
from sklearn_dl._commands._terminal import Parser, one_line, settle, write_error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, None for the process's own; return the exit code."""
    parser = _parser()
    args = argparse.Namespace(debug=False)
    try:
        parser.parse_args(argv, namespace=args)
        with warnings.catch_warnings():  # shown without the line that they come from
            warnings.showwarning = lambda message, *_, **__: write_error(
                f"{args.command}: warning: {one_line(message)}"
            )
            code = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has all it wants, as in "| head"
        settle(sys.stdout)
        return 0
    except KeyboardInterrupt as error:
        write_error("; ".join([f"{parser.prog}: interrupted", *map(str, error.args)]))
        return 130
    # What is wrong with the input, said by those who read it.
    except (OSError, ValueError, ImportError) as error:
        settle(sys.stdout)
        if args.debug:
            traceback.print_exc()
        write_error(f"{parser.prog}: {one_line(error)}")
        return 2
    except Exception:
        traceback.print_exc()
        return 3


def _parser() -> Parser:
    parser = Parser(prog="python -m sklearn_dl", description=__doc__)
    package: Any = sys.modules[__name__.partition(".")[0]]
    version = f"sklearn_dl {package.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for command in (train, predict, report, features, export, info):
        name, text = command.__name__.rpartition(".")[2], command.__doc__ or ""
        sub = commands.add_parser(name, help=text.splitlines()[0], description=text)
        command.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        sub.set_defaults(run=command.run)
    return parser
