"""Commands about webhooks: a ping to try a receiver with, and what became of those that ends set off."""

import asyncio
import contextlib
import json
import os
import secrets as random
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.text import Text

from trilogue import clock
from trilogue.cli.finding import find
from trilogue.cli.reading import cut, print_json, screen, table
from trilogue.cli.showing import inert
from trilogue.clock import iso
from trilogue.errors import Invalid
from trilogue.launch import effective
from trilogue.ledger.opening import open_ledger
from trilogue.ledger.rows import TENANT, DeliveryPage, DeliveryRow, DeliveryStatus
from trilogue.settings import load_settings
from trilogue.webhooks.addresses import read_url, shown
from trilogue.webhooks.sending import Answer, Sender
from trilogue.webhooks.signing import no_secret, read_secrets

_NONE = "No webhooks yet. Name a receiver with TRILOGUE_WEBHOOK_URL, or with `trilogue run --webhook URL`"


def test(url: str | None, secret_env: str, *, as_json: bool) -> int:
    """Send a ping and show what came back. Returns the exit code: 0 where it was delivered.

    Raises:
        Invalid: there is no URL, it may not be called, or nothing to sign with.
    """
    settings = load_settings()
    url = url or settings.webhook_url
    if url is None:
        raise Invalid("give a URL, or set TRILOGUE_WEBHOOK_URL", code="invalid_webhook")
    receiver = read_url(url, allow_private=settings.webhook_allow_private)
    secrets = read_secrets(SecretStr(os.environ.get(secret_env, "")), where=secret_env)
    if not secrets:
        raise no_secret(secret_env)
    ping_id = f"wh_ping_{random.token_hex(12)}"
    body = json.dumps({"type": "ping", "timestamp": iso(clock.now()), "data": {}}, separators=(",", ":"))

    async def sent() -> Answer:
        allowed, timeout = settings.webhook_allow_private, settings.webhook_timeout
        async with Sender(secrets, allow_private=allowed, timeout=timeout) as sender:
            return await sender.send(url, ping_id, body.encode())

    answer = asyncio.run(sent())
    excerpt = answer.excerpt.decode(errors="replace")
    if as_json:
        told = {"id": ping_id, "delivered": answer.delivered, "status": answer.status, "error": answer.error}
        print_json({**told, "seconds": round(answer.seconds, 3), "answer": excerpt})
        return 0 if answer.delivered else 1
    console = Console()
    outcome = "delivered" if answer.delivered else f"not delivered: {answer.error}"
    console.print(
        Text.assemble(f"{shown(receiver)}: ", (inert(outcome), "green" if answer.delivered else "red")), soft_wrap=True
    )
    status = "no HTTP answer" if answer.status is None else f"HTTP {answer.status}"
    console.print(Text(f"{status} in {answer.seconds * 1000:.0f} ms, webhook-id {ping_id}", style="dim"))
    if excerpt.strip():
        console.print(Text(inert(excerpt)))
    return 0 if answer.delivered else 1


def list_(*, state: str | None, pipeline: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    """A page of webhooks, from the ledger itself."""
    status = _status(state)
    if load_settings().api_url:
        raise Invalid("webhooks are listed where the ledger is: unset TRILOGUE_API_URL there", code="no_ledger")

    async def page() -> DeliveryPage:
        async with contextlib.AsyncExitStack() as stack:
            ledger = await open_ledger(await effective(load_settings()))
            stack.push_async_callback(ledger.close)
            pipeline_id = await find(ledger, pipeline) if pipeline else None
            return await ledger.deliveries(TENANT, limit=limit, cursor=cursor, status=status, pipeline_id=pipeline_id)

    found = asyncio.run(page())
    if as_json:
        print_json({"items": [webhook_json(row) for row in found.items], "next": found.next})
        return
    console = screen()
    if not found.items:
        console.print(Text(_NONE if cursor is None and not (state or pipeline) else "None."))
        return
    webhooks = table("ended (UTC)", "pipeline", "type", "to", "status", "tries", "error")
    for row in found.items:
        document = webhook_json(row)
        webhooks.add_row(
            cut(document["created_at"][:19].replace("T", " ")),
            cut(row.pipeline_id),
            cut(document["type"]),
            cut(document["receiver"]),
            cut(row.status.value),
            cut(str(row.tries)),
            cut(inert(row.error or "")),
        )
    console.print(webhooks)
    if found.next:
        console.print(Text(f"more: --cursor {found.next}", style="dim"))


def webhook_json(row: DeliveryRow) -> dict[str, Any]:
    """A webhook in a list; of its URL, only who it goes to."""
    return {
        "id": row.delivery_id,
        "pipeline_id": row.pipeline_id,
        "seq": row.seq,
        "type": json.loads(row.body)["type"],
        "receiver": shown(read_url(row.url, allow_private=True)),
        "status": row.status.value,
        "tries": row.tries,
        "error": row.error,
        "created_at": iso(row.created_at),
        "due_at": iso(row.due_at) if row.due_at else None,
        "ended_at": iso(row.ended_at) if row.ended_at else None,
    }


def _status(given: str | None) -> DeliveryStatus | None:
    if given is None:
        return None
    try:
        return DeliveryStatus(given.lower())
    except ValueError:
        known = ", ".join(status.value for status in DeliveryStatus)
        raise Invalid(f"--status takes {known}, not {given!r}", code="bad_status") from None
