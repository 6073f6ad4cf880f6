"""Names of tenants and projects, what an access allows, and keys of which a damaged one is told from a wrong one."""

import re

import pytest

from trilogue.errors import Denied, Invalid, Unauthenticated
from trilogue.identity import (
    KEY_LENGTH,
    RESERVED,
    Access,
    ApiKey,
    Caller,
    Right,
    check_label,
    check_name,
    key_id_in,
    new_key,
    parse_key,
    without_keys,
)


@pytest.mark.parametrize("name", ["a", "7", "acme", "acme-2", "a--b", "default", "x" * 40])
def test_a_good_name_is_taken_as_it_is(name: str) -> None:
    assert check_name("tenant", name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is empty"),
        ("x" * 41, "has 41 characters; at most 40"),
        ("x" * 100_000, "has 100,000 characters"),
        ("Acme", "has capital letters; names are in lower case: 'acme'"),
        ("-acme", "begins or ends with '-'"),
        ("acme-", "begins or ends with '-'"),
        ("-", "begins or ends with '-'"),
        ("a_b", r"has '_' \(LOW LINE\) at position 1"),
        ("a b", r"has ' ' \(SPACE\)"),
        ("a.b", "FULL STOP"),
        ("a/../b", "SOLIDUS"),
        ("acm\u0435", "CYRILLIC SMALL LETTER IE"),
        ("\uff41cme", "FULLWIDTH LATIN SMALL LETTER A"),
        ("caf\u00e9", "LATIN SMALL LETTER E WITH ACUTE"),
        ("\u0663", "ARABIC-INDIC DIGIT THREE"),
        ("ac\u200bme", "ZERO WIDTH SPACE"),
        ("ac\x00me", r"'\\x00' \(U\+0000\)"),
        ("acme\n", r"'\\n'"),
        ("lone\udcff", r"U\+DCFF"),
        ("installation", "is a reserved name"),
    ],
)
def test_a_bad_name_is_refused_with_what_is_wrong_with_it(name: str, said: str) -> None:
    for what in ("tenant", "project"):
        with pytest.raises(Invalid, match=said) as refused:
            check_name(what, name)
        assert refused.value.code == f"invalid_{what}"
        assert refused.value.message.startswith(f"{what} {name[:80]!r}"[:20])
        assert len(refused.value.message) < 250
        assert refused.value.message.isprintable()


def test_what_could_be_taken_for_something_else_is_reserved() -> None:
    assert {"installation", "local", "all", "none", "admin"} <= RESERVED
    assert "default" not in RESERVED


@pytest.mark.parametrize("text", ["", "  ", "x" * 101, "a\nb", "a\x1b[2J", "evil\u202etxt", "\udcff"])
def test_a_label_is_one_line_that_can_be_seen(text: str) -> None:
    with pytest.raises(Invalid, match="name: "):
        check_label("name", text)
    assert check_label("name", "Büro 東京 №7") == "Büro 東京 №7"


def test_each_access_includes_what_the_lesser_ones_have() -> None:
    allowed = {access: {right for right in Right if access.may(right)} for access in Access}
    assert allowed == {
        Access.VIEWER: {Right.READ},
        Access.OPERATOR: {Right.READ, Right.OPERATE},
        Access.ADMIN: {Right.READ, Right.OPERATE, Right.ADMINISTER},
    }
    viewer = Caller(tenant="acme", access=Access.VIEWER, key_id="k1", project="web")
    viewer.require(Right.READ)
    with pytest.raises(Denied, match="needs an access of admin, operator; yours is viewer"):
        viewer.require(Right.OPERATE)
    with pytest.raises(Denied, match="installation's own key"):
        Caller(tenant="acme", access=Access.ADMIN, key_id="k1").require_installation()
    assert (viewer.covers("web"), viewer.covers("other"), viewer.covers(None)) == (True, False, False)
    assert Caller(tenant="acme", access=Access.VIEWER).covers("other")


def test_a_caller_is_known_to_the_audit_by_its_key() -> None:
    def actor(**more: object) -> str:
        return Caller(tenant="default", access=Access.ADMIN, **more).actor  # type: ignore[arg-type]

    assert (actor(key_id="k1"), actor(installation=True), actor()) == ("k1", "installation", "local")


def test_a_key_is_long_random_and_its_secret_is_in_no_repr() -> None:
    keys = [new_key() for _ in range(200)]
    assert len({key.text for key in keys}) == len({key.id for key in keys}) == 200
    for key in keys:
        assert re.fullmatch(r"tl_[0-9a-z]{10}_[0-9A-Za-z]{40}", key.text)
        assert len(key.text) == KEY_LENGTH
        assert parse_key(f"  {key.text}\n") == key
        assert key.text.split("_")[2] not in repr(key)
        assert re.fullmatch("[0-9a-f]{64}", key.hash)
        assert key.matches(key.hash)
    assert not keys[0].matches(keys[1].hash)


def test_a_truncated_key_is_told_from_a_mistyped_one_and_both_from_none() -> None:
    key = new_key()

    def code(text: str) -> str:
        with pytest.raises(Unauthenticated) as refused:
            parse_key(text)
        secret = key.text.split("_")[2]
        assert not any(secret[at : at + 8] in refused.value.message for at in range(len(secret) - 8))
        return refused.value.code

    assert {code(key.text[:length]) for length in range(2, KEY_LENGTH)} == {"truncated_key"}
    for place in range(len(key.text) - 40, len(key.text)):
        other = "x" if key.text[place] != "x" else "y"
        assert code(key.text[:place] + other + key.text[place + 1 :]) == "mistyped_key"
    nothing = ("", "t", "hush", key.text + "x", f"sk-{key.text}", key.text.upper(), key.text.replace("_", "-"), "tl_é")
    assert {code(text) for text in nothing} == {"malformed_key"}


def test_a_key_is_named_by_its_id_or_whole_and_hidden_in_texts() -> None:
    key = new_key()
    assert key_id_in(key.id) == key_id_in(key.text) == key_id_in(f" {key.text[:30]} ") == key.id
    hidden = without_keys(f"found {key.text}, and {key.text[:20]} elsewhere")
    assert hidden == f"found tl_{key.id}_…, and tl_{key.id}_… elsewhere"
    assert without_keys("tl_dr: nothing here") == "tl_dr: nothing here"
    assert ApiKey(id=key.id, text=key.text) == key
