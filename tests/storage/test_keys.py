"""Keys in Kubernetes: a real API server, the real embedded S3 server."""

from __future__ import annotations

import asyncio
import base64
import configparser
import json
from collections.abc import Collection
from pathlib import Path

import pytest
from kubernetes_asyncio.client import ApiException, CoreV1Api

from gpucloud_spawner.storage.keys import S3Keys, secret_name
from gpucloud_spawner.storage.s3 import Credentials, S3Error
from gpucloud_spawner.storage.s3_local import LocalS3
from gpucloud_spawner.storage.s3_static import StaticS3

from .servers import get, is_dead, names, put


async def values(api: CoreV1Api, user: str) -> dict[str, str]:
    secret = await api.read_namespaced_secret(secret_name(user), "gpucloud")
    return {name: base64.b64decode(text).decode() for name, text in secret.data.items()}


def credentials(found: dict[str, str]) -> Credentials:
    return Credentials(
        found["AWS_ACCESS_KEY_ID"],
        found["AWS_SECRET_ACCESS_KEY"],
        found["AWS_ENDPOINT_URL_S3"],
        found["AWS_DEFAULT_REGION"],
        found["GPUCLOUD_S3_BUCKET"],
        json.loads(found["GPUCLOUD_S3_TEAM_BUCKETS"]),
    )


async def test_the_secret_holds_the_contracts_variables_and_a_file(
    keys: S3Keys, api: CoreV1Api
) -> None:
    name = await keys.ensure("Ada Lovelace", ["vision"])
    secret = await api.read_namespaced_secret(name, "gpucloud")
    assert secret.metadata.owner_references is None, "it outlives every pod"
    assert secret.metadata.annotations["gpucloud.io/user"] == "Ada Lovelace"
    assert secret.metadata.labels["gpucloud.io/component"] == "s3-keys"
    found = await values(api, "Ada Lovelace")
    file = configparser.ConfigParser()
    file.read_string(found["credentials"])
    assert file["default"]["aws_secret_access_key"] == found["AWS_SECRET_ACCESS_KEY"]
    put(credentials(found), "x", bucket=credentials(found).team_buckets["vision"])
    version = secret.metadata.resource_version
    await keys.ensure("Ada Lovelace", ["vision"])
    again = await api.read_namespaced_secret(name, "gpucloud")
    assert again.metadata.resource_version == version, "nothing was written"


async def test_first_starts_at_once_agree(keys: S3Keys, api: CoreV1Api) -> None:
    await asyncio.gather(*[keys.ensure("twice", []) for _ in range(4)])
    put(credentials(await values(api, "twice")), "x")


async def test_rotation_replaces_the_key_everywhere(keys: S3Keys, api: CoreV1Api) -> None:
    await keys.ensure("rota-k", ["vision"])
    old = credentials(await values(api, "rota-k"))
    put(old, "known")
    new = await keys.rotate("rota-k")
    assert is_dead(old)
    assert credentials(await values(api, "rota-k")) == new
    assert new.team_buckets == old.team_buckets
    assert get(new, "known") == b"data"


async def test_a_start_that_a_rotation_overtakes_never_brings_the_dead_key_back(
    local: LocalS3, keys: S3Keys, api: CoreV1Api
) -> None:
    await keys.ensure("slow", [])
    rotated: list[Credentials] = []

    class Slow(LocalS3):
        """The store, as slow as it takes for a rotation to come in between."""

        async def ensure_user(
            self, user: str, teams: Collection[str], current: str = ""
        ) -> Credentials:
            found = await super().ensure_user(user, teams, current)
            if not rotated:
                rotated.append(await keys.rotate("slow"))
            return found

    await S3Keys(Slow(local.data, local.endpoint), api, "gpucloud").ensure("slow", ["vision"])
    found = credentials(await values(api, "slow"))
    assert found.access_key == rotated[0].access_key
    put(found, "x", bucket=found.team_buckets["vision"])


