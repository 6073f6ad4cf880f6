"""`trilogue tenants`, `projects`, `keys`, `audit`: a key is shown once; every change can be looked up afterwards."""

import asyncio
from pathlib import Path

import pytest

from tests.command import Command, refusal
from trilogue import clock
from trilogue.cli.durations import read_duration, read_moment
from trilogue.clock import SECOND, seconds
from trilogue.entry import Draft, Kind
from trilogue.errors import Invalid
from trilogue.identity import Access, parse_key
from trilogue.ledger import Ledger, sqlite_url


def done(command: Command, *arguments: str) -> str:
    ended = command(*arguments)
    assert (ended.code, ended.err) == (0, ""), ended
    return ended.out


async def _with_key(home: Path, text: str) -> Access:
    ledger = await Ledger.open(sqlite_url(home / "ledger.db"), migrate=False)
    try:
        return (await ledger.keys.authenticate(text)).access
    finally:
        await ledger.close()


async def _spawned(home: Path, tenant: str, *pipelines: str) -> None:
    ledger = await Ledger.open(sqlite_url(home / "ledger.db"), migrate=False)
    for pipeline_id in pipelines:
        first = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree", "project": "web"})
        await ledger.spawn(tenant, pipeline_id, [first], at=clock.now())
    await ledger.close()


def test_a_tenant_is_made_shown_suspended_and_made_active(command: Command) -> None:
    assert "tenant acme is made" in done(command, "tenants", "create", "acme", "--no-shared-model-key")
    shown = command("tenants", "show", "acme", "--json").document
    assert shown | {"created_at": "", "changed_at": ""} == {
        "tenant": "acme",
        "status": "active",
        "shared_model_key": False,
        "created_at": "",
        "changed_at": "",
        "pipelines": 0,
        "open": 0,
        "projects": 1,
        "keys": 0,
    }
    assert "keys are refused" in done(command, "tenants", "suspend", "acme", "--reason", "unpaid")
    assert "suspended" in done(command, "tenants", "list")
    assert command("tenants", "activate", "acme", "--json").document["status"] == "active"
    assert "may not use" in done(command, "tenants", "show", "acme")
    first = command("tenants", "list", "--limit", "1", "--json").document
    assert ([item["tenant"] for item in first["items"]], first["next"]) == (["acme"], "acme")
    assert "more: trilogue tenants list --limit 1 --cursor acme" in done(command, "tenants", "list", "--limit", "1")


def test_what_cannot_be_is_refused_with_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    done(command, "tenants", "create", "acme")
    assert "exists already" in refusal(command("tenants", "create", "acme"), 1)
    assert "capital letters" in refusal(command("tenants", "create", "Acme"))
    assert "CYRILLIC" in refusal(command("tenants", "create", "acm\u0435"))
    assert "reserved" in refusal(command("tenants", "create", "installation"))
    assert "no tenant 'nope'" in refusal(command("tenants", "show", "nope"), 1)
    assert "no tenant 'nope'" in refusal(command("keys", "list", "--tenant", "nope"), 1)
    assert "no tenant 'nope'" in refusal(command("projects", "list", "--tenant", "nope"), 1)
    assert "cannot be deleted" in refusal(command("tenants", "delete", "default", "--stop"), 1)
    assert "'root' is not one of 'admin', 'operator', 'viewer'" in refusal(
        command("keys", "create", "x", "--access", "root")
    )
    assert "--expires takes a duration such as 90d" in refusal(command("keys", "create", "x", "--expires", "soon"))
    assert "in the future" in refusal(command("keys", "create", "x", "--expires", "2001-01-01"))
    assert "no project 'web'" in refusal(command("keys", "create", "x", "--project", "web"), 1)
    assert "has no key 'nope'" in refusal(command("keys", "revoke", "nope"), 1)
    assert "--since takes" in refusal(command("audit", "--since", "yesterday"))
    assert "--outcome takes ok, refused, failed" in refusal(command("audit", "--outcome", "good"))
    assert "no cursor" in refusal(command("audit", "--cursor", "x"))
    monkeypatch.setenv("TRILOGUE_API_URL", "http://127.0.0.1:9")
    for words in (("tenants", "list"), ("projects", "list"), ("keys", "list"), ("audit",)):
        assert "where the ledger is" in refusal(command(*words))


def test_a_key_is_on_stdout_alone_and_never_shown_again(command: Command, tmp_path: Path) -> None:
    done(command, "tenants", "create", "acme")
    made = command("keys", "create", "ci", "--tenant", "acme", "--access", "admin", "--expires", "90d")
    key = parse_key(made.out)
    assert (made.code, made.out) == (0, f"{key.text}\n")
    assert "shown this once" in made.err
    assert asyncio.run(_with_key(tmp_path / "home", key.text)) is Access.ADMIN
    [listed] = command("keys", "list", "--tenant", "acme", "--json").document["items"]
    assert (listed["id"], listed["name"], listed["state"]) == (key.id, "ci", "good")
    assert listed["last_used_at"] is not None
    everywhere = (
        done(command, "keys", "list", "--tenant", "acme")
        + done(command, "audit", "--json")
        + done(command, "audit")
        + str(listed)
        + made.err
    )
    assert key.id in everywhere
    assert key.text.split("_")[2] not in everywhere


