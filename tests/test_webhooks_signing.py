"""Receivers verify webhooks with the library of the Standard Webhooks specification."""

import base64

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.fixtures.receiver import FORMER_SECRET, SECRET
from trilogue import clock
from trilogue.clock import SECOND
from trilogue.errors import Invalid
from trilogue.settings import load_settings
from trilogue.webhooks.receivers import settled_receiver
from trilogue.webhooks.signing import read_secrets, signed

BODY = '{"type":"pipeline.completed","data":{"title":"Größe 😀"}}'
URL = "https://example.com/hooks/s3cr3t-path"


def test_the_specifications_own_example_is_signed_as_it_says() -> None:
    secrets = read_secrets(SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    body = b'{"test": 2432232314}'
    headers = signed(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330 * SECOND + 5, body)
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_library_takes_what_we_sign_and_nothing_else() -> None:
    headers = signed(read_secrets(SecretStr(SECRET)), "wh_1", clock.now(), BODY.encode())
    assert Webhook(SECRET).verify(BODY, headers)["type"] == "pipeline.completed"
    for wrong in ({"webhook-id": "wh_2"}, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(BODY, headers | wrong)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY + " ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(FORMER_SECRET).verify(BODY, headers)


def test_while_a_secret_is_replaced_receivers_may_know_either() -> None:
    headers = signed(read_secrets(SecretStr(f"{SECRET} {FORMER_SECRET}")), "wh_1", clock.now(), BODY.encode())
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, FORMER_SECRET):
        assert Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize(
    "bad",
    [
        "hush-hush",
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
    ],
)
def test_a_secret_that_receivers_could_not_use_is_refused_without_showing_it(bad: str) -> None:
    with pytest.raises(Invalid, match=r"TRILOGUE_WEBHOOK_SECRET must be .*openssl rand -base64 32") as refused:
        read_secrets(SecretStr(f"{SECRET} {bad}"))
    assert refused.value.code == "bad_webhook_secret"
    assert SECRET not in refused.value.message
    assert bad == "whsec_" or bad not in refused.value.message


def test_a_webhook_without_a_secret_is_refused_and_without_a_webhook_none_is_needed() -> None:
    bare = load_settings(webhook_url=None, webhook_secret=None)
    assert settled_receiver(None, bare) is None
    for asked, settings in ((URL, bare), (None, load_settings(webhook_url=URL, webhook_secret=None))):
        with pytest.raises(Invalid, match="TRILOGUE_WEBHOOK_SECRET") as refused:
            settled_receiver(asked, settings)
        assert refused.value.code == "no_webhook_secret"
        assert "s3cr3t-path" not in refused.value.message


def test_a_pipelines_own_receiver_takes_the_place_of_everybodys() -> None:
    settings = load_settings(webhook_url=URL, webhook_secret=SecretStr(SECRET))
    assert settled_receiver(None, settings) == URL
    assert settled_receiver("https://other.example/", settings) == "https://other.example/"
    assert SECRET not in repr(settings) + settings.model_dump_json()
