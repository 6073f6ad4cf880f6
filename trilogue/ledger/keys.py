"""API keys: made, rotated, revoked, found by their hash. The ledger never has a key itself."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, insert, or_, select, tuple_, update

from trilogue import clock
from trilogue.clock import SECOND, Micros
from trilogue.errors import Conflict, Invalid, NotFound, Unauthenticated
from trilogue.identity import Access, ApiKey, Caller, check_label, new_key, parse_key
from trilogue.ledger.audit import Audit
from trilogue.ledger.engine import database_now
from trilogue.ledger.identities import By, Deed, Issued, KeyRow, KeyState, KnownKey, Listed, TenantStatus
from trilogue.ledger.identity_tables import api_keys, tenants
from trilogue.ledger.standing import check_there, select_project, select_tenant
from trilogue.ledger.store import Store, bad_cursor, select_listed
from trilogue.ledger.uses import Uses

_DAY: Micros = 86_400 * SECOND
LONGEST_LIFE: Micros = 3_653 * _DAY
GRACE: Micros = _DAY
"""For which a key that was rotated stays good, unless something else is asked for."""
LONGEST_GRACE: Micros = 30 * _DAY

_HIDDEN = ("hash",)
_COLUMNS = (*(column for column in api_keys.c if column.name not in _HIDDEN), database_now().label("read_at"))


class Keys:
    """The API keys of a ledger: `Ledger.keys`. What changes one is recorded in its tenant's audit."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit
        self.uses = Uses(store)

    async def close(self) -> None:
        """Write what is left of the keys' last use."""
        await self.uses.close()

    async def create(
        self,
        tenant: str,
        name: str,
        *,
        access: Access,
        by: By,
        project: str | None = None,
        expires_at: Micros | None = None,
    ) -> Issued:
        """Make a key. Its text is in what is returned, and can be had nowhere else, ever.

        Args:
            name: what people call it; several may have the same.
            project: the only one that it opens.
            expires_at: None for never.

        Raises:
            Invalid: a bad name or expiry, or an `admin` of one project, of which there are none.
            NotFound: no such tenant or project. Conflict: the tenant is deleted.
        """
        check_label("name", name)
        if project is not None and access is Access.ADMIN:
            raise Invalid(
                "a key with access 'admin' is for a whole tenant: leave the project out", code="invalid_access"
            )
        told, key = _expiry(expires_at), new_key()
        new = {"name": name, "access": access.value, "project": project, "expires_at": expires_at}
        deed = Deed(by=by, action="key.create", object=key.id, detail={**new, "expires_at": told})
        row = await self._audit.perform(tenant, deed, lambda c: _create(c, key, {**new, "tenant": tenant}))
        return Issued(row=row, key=key)

    async def rotate(
        self, tenant: str, key_id: str, *, by: By, grace: Micros = GRACE, expires_at: Micros | None = None
    ) -> Issued:
        """Make a key in another's place, which stays good for `grace` more (0: no more from now on), and no longer.

        Args:
            expires_at: of the new one; None for as long a life as the old one was given.

        Raises:
            NotFound, Invalid.
            Conflict: the old one is `key_expired`, `key_revoked`, or `key_replaced` already.
        """
        if not 0 <= grace <= LONGEST_GRACE:
            raise Invalid(
                f"a replaced key stays good for 0 to {LONGEST_GRACE // _DAY} days, not {grace / _DAY:g}",
                code="invalid_grace",
            )
        told, key = _expiry(expires_at), new_key()
        detail = {"replaced_by": key.id, "grace_seconds": grace // SECOND, "expires_at": told}
        deed = Deed(by=by, action="key.rotate", object=key_id, detail=detail)
        row = await self._audit.perform(tenant, deed, lambda c: _rotate(c, tenant, key_id, key, grace, expires_at))
        return Issued(row=row, key=key)

    async def revoke(self, tenant: str, key_id: str, *, by: By, reason: str = "") -> KeyRow:
        """From now on the key opens nothing. Again, it changes nothing. Raises `NotFound`."""
        deed = Deed(by=by, action="key.revoke", object=key_id, detail={"reason": reason} if reason else {})
        return await self._audit.perform(tenant, deed, lambda c: _revoke(c, tenant, key_id))

    async def get(self, tenant: str, key_id: str) -> KeyRow:
        """The key; `NotFound`, code `no_key`, where the tenant has none of that id."""
        return await self._store.read(lambda c: _select(c, tenant, key_id))

    async def list(
        self, tenant: str, *, gone: bool = False, limit: int = 50, cursor: str | None = None
    ) -> Listed[KeyRow]:
        """A page of a tenant's keys, newest first; `gone`: those that are expired or revoked, too."""
        return await self._store.read(partial(_select_page, tenant=tenant, gone=gone, limit=limit, cursor=cursor))

    async def authenticate(self, text: str) -> Caller:
        """Who shows the key `text`; one statement, by an index.

        Raises:
            Unauthenticated: as `parse_key`, or code `unknown_key`, `revoked_key`, `expired_key`, `tenant_suspended`.
        """
        key = parse_key(text)
        known = await self.find(key)
        if known is None:
            raise Unauthenticated(f"nobody knows the API key {key.id!r}", code="unknown_key")
        check_good(known)
        self.uses.note(known.row)
        return known.row.caller

    async def find(self, key: ApiKey) -> KnownKey | None:
        """A key of any tenant, good or not, by its hash: what a tenant is found by cannot ask for one."""
        known = await self._store.read(lambda c: _select_by_hash(c, key.hash))
        return known if known is not None and key.matches(known.hash) else None


def check_good(known: KnownKey) -> None:
    """Raise `Unauthenticated` unless a known key opens something now: `Keys.authenticate` says with which codes."""
    row = known.row
    match row.state:
        case KeyState.REVOKED:
            raise Unauthenticated(f"the API key {row.key_id!r} was revoked", code="revoked_key")
        case KeyState.EXPIRED:
            raise Unauthenticated(f"the API key {row.key_id!r} has expired", code="expired_key")
    if known.tenant_status is not TenantStatus.ACTIVE:
        raise Unauthenticated(
            f"tenant {row.tenant!r}, which the API key {row.key_id!r} is of, is {known.tenant_status}",
            code="tenant_suspended",
        )


def _expiry(expires_at: Micros | None) -> str | None:
    """An expiry as the audit tells it. Raises `Invalid` for one that a key cannot have."""
    now = clock.now()
    if expires_at is not None and not now < expires_at <= now + LONGEST_LIFE:
        raise Invalid("a key expires in the future, at most ten years from now", code="invalid_expiry")
    return None if expires_at is None else clock.iso(expires_at)


def is_good() -> ColumnElement[bool]:
    """Whether a key is neither revoked nor expired."""
    lasting = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > database_now())
    return and_(api_keys.c.revoked_at.is_(None), lasting)