def test_a_key_is_rotated_with_a_grace_and_revoked_even_by_pasting_it(command: Command, tmp_path: Path) -> None:
    old = command("keys", "create", "ci", "--json").document
    rotated = command("keys", "rotate", old["id"], "--grace", "2h", "--json").document
    assert rotated["replaces"]["replaced_by"] == rotated["id"] != old["id"]
    assert rotated["replaces"]["state"] == "good"
    for text in (old["key"], rotated["key"]):
        assert asyncio.run(_with_key(tmp_path / "home", text)) is Access.OPERATOR
    assert "replaced by" in refusal(command("keys", "rotate", old["id"]), 1)
    last = command("keys", "rotate", rotated["id"], "--grace", "0s")
    assert "opens nothing any more" in last.err
    assert "opens nothing any more" in done(command, "keys", "revoke", last.out.strip(), "--reason", "leaked")
    assert [item["id"] for item in command("keys", "list", "--json").document["items"]] == [old["id"]]
    states = [item["state"] for item in command("keys", "list", "--all", "--json").document["items"]]
    assert sorted(states) == ["good", "revoked", "revoked"]


def test_a_tenant_with_pipelines_is_deleted_only_with_stop(command: Command, tmp_path: Path) -> None:
    done(command, "tenants", "create", "acme")
    asyncio.run(_spawned(tmp_path / "home", "acme", "p-1", "p-2"))
    assert "has 2 pipelines that have not ended" in refusal(command("tenants", "delete", "acme"), 1)
    deleted = command("tenants", "delete", "acme", "--stop", "--json").document
    assert (deleted["status"], sorted(deleted["stopped"])) == ("deleted", ["p-1", "p-2"])
    assert "acme" not in done(command, "tenants", "list")
    assert "deleted" in done(command, "tenants", "list", "--deleted")
    assert "not given out again" in refusal(command("tenants", "create", "acme"), 1)


def test_projects_are_made_listed_and_deleted(command: Command, tmp_path: Path) -> None:
    done(command, "projects", "create", "web")
    assert [item["project"] for item in command("projects", "list", "--json").document["items"]] == ["default", "web"]
    asyncio.run(_spawned(tmp_path / "home", "default", "p-1"))
    assert "has 1 pipeline that has not ended" in refusal(command("projects", "delete", "web"), 1)
    done(command, "projects", "create", "app")
    assert "its pipelines stay" in done(command, "projects", "delete", "app")
    assert "no project 'app'" in refusal(command("projects", "delete", "app"), 1)


def test_the_audit_tells_each_change_with_its_outcome(command: Command) -> None:
    assert done(command, "audit") == "None.\n"
    done(command, "tenants", "create", "acme")
    command("tenants", "create", "acme")
    command("tenants", "delete", "nope")
    done(command, "projects", "create", "web", "--tenant", "acme")
    lines = command("audit", "--json").document["items"]
    assert [(line["tenant"], line["action"], line["outcome"], line["code"]) for line in lines] == [
        ("acme", "project.create", "ok", None),
        ("installation", "tenant.delete", "refused", "no_tenant"),
        ("acme", "tenant.create", "refused", "exists"),
        ("acme", "tenant.create", "ok", None),
    ]
    assert {line["actor"] for line in lines} == {"local"}
    only = ("--tenant", "acme", "--action", "tenant", "--since", "1h", "--actor", "local", "--outcome", "ok")
    [line] = command("audit", *only, "--object", "acme", "--json").document["items"]
    assert (line["seq"], line["detail"]) == (1, {"shared_model_key": True})
    assert command("audit", "--since", "2100-01-01", "--json").document == {"items": [], "next": None}
    assert "--since 20" in done(command, "audit", "--since", "7d", "--limit", "1"), "pages go back to one moment"


def test_durations_and_moments_are_read_as_people_write_them() -> None:
    assert [read_duration("x", text) for text in ("90s", "5m", "12 h", "90d", "2w", "0s")] == [
        seconds(value) for value in (90, 300, 43_200, 7_776_000, 1_209_600, 0)
    ]
    for bad in ("", "d", "-1d", "1.5h", "90", "1y", "٣d", "999999999w", "1d 2h"):
        with pytest.raises(Invalid, match="--x takes a duration"):
            read_duration("--x", bad)
    now = clock.now()
    assert abs(read_moment("x", "1h", ahead=True) - now - 3_600 * SECOND) < 5 * SECOND
    assert abs(read_moment("x", "1h", ahead=False) - now + 3_600 * SECOND) < 5 * SECOND
    assert read_moment("x", "1970-01-02", ahead=True) == 86_400 * SECOND
    assert read_moment("x", "1970-01-01T02:00+02:00", ahead=True) == 0
    with pytest.raises(Invalid, match="or a moment such as"):
        read_moment("--x", "tomorrow", ahead=True)
