"""How a command ends: an exit code, and an error as one clear line, with `--json` also as one document.

0 done (or held as asked), 1 ended otherwise, 2 bad usage, 130 interrupted.
"""

import json
import sys
import traceback
from typing import Any

import typer

from trilogue.cli.app import app
from trilogue.errors import Invalid, TrilogueError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

_UsageError: Any = typer.BadParameter.__mro__[1]  # Click's, wherever this version of Typer keeps it
_LONGEST_SAID = 500


def main() -> None:
    """The entry point. `--debug` may stand anywhere, and shows the traceback with an error."""
    arguments = sys.argv[1:]
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    rest = arguments[len(own) :]
    debug, as_json = "--debug" in own, "--json" in own
    try:
        exit_code = app([word for word in own if word != "--debug"] + rest, "trilogue", standalone_mode=False)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line
        if debug:
            traceback.print_exc()
        raise SystemExit(_told(error, as_json=as_json)) from None
    raise SystemExit(exit_code or 0)


def _told(error: Exception, *, as_json: bool) -> int:
    """Say what was wrong and return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        typer.echo(str(error), err=True)
        return USAGE
    code, message, exit_code = _described(error)
    if as_json:
        print(json.dumps({"error": code, "detail": message}, ensure_ascii=False))  # noqa: T201
    typer.secho(f"trilogue: {message}", fg="red", err=True)
    return exit_code


def _described(error: Exception) -> tuple[str, str, int]:
    if isinstance(error, TrilogueError):
        bad_usage = isinstance(error, Invalid) and error.code != "bad_database"  # that one can come at any time
        return error.code, error.message, USAGE if bad_usage else FAILED
    if isinstance(error, _UsageError):
        wrong: Any = error
        command = wrong.ctx.command_path if wrong.ctx else "trilogue"
        said = wrong.format_message().replace("Value error, ", "").strip().rstrip(".")
        return "usage", f"{said[:1].lower()}{said[1:]}; `{command} --help` shows what there is", USAGE
    said = " ".join(str(error).split())[:_LONGEST_SAID]
    return "internal", f"unexpected {type(error).__name__}: {said}; `--debug` shows where", FAILED