def revoke_all(connection: Connection, tenant: str, *, project: str | None = None) -> None:
    """Revoke all keys of a tenant, or those that are for one project alone."""
    query = update(api_keys).where(api_keys.c.tenant == tenant, api_keys.c.revoked_at.is_(None))
    if project is not None:
        query = query.where(api_keys.c.project == project)
    connection.execute(query.values(revoked_at=database_now()))


def _create(connection: Connection, key: ApiKey, new: Mapping[str, Any]) -> KeyRow:
    check_there(connection, new["tenant"])
    if new["project"] is not None:
        select_project(connection, new["tenant"], new["project"], lock=True)
    return _insert(connection, key, new)


def _insert(connection: Connection, key: ApiKey, new: Mapping[str, Any]) -> KeyRow:
    values = {**new, "id": key.id, "hash": key.hash, "created_at": database_now()}
    return _row(connection.execute(insert(api_keys).values(values).returning(*_COLUMNS)).mappings().one())


def _rotate(
    connection: Connection, tenant: str, key_id: str, key: ApiKey, grace: Micros, expires_at: Micros | None
) -> KeyRow:
    check_there(connection, tenant)
    old = _select(connection, tenant, key_id, lock=True)
    if old.state is not KeyState.GOOD:
        raise Conflict(f"key {key_id!r} is {old.state}: make a new one", code=f"key_{old.state}")
    if old.replaced_by is not None:
        raise Conflict(f"key {key_id!r} was replaced by {old.replaced_by!r} already: rotate that", code="key_replaced")
    if expires_at is None and old.expires_at is not None:
        expires_at = old.read_at + (old.expires_at - old.created_at)
    new = {name: getattr(old, name) for name in ("tenant", "name", "access", "project")}
    made = _insert(connection, key, {**new, "expires_at": expires_at})
    ends = old.read_at + grace if old.expires_at is None else min(old.expires_at, old.read_at + grace)
    gone: dict[str, Any] = {"expires_at": ends} if grace else {"revoked_at": database_now()}
    connection.execute(update(api_keys).where(*_this(tenant, key_id)).values(replaced_by=key.id, **gone))
    return made


def _revoke(connection: Connection, tenant: str, key_id: str) -> KeyRow:
    select_tenant(connection, tenant)
    present = _select(connection, tenant, key_id, lock=True)
    if present.revoked_at is not None:
        return present
    revoked = update(api_keys).where(*_this(tenant, key_id)).values(revoked_at=database_now()).returning(*_COLUMNS)
    return _row(connection.execute(revoked).mappings().one())


def _this(tenant: str, key_id: str) -> tuple[Any, Any]:
    return api_keys.c.tenant == tenant, api_keys.c.id == key_id


def _select(connection: Connection, tenant: str, key_id: str, *, lock: bool = False) -> KeyRow:
    query = select(*_COLUMNS).where(*_this(tenant, key_id))
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant!r} has no key {key_id!r}", code="no_key")
    return _row(row)


_BY_HASH = (
    select(*_COLUMNS, api_keys.c.hash, tenants.c.status.label("tenant_status"))
    .join(tenants, tenants.c.tenant == api_keys.c.tenant)
    .where(api_keys.c.hash == bindparam("sought"))
)


def _select_by_hash(connection: Connection, hash_: str) -> KnownKey | None:
    found = connection.execute(_BY_HASH, {"sought": hash_}).mappings().one_or_none()
    if found is None:
        return None
    row = dict(found)
    kept, status = row.pop("hash"), TenantStatus(row.pop("tenant_status"))
    return KnownKey(row=_row(row), hash=kept, tenant_status=status)


def _select_page(connection: Connection, *, tenant: str, gone: bool, limit: int, cursor: str | None) -> Listed[KeyRow]:
    query = select(*_COLUMNS).where(api_keys.c.tenant == tenant)
    if not gone:
        query = query.where(is_good())
    if cursor is not None:
        at, _, key_id = cursor.partition(".")
        if not (at.isascii() and at.isdecimal() and len(at) <= 18 and key_id.isalnum()):
            raise bad_cursor(cursor)
        before: tuple[Any, Any] = (int(at), key_id)
        query = query.where(tuple_(api_keys.c.created_at, api_keys.c.id) < tuple_(*before))
    query = query.order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
    rows, more = select_listed(connection, query, limit=limit)
    items = [_row(row) for row in rows]
    return Listed(items=items, next=f"{items[-1].created_at}.{items[-1].key_id}" if more else None)


def _row(row: Any) -> KeyRow:
    values = dict(row)
    return KeyRow(key_id=values.pop("id"), **{**values, "access": Access(values["access"])})