async def test_rotations_at_once_leave_a_living_key(keys: S3Keys, api: CoreV1Api) -> None:
    await keys.ensure("eager", [])
    made = await asyncio.gather(*[keys.rotate("eager") for _ in range(3)])
    found = credentials(await values(api, "eager"))
    put(found, "x")
    assert found.access_key == made[-1].access_key


async def test_where_the_data_are_is_no_secret(keys: S3Keys, api: CoreV1Api) -> None:
    assert await keys.place("nobody-yet") is None
    await keys.ensure("placed", ["vision"])
    found, place = credentials(await values(api, "placed")), await keys.place("placed")
    assert place is not None
    assert (place.bucket, place.endpoint, place.team_buckets) == (
        found.bucket,
        found.endpoint,
        found.team_buckets,
    )
    assert found.secret_key not in repr(place)


async def test_a_rotation_that_cannot_be_kept_leaves_the_old_key_in_use(
    local: LocalS3, keys: S3Keys, api: CoreV1Api
) -> None:
    await keys.ensure("careful", [])
    old = credentials(await values(api, "careful"))
    put(old, "known")

    class ReadOnly:
        """The API of a service account that may read Secrets only."""

        read_namespaced_secret = api.read_namespaced_secret

        async def replace_namespaced_secret(self, *args: object, **kwargs: object) -> None:
            raise ApiException(status=403, reason="Forbidden")

    with pytest.raises(ApiException):
        await S3Keys(local, ReadOnly(), "gpucloud").rotate("careful")
    assert get(old, "known") == b"data"
    records = [p for p in (local.data / "keys").iterdir() if '"careful"' in p.read_text()]
    assert len(records) == 1, "the key that nobody got is ended"


async def test_revoke_and_purge(keys: S3Keys, api: CoreV1Api) -> None:
    await keys.ensure("leaver", [])
    old = credentials(await values(api, "leaver"))
    put(old, "known")
    await keys.revoke("leaver")
    assert is_dead(old)
    assert not await keys.has_secret("leaver")
    assert (await keys.usage("leaver")).objects == 1
    await keys.revoke("leaver")  # a second time is fine
    await keys.purge("leaver")
    assert (await keys.usage("leaver")).objects == 0
    await keys.ensure("leaver", [])
    assert names(credentials(await values(api, "leaver"))) == []


async def test_anothers_secret_is_never_used(keys: S3Keys, api: CoreV1Api) -> None:
    await api.create_namespaced_secret(
        "gpucloud",
        {
            "metadata": {
                "name": secret_name("victim"),
                "annotations": {"gpucloud.io/user": "somebody else"},
            }
        },
    )
    with pytest.raises(S3Error, match="another user"):
        await keys.ensure("victim", [])


async def test_keys_given_by_hand(tmp_path: Path, api: CoreV1Api, keys: S3Keys) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        "ada: {access_key: AK, secret_key: very-secret, bucket: b,"
        " team_buckets: {vision: v, speech: s}}\nbob: {access_key: AK2}\n"
    )
    by_hand = S3Keys(StaticS3("https://s3.example.com", file), api, "gpucloud")
    await by_hand.ensure("ada", ["vision"])
    found = credentials(await values(api, "ada"))
    assert (found.secret_key, dict(found.team_buckets)) == ("very-secret", {"vision": "v"})
    for user, code in (("bob", "s3_misconfigured"), ("eve", "s3_no_key")):
        with pytest.raises(S3Error) as error:
            await by_hand.ensure(user, [])
        assert error.value.code == code
    for act in (by_hand.rotate("ada"), by_hand.revoke("ada")):
        with pytest.raises(S3Error) as error:
            await act
        assert error.value.code == "s3_unsupported"
    assert not await by_hand.has_secret("ada"), "revoked as far as it is ours"
    file.write_text("ada: {access_key: AK, secret_key: 'oops\n")
    with pytest.raises(S3Error) as error:
        await by_hand.ensure("ada", [])
    assert "oops" not in str(error.value)
