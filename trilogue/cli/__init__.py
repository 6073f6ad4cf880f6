"""The command line: parse, call, present.

Importing this must stay light: `--help` and shell completion run it each time, so every
command imports what it needs when it is called.
"""

from trilogue.cli.app import app
from trilogue.cli.ending import main

__all__ = ["app", "main"]
