from collections.abc import Mapping
from typing import Any

from trilogue.board import Board
from trilogue.entry import Entry


def row(board: Board, entry: Entry) -> Mapping[str, Any]:
    del board
    return {"seq": entry.seq, "message": entry.kind.value}
