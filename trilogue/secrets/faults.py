"""What Vault's answers mean for whoever runs Trilogue: one clear error each, in which no secret is."""

from hvac.exceptions import (  # type: ignore[import-untyped]  # hvac ships no types, and no stubs exist
    Forbidden,
    InvalidPath,
    InvalidRequest,
    Unauthorized,
    VaultDown,
    VaultError,
)
from requests.exceptions import RequestException, SSLError

from trilogue.errors import Denied, NotFound, TrilogueError, Unavailable
from trilogue.secrets.access import VaultAccess

_REFUSED = (Forbidden, Unauthorized, InvalidRequest)  # 400 is Vault's answer to a wrong role or secret id


def reading_fault(error: VaultError | OSError, access: VaultAccess, where: str, *, role: str | None) -> TrilogueError:
    """Why `where` was not read: with the login's own token, or with one of the token role `role`."""
    if isinstance(error, InvalidPath):
        return missing(access, where)
    if isinstance(error, _REFUSED):
        if role:
            return Denied(
                f"Vault at {access.address!r} refused to let a token of role {role!r} read {where!r}:"
                f" check that a policy in the role's allowed_policies allows `read` on {where!r}",
                code="vault_forbidden",
            )
        return Denied(
            f"Vault at {access.address!r} refused to let this {access.login} read {where!r}: check that the"
            f" {access.login} is still valid and that its policy allows `read` on {where!r}",
            code="vault_forbidden",
        )
    return _out_of_reach(error, access, where)


def creation_fault(error: VaultError | OSError, access: VaultAccess, role: str) -> TrilogueError:
    """Why no token of the token role `role` was created."""
    where = creation_path(role)
    match error:
        case InvalidRequest(errors=[*answers]) if any("unknown role" in answer for answer in answers):
            return NotFound(
                f"Vault at {access.address!r} has no token role {role!r}: write it with `vault write"
                f" auth/token/roles/{role} allowed_policies=POLICY orphan=true token_no_default_policy=true`",
                code="vault_role_missing",
            )
        case InvalidPath():
            return missing(access, where)
        case error if isinstance(error, _REFUSED):
            return Denied(
                f"Vault at {access.address!r} refused to let this {access.login} create a token of role {role!r}:"
                f" check that the {access.login} is still valid, that its policy allows `update` on {where!r},"
                f" and that `vault read auth/token/roles/{role}` shows token_type=service",
                code="vault_role_refused",
            )
        case _:
            return _out_of_reach(error, access, where)


def signing_fault(error: VaultError | OSError, access: VaultAccess, where: str) -> TrilogueError:
    """Why a transit key did not sign, or its public half was not read."""
    if isinstance(error, InvalidPath) or (
        isinstance(error, InvalidRequest) and any("not found" in str(answer) for answer in error.errors or ())
    ):
        mount, _, name = where.rsplit("/", 2)
        return NotFound(
            f"Vault at {access.address!r} has no transit key {f'{mount}/{name}'!r}: write it with"
            f" `vault write -f {mount}/keys/{name} type=ed25519`, or check that {mount!r} is a transit engine's mount",
            code="vault_key_missing",
        )
    if isinstance(error, _REFUSED):
        allowed = "update" if "/sign/" in where else "read"
        return Denied(
            f"Vault at {access.address!r} refused this {access.login} {where!r}: check that the {access.login} is"
            f" still valid and that its policy allows `{allowed}` on {where!r}",
            code="vault_forbidden",
        )
    return _out_of_reach(error, access, where)


def root_role(access: VaultAccess, role: str) -> Denied:
    """A token role whose tokens may do everything: it has no policies of its own, and the login is root's."""
    return Denied(
        f"the token role {role!r} in Vault at {access.address!r} gives out tokens of policy 'root': write it with"
        f" `vault write auth/token/roles/{role} allowed_policies=POLICY`, where POLICY allows reading the key",
        code="vault_role_unfit",
    )


def creation_path(role: str) -> str:
    """Where tokens of a role are created."""
    return f"auth/token/create/{role}"


def missing(access: VaultAccess, where: str) -> NotFound:
    """Nothing is kept at `where`, or no engine that we know answers there."""
    namespace = f" in namespace {access.namespace!r}" if access.namespace else ""
    return NotFound(
        f"Vault at {access.address!r} has no secret {where!r}{namespace}: write it with `vault kv put`,"
        f" or check that {access.mount!r} is the mount of a KV v2 engine",
        code="vault_path_missing",
    )


def unreachable(access: VaultAccess, where: str, reason: str) -> Unavailable:
    """Vault gave no answer, or none that Vault would give."""
    return Unavailable(
        f"Vault at {access.address!r} could not be asked for {where!r} ({reason}):"
        " check that VAULT_ADDR (or the block's address) is right and that Vault is up",
        code="vault_unreachable",
    )


def _out_of_reach(error: VaultError | OSError, access: VaultAccess, where: str) -> TrilogueError:
    match error:
        case VaultDown(errors=[*answers]) if any("sealed" in answer for answer in answers):
            return Unavailable(
                f"Vault at {access.address!r} is sealed, so {where!r} cannot be read: unseal it", code="vault_sealed"
            )
        case SSLError():
            reason = "TLS failed; set VAULT_CACERT (in the block: CA file) to the CA's certificate"
        case VaultError() | RequestException():
            reason = type(error).__name__
        case _:
            reason = f"the CA file {access.verify!r} cannot be read"
    return unreachable(access, where, reason)
