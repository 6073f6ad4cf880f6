"""Options that many commands have."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
Limit = Annotated[int, typer.Option(min=1, max=500, help="How many at most.")]
Cursor = Annotated[str | None, typer.Option(help="`next` of the page before.")]
