"""Which receiver a pipeline gets, settled when it is spawned: whoever ends it later need not be configured alike."""

from trilogue.settings import Settings
from trilogue.webhooks.addresses import read_url
from trilogue.webhooks.signing import no_secret, read_secrets


def settled_receiver(asked: str | None, settings: Settings) -> str | None:
    """The pipeline's own URL, else the one configured for all, else None.

    Raises:
        Invalid: the URL cannot be used, names an address that is not allowed, or there is no secret to sign with.
    """
    url = asked or settings.webhook_url
    if url is None:
        return None
    read_url(url, allow_private=settings.webhook_allow_private)
    if not read_secrets(settings.webhook_secret):
        raise no_secret()
    return url
