"""`python -m trilogue`: the command of this very interpreter, wherever its script may be."""

from trilogue.cli import main

main()
