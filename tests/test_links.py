"""The ways between our pages and Prefect's: addresses that people can follow, and that hold no credential."""

from pathlib import Path

import pytest

from trilogue.embedded.locks import Lock
from trilogue.embedded.place import Kind, Place, State
from trilogue.errors import Invalid
from trilogue.launch import flow_run_url, prefect_ui_url
from trilogue.settings import load_settings

RUN = "0b7e6d5c-0000-4000-8000-000000000001"
ACCOUNT = "https://api.prefect.cloud/api/accounts/a-1/workspaces/w-1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is configured, and nothing runs."""
    for name in ("PREFECT_API_URL", "PREFECT_UI_URL", "PREFECT_PROFILE", "TRILOGUE_DASHBOARD_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("TRILOGUE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("https://trilogue.example/agents/", "https://trilogue.example/agents"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("", None),
    ],
)
def test_pages_are_reached_where_the_setting_says(monkeypatch: pytest.MonkeyPatch, given: str, url: str | None) -> None:
    monkeypatch.setenv("TRILOGUE_DASHBOARD_URL", given)
    assert load_settings().dashboard_url == url


@pytest.mark.parametrize(
    "given",
    [
        "127.0.0.1:3000",
        "javascript:alert(1)",
        "http://u:hush@host",
        "http://host/?key=hush",
        "http://host/#hush",
        "http://host:70000",
        "http://host:0",
        "http://host/a) [b](http://evil",
        'http://host/"onclick="hush',
        "http://host/\n",
        "http://",
    ],
)
def test_what_is_no_plain_address_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TRILOGUE_DASHBOARD_URL", given)
    with pytest.raises(
        Invalid, match=r"^TRILOGUE_DASHBOARD_URL: must be an address such as http://127\.0\.0\.1:3000$"
    ) as refused:
        load_settings()
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("api", "ui"),
    [
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200"),
        ("http://127.0.0.1:4200/api/", "http://127.0.0.1:4200"),
        ("https://prefect.example/team/api", "https://prefect.example/team"),
        ("https://user:hush@prefect.example/api?key=hush", "https://prefect.example"),
        (ACCOUNT, "https://app.prefect.cloud/account/a-1/workspace/w-1"),
        (
            "https://api.stg.prefect.dev/api/accounts/a/workspaces/w",
            "https://app.stg.prefect.dev/account/a/workspace/w",
        ),
        ("https://api.elsewhere.example/api", "https://api.elsewhere.example"),
        ("javascript:alert(1)", None),
        ("http://[broken/api", None),
    ],
)
def test_the_ui_is_found_by_the_address_of_its_api(monkeypatch: pytest.MonkeyPatch, api: str, ui: str | None) -> None:
    monkeypatch.setenv("PREFECT_API_URL", api)
    assert prefect_ui_url() == ui
    assert flow_run_url(RUN) == (ui and f"{ui}/runs/flow-run/{RUN}")


def test_the_addresses_are_those_to_which_prefect_itself_links(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings  # noqa: PLC0415  (takes seconds)
    from prefect.utilities.urls import url_for  # noqa: PLC0415

    for api in ("http://127.0.0.1:4200/api", ACCOUNT):
        monkeypatch.setenv("PREFECT_API_URL", api)
        with temporary_settings({PREFECT_API_URL: api}, restore_defaults={PREFECT_UI_URL}):
            assert flow_run_url(RUN) == url_for("flow-run", obj_id=RUN)


def test_a_ui_that_is_named_goes_before_its_api_and_the_environment_before_the_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://one.example/api"\n'
        '[profiles.other]\nPREFECT_UI_URL = "http://two.example/ui/"\n'
    )
    assert prefect_ui_url() == "http://one.example"
    monkeypatch.setenv("PREFECT_PROFILE", "other")
    assert prefect_ui_url() == "http://two.example/ui"
    monkeypatch.setenv("PREFECT_API_URL", "http://three.example/api")
    assert prefect_ui_url() == "http://two.example/ui"
    monkeypatch.setenv("PREFECT_UI_URL", "http://four.example")
    assert prefect_ui_url() == "http://four.example"


def test_where_nothing_is_configured_it_is_the_embedded_servers_while_that_runs(home: Path) -> None:
    assert (prefect_ui_url(), flow_run_url(RUN)) == (None, None)
    assert not home.exists()
    place = Place(home=home, kind=Kind.PREFECT)
    place.create()
    place.write_state(State(address="http://127.0.0.1:4210", guardian_pid=1, server_pid=2))
    assert prefect_ui_url() is None, "what a dead guardian left behind is not believed"
    lock = Lock(place.guardian_lock)
    try:
        assert lock.try_exclusive()
        assert prefect_ui_url() == "http://127.0.0.1:4210"
    finally:
        lock.close()
