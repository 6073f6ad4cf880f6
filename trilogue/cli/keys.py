"""`trilogue keys`: on the ledger itself; each change has its line in the tenant's audit.

A key goes to stdout alone, so that a shell can catch it; what people are told about it goes to stderr.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from trilogue.cli.durations import read_duration, read_moment
from trilogue.cli.owning import aside, minute, moment, show_done, show_page, with_own_ledger
from trilogue.cli.reading import cut, print_json, table
from trilogue.cli.showing import inert, short
from trilogue.identity import Access, key_id_in
from trilogue.ledger.identities import AT_THE_TERMINAL, Issued, KeyRow, KeyState, Listed

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

_STYLES = {KeyState.GOOD: "green", KeyState.EXPIRED: "yellow", KeyState.REVOKED: "red"}
_NAME_LENGTH = 40


def create(tenant: str, name: str, *, access: Access, expires: str | None, project: str | None, as_json: bool) -> None:
    expires_at = read_moment("--expires", expires, ahead=True) if expires else None
    issued = with_own_ledger(
        lambda ledger: ledger.keys.create(
            tenant, name, access=access, by=AT_THE_TERMINAL, project=project, expires_at=expires_at
        )
    )
    _show_once(issued, as_json=as_json)


def rotate(tenant: str, given: str, *, grace: str, expires: str | None, as_json: bool) -> None:
    key_id, stays = key_id_in(given), read_duration("--grace", grace)
    expires_at = read_moment("--expires", expires, ahead=True) if expires else None

    async def rotated(ledger: "Ledger") -> tuple[Issued, KeyRow]:
        made = await ledger.keys.rotate(tenant, key_id, by=AT_THE_TERMINAL, grace=stays, expires_at=expires_at)
        return made, await ledger.keys.get(tenant, key_id)

    issued, old = with_own_ledger(rotated)
    if not as_json:
        until = (
            f"is good until {minute(old.expires_at)} UTC" if old.state is KeyState.GOOD else "opens nothing any more"
        )
        aside(f"key {old.key_id}, which it replaces, {until}")
    _show_once(issued, as_json=as_json, replaces=key_json(old))


def revoke(tenant: str, given: str, reason: str, *, as_json: bool) -> None:
    row = with_own_ledger(
        lambda ledger: ledger.keys.revoke(tenant, key_id_in(given), by=AT_THE_TERMINAL, reason=reason)
    )
    show_done(key_json(row), f"key {row.key_id} ({row.name}) opens nothing any more", as_json=as_json)


def list_(tenant: str, *, gone: bool, limit: int, cursor: str | None, as_json: bool) -> None:
    async def read(ledger: "Ledger") -> Listed[KeyRow]:
        await ledger.tenants.get(tenant)
        return await ledger.keys.list(tenant, gone=gone, limit=limit, cursor=cursor)

    again = ["keys", "list", "--tenant", tenant, "--all" if gone else None, "--limit", str(limit)]
    none = "None. Make one: trilogue keys create NAME"
    show_page(with_own_ledger(read), key_json, _table, again=again, none=none, as_json=as_json)


def _show_once(issued: Issued, *, as_json: bool, **more: Any) -> None:
    row = issued.row
    if as_json:
        print_json({"key": issued.key.text, **key_json(row), **more})
        return
    opens = f"project {row.project} of tenant {row.tenant}" if row.project else f"tenant {row.tenant}"
    until = f"until {minute(row.expires_at)} UTC" if row.expires_at else "for ever"
    aside(f"key {row.key_id} ({row.name}): {row.access} of {opens}, {until}; it is shown this once:")
    print(issued.key.text)  # noqa: T201


def key_json(row: KeyRow) -> dict[str, Any]:
    """A key as a document, without its secret."""
    return {
        "id": row.key_id,
        "tenant": row.tenant,
        "project": row.project,
        "name": row.name,
        "access": row.access.value,
        "state": row.state.value,
        "created_at": moment(row.created_at),
        "expires_at": moment(row.expires_at),
        "revoked_at": moment(row.revoked_at),
        "last_used_at": moment(row.last_used_at),
        "replaced_by": row.replaced_by,
    }


def _table(rows: Sequence[KeyRow]) -> Table:
    keys = table("id", "access", "project", "state", "created (UTC)", "expires", "last used", "name")
    for row in rows:
        keys.add_row(
            row.key_id,
            row.access.value,
            inert(row.project or "all"),
            Text(row.state.value, style=_STYLES[row.state]),
            minute(row.created_at),
            minute(row.expires_at, none="never"),
            minute(row.last_used_at),
            cut(short(row.name, _NAME_LENGTH)),
        )
    return keys
