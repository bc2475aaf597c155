"""Secrets of endpoints: making, reading, signing with all that live, and rotating them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine
from standardwebhooks import Webhook

from handlers.errors import VerificationError
from handlers.signing import STANDARD, hmac_key, key_of, verify
from tests.workers.given import NOW, CountingVault, endpoint, rows, statements
from workers import database
from workers.app import Runtime
from workers.delivery import keys
from workers.delivery.errors import EndpointError
from workers.delivery.keys import V1, V1A, Made
from workers.models import AnyRow, EndpointKey
from workers.vault import VaultError, decrypt, open_vault

DAY = timedelta(days=1)
BODY = b'{"type":"receipt.issued"}'


@pytest.fixture
def vault(runtime: Runtime) -> MultiFernet:
    return open_vault(runtime.settings)


def live(engine: Engine, endpoint_id: str, now: datetime = NOW) -> tuple[AnyRow, ...]:
    with database.read(engine) as connection:
        return keys.load(connection, [endpoint_id], now).get(endpoint_id, ())


def rotated(
    engine: Engine,
    vault: MultiFernet,
    endpoint_id: str,
    *,
    kinds: Sequence[str] = (V1,),
    overlap: timedelta = DAY,
    now: datetime = NOW,
) -> Made:
    with database.write(engine) as connection:
        return keys.rotate(connection, vault, endpoint_id, kinds, overlap=overlap, now=now)


def verified(headers: dict[str, str], *written: str) -> bool:
    """Whether somebody who has these secrets takes the delivery."""
    received = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        verify([STANDARD], received, BODY, [key_of(STANDARD, secret) for secret in written], NOW.timestamp())
    except VerificationError:
        return False
    return True


def sent(engine: Engine, vault: MultiFernet, endpoint_id: str, now: datetime = NOW) -> dict[str, str]:
    opened = keys.opened(vault, live(engine, endpoint_id, now))
    return keys.signed(opened, "msg_1", int(NOW.timestamp()), BODY)


def test_a_secret_of_each_kind_is_made_and_only_encrypted_stored(runtime: Runtime, vault: MultiFernet) -> None:
    endpoint_id = endpoint(runtime)
    with database.write(runtime.engine) as connection:
        made = keys.make(connection, vault, endpoint_id, (V1, V1A), now=NOW + DAY)

    assert made.secret is not None
    assert made.public_key is not None
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"), validate=True)) == 32
    assert len(base64.b64decode(made.public_key.removeprefix("whpk_"), validate=True)) == 32
    new = [row for row in live(runtime.engine, made.id, NOW + DAY) if row.created_at > NOW]
    written = {row.kind: decrypt(vault, row.secret) for row in new}
    assert written[V1] == made.secret
    raw = base64.b64decode(written[V1A].removeprefix("whsk_"), validate=True)
    assert raw[32:] == base64.b64decode(made.public_key.removeprefix("whpk_"))
    assert made.secret not in repr(made)
    assert keys.public_keys(vault, new) == [made.public_key]


def test_each_kind_is_verified_with_what_its_subscriber_was_given(runtime: Runtime, vault: MultiFernet) -> None:
    endpoint_id = endpoint(runtime, signing="v1,v1a")
    rotation = rotated(runtime.engine, vault, endpoint_id, kinds=(V1, V1A), overlap=timedelta(0))

    headers = sent(runtime.engine, vault, endpoint_id)

    assert sorted(part.partition(",")[0] for part in headers["webhook-signature"].split(" ")) == [V1, V1A]
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", str(int(NOW.timestamp())))
    assert verified(headers, str(rotation.secret))
    assert verified(headers, str(rotation.public_key))
    assert not verified(headers, "whsec_" + base64.b64encode(bytes(32)).decode())


def test_the_signature_is_the_one_that_others_publish() -> None:
    secret, body = "whsec_plJ3nmyCDGBKInavdOK15jsl", b'{"event_type":"ping","data":{"success":true}}'

    headers = keys.signed([hmac_key(STANDARD, secret)], "msg_loFOjxBNrRLzqYUf", 1731705121, body)

    assert headers["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_what_is_signed_by_several_keys_is_verified_by_somebody_elses_library() -> None:
    secrets = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
    signing = [base64.b64decode(secret) for secret in secrets]
    now = datetime.now(tz=NOW.tzinfo)

    headers = keys.signed([*signing, Ed25519PrivateKey.generate()], "msg_1", int(now.timestamp()), BODY)

    for secret in secrets:
        assert Webhook(f"whsec_{secret}").verify(BODY, headers) == {"type": "receipt.issued"}


def test_the_public_half_is_that_of_a_key_that_others_publish(vault: MultiFernet) -> None:
    secret = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="

    assert keys._public(secret) == "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="


def test_after_a_rotation_both_secrets_sign_newest_first_until_the_old_one_expires(
    runtime: Runtime, vault: MultiFernet
) -> None:
    endpoint_id = endpoint(runtime)
    first = rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(0))
    second = rotated(runtime.engine, vault, endpoint_id, now=NOW + timedelta(hours=1))
    ends = NOW + timedelta(hours=25)

    during = sent(runtime.engine, vault, endpoint_id, ends - timedelta(microseconds=1))
    after = sent(runtime.engine, vault, endpoint_id, ends)

    assert [verified(during, str(made.secret)) for made in (first, second)] == [True, True]
    assert [verified(after, str(made.secret)) for made in (first, second)] == [False, True]
    assert during["webhook-signature"].split(" ")[0] == after["webhook-signature"]


def test_a_secret_that_leaked_ends_at_once(runtime: Runtime, vault: MultiFernet) -> None:
    endpoint_id = endpoint(runtime)
    rotated(runtime.engine, vault, endpoint_id)

    made = rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(0))

    (row,) = rows(runtime.engine, EndpointKey)
    assert decrypt(vault, row.secret) == made.secret


def test_a_rotation_never_lets_a_secret_live_longer_than_it_was_to(runtime: Runtime, vault: MultiFernet) -> None:
    endpoint_id = endpoint(runtime)
    rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(hours=1))
    rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(days=7))

    ends = sorted(row.expires_at for row in live(runtime.engine, endpoint_id) if row.expires_at)
    assert ends == [NOW + timedelta(hours=1), NOW + timedelta(days=7)]


def test_expired_secrets_are_deleted_by_the_next_rotation(runtime: Runtime, vault: MultiFernet) -> None:
    endpoint_id = endpoint(runtime)
    rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(hours=1))
    assert len(rows(runtime.engine, EndpointKey)) == 2

    rotated(runtime.engine, vault, endpoint_id, now=NOW + timedelta(hours=2))

    assert len(rows(runtime.engine, EndpointKey)) == 2


def test_eight_secrets_of_a_kind_are_enough(runtime: Runtime, vault: MultiFernet) -> None:
    endpoint_id = endpoint(runtime, signing="v1,v1a")
    for hour in range(7):
        rotated(runtime.engine, vault, endpoint_id, now=NOW + timedelta(hours=hour))
    assert len(sent(runtime.engine, vault, endpoint_id)["webhook-signature"].split(" ")) == 9

    with pytest.raises(
        EndpointError, match=r"8 v1 secrets of ep_\w+ sign already, the first of them until 2026-06-06 "
    ):
        rotated(runtime.engine, vault, endpoint_id, now=NOW + timedelta(hours=7))

    assert len(live(runtime.engine, endpoint_id)) == 9
    rotated(runtime.engine, vault, endpoint_id, kinds=(V1A,))
    rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(0))
    assert [row.kind for row in live(runtime.engine, endpoint_id)].count(V1) == 1


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=7, seconds=1)])
def test_an_overlap_is_at_most_a_week(runtime: Runtime, vault: MultiFernet, overlap: timedelta) -> None:
    with pytest.raises(EndpointError, match="0 to 7 days"):
        rotated(runtime.engine, vault, endpoint(runtime), overlap=overlap)


def test_the_secrets_of_many_endpoints_are_read_at_once(runtime: Runtime, vault: MultiFernet) -> None:
    ids = [endpoint(runtime) for _ in range(3)]
    rotated(runtime.engine, vault, ids[0])

    with database.read(runtime.engine) as connection, statements(runtime.engine) as asked:
        found = keys.load(connection, [*ids, "ep_none"], NOW)

    assert {endpoint_id: len(rows) for endpoint_id, rows in found.items()} == {ids[0]: 2, ids[1]: 1, ids[2]: 1}
    assert len([one for one in asked if one.startswith("SELECT")]) == 1


def test_a_secret_is_decrypted_once(runtime: Runtime) -> None:
    endpoint_id, vault = endpoint(runtime), CountingVault()
    rotated(runtime.engine, vault, endpoint_id, overlap=timedelta(0))
    stored = live(runtime.engine, endpoint_id)

    assert keys.opened(vault, stored) == keys.opened(vault, stored)
    assert vault.decrypted == 1


def test_nothing_is_signed_without_a_secret_or_with_one_that_cannot_be_read(runtime: Runtime) -> None:
    with pytest.raises(VaultError, match="rotate it"):
        keys.opened(MultiFernet([Fernet(Fernet.generate_key())]), ())
    with pytest.raises(VaultError, match="BILLHOOK_ENCRYPTION_KEYS"):
        keys.opened(MultiFernet([Fernet(Fernet.generate_key())]), live(runtime.engine, endpoint(runtime)))


@pytest.mark.parametrize("signing", ["", "v2", "v1a,v1", "v1,v1", "v1, v1a", "V1"])
def test_what_is_no_way_to_sign_is_refused(signing: str) -> None:
    with pytest.raises(EndpointError, match="v1, v1a or v1,v1a"):
        keys.kinds(signing)
