"""`trilogue audit`: what people did, from the ledger itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from trilogue.cli.durations import read_moment
from trilogue.cli.owning import moment, show_page, with_own_ledger
from trilogue.cli.reading import cut, table
from trilogue.cli.showing import inert, short
from trilogue.clock import iso
from trilogue.errors import Invalid
from trilogue.identity import key_id_in
from trilogue.ledger.identities import AuditRow, Listed, Outcome, Sought

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

_STYLES = {Outcome.OK: "green", Outcome.REFUSED: "yellow", Outcome.FAILED: "red"}
_OBJECT_LENGTH = 40


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """Which lines are wanted, as given."""

    tenant: str | None
    actor: str | None
    since: str | None
    action: str | None
    on: str | None
    outcome: str | None

    @property
    def sought(self) -> Sought:
        """What they mean. Raises `Invalid`."""
        if self.outcome is not None and self.outcome not in set(Outcome):
            raise Invalid(f"--outcome takes {', '.join(Outcome)}, not {self.outcome!r}", code="invalid_outcome")
        return Sought(
            actor=None if self.actor is None else key_id_in(self.actor),
            since=None if self.since is None else read_moment("--since", self.since, ahead=False),
            action=self.action,
            object=None if self.on is None else key_id_in(self.on),
            outcome=None if self.outcome is None else Outcome(self.outcome),
        )

    @property
    def options(self) -> list[str]:
        """The same as one would write it, without the secret of a key."""
        sought = self.sought
        given = {
            "--tenant": self.tenant,
            "--actor": sought.actor,
            "--since": None if sought.since is None else iso(sought.since),  # the same moment on the next page
            "--action": self.action,
            "--object": sought.object,
            "--outcome": self.outcome,
        }
        return [word for name, value in given.items() if value is not None for word in (name, value)]


def list_(narrowed: Narrowed, *, limit: int, cursor: str | None, as_json: bool) -> None:
    sought, tenant = narrowed.sought, narrowed.tenant

    async def read(ledger: "Ledger") -> Listed[AuditRow]:
        if tenant is None:
            return await ledger.audit.list_of_all_tenants(sought=sought, limit=limit, cursor=cursor)
        return await ledger.audit.list(tenant, sought=sought, limit=limit, cursor=cursor)

    again = ["audit", *narrowed.options, "--limit", str(limit)]
    show_page(with_own_ledger(read), audit_json, _table, again=again, none="None.", as_json=as_json)


def audit_json(row: AuditRow) -> dict[str, Any]:
    """A line of the audit as a document."""
    return {
        "tenant": row.tenant,
        "seq": row.seq,
        "at": moment(row.at),
        "actor": row.actor,
        "source": row.source,
        "action": row.action,
        "object": row.object,
        "outcome": row.outcome.value,
        "code": row.code,
        "detail": dict(row.detail),
    }


def _table(rows: Sequence[AuditRow]) -> Table:
    columns = ["at (UTC)", "tenant", "actor", "from", "action", "object", "outcome", "detail"]
    if all(row.source is None for row in rows):
        columns.remove("from")  # nothing but this machine's terminals
    lines = table(*columns)
    for row in rows:
        outcome = row.outcome.value if row.code is None else f"{row.outcome}: {row.code}"
        shown: dict[str, str | Text] = {
            "at (UTC)": iso(row.at)[:19].replace("T", " "),
            "tenant": inert(row.tenant),
            "actor": inert(row.actor),
            "from": inert(row.source or "–"),
            "action": row.action,
            "object": short(row.object, _OBJECT_LENGTH),
            "outcome": Text(inert(outcome), style=_STYLES[row.outcome]),
            "detail": cut(json.dumps(dict(row.detail), ensure_ascii=False) if row.detail else ""),
        }
        lines.add_row(*(shown[name] for name in columns))
    return lines
