"""The commands of the command line, one module each."""

from sklearn_dl._commands import export as export
from sklearn_dl._commands import info as info
from sklearn_dl._commands import predict as predict
from sklearn_dl._commands import train as train
from sklearn_dl._commands._terminal import CommandError as CommandError
from sklearn_dl._commands._terminal import Parser as Parser
from sklearn_dl._commands._terminal import one_line as one_line
from sklearn_dl._commands._terminal import settle as settle
from sklearn_dl._commands._terminal import write_error as write_error
