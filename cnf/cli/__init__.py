"""The command line: `cnf fit`, `score`, `sample`, `export`, `plot`, `check`, `report`, `info`.

    app, fitting_commands, using_commands, viewing_commands, options
                                           what can be typed; light, so that `cnf --help` answers at once
    fitting, scoring, sampling, exporting  the commands' work
    pictures, checking, reporting          the same
    summary                                what `fit` and `info` say about a model
    data, model, output, progress          tables and toys, model files, what is written, the progress bar

Exit codes: 0 done; 1 a check failed; 2 bad input or usage, in one line; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

import cnf.cli.fitting_commands
import cnf.cli.using_commands
import cnf.cli.viewing_commands  # noqa: F401  they register their commands
from cnf import plugins
from cnf.cli.app import app
from cnf.cli.escaping import escaped

# typer does not export the class of usage errors.
UsageError: Any = typer.BadParameter.__base__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` spell (default: those of the process) and return the exit
    code.

    >>> main(["info", "nowhere.safetensors"])
    2
    """
    of_results: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        # Warnings of a fit are printed at once, those about results only if there are results.
        now = category.__module__.startswith("cnf.training")
        (_say if now else of_results.append)(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    for warning in of_results if code != 2 else ():
        _say(warning)
    return code


def _run(arguments: list[str]) -> int:
    try:
        plugins.load()
        command = typer.main.get_command(app)
        with command.make_context("cnf", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "cnf"
        return _failed(f"{error.format_message().rstrip('.')}; see `{where} --help`")
    except MemoryError:
        return _failed("out of memory; use fewer rows at once, or write csv or parquet")
    except (ValueError, OSError) as error:
        return _failed(str(error))
    except RuntimeError as error:
        if "allocate" not in str(error):  # how torch says that memory is short
            raise
        return _failed("out of memory; use fewer rows at once, or a smaller width")
    except KeyboardInterrupt as stop:
        resumes = ", and --resume continues a fit" if arguments[:1] == ["fit"] else ""
        default = f"interrupted; no output was written{resumes}"
        return _failed(str(stop) or default, 130)
    return 0


def _failed(reason: str, code: int = 2) -> int:
    _say(reason)
    return code


def _say(reason: str) -> None:
    """One line on standard error."""
    print(f"cnf: {escaped(' '.join(reason.split()))}", file=sys.stderr)
