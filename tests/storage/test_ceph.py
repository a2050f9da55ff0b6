"""CephRGW against a real RGW of Debian's Ceph packages."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gpucloud_spawner.storage.s3 import S3Error, Usage
from gpucloud_spawner.storage.s3_ceph import CephRGW

from ..ports import free_ports
from .servers import Server, client, fetch, get, is_dead, names, put, refused, running

pytestmark = pytest.mark.ceph


async def test_a_user_gets_bucket_and_key_once(rgw: CephRGW) -> None:
    first = await rgw.ensure_user("Ada Lovelace", [])
    put(first, "a b/ü+%.txt", b"hello")
    again = await rgw.ensure_user("Ada Lovelace", [], current=first.access_key)
    assert again == first
    assert get(again, "a b/ü+%.txt") == b"hello"
    assert await rgw.usage("Ada Lovelace") == Usage(5, 1)


async def test_unfinished_uploads_end_after_a_week(rgw: CephRGW) -> None:
    keys = await rgw.ensure_user("hasty", ["sprint"])
    s3 = client(keys)
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=keys.bucket)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rule["Status"] == "Enabled"
    assert "Expiration" not in rule, "nothing else ever goes by itself"


async def test_two_first_starts_at_once_agree(rgw: CephRGW) -> None:
    made = await asyncio.gather(*[rgw.ensure_user("both", ["pair"]) for _ in range(3)])
    assert len({keys.access_key for keys in made}) == 1
    put(made[0], "x")


async def test_a_foreign_key_is_denied(rgw: CephRGW) -> None:
    ada, bob = await rgw.ensure_user("ada", ["vision"]), await rgw.ensure_user("bob", [])
    put(ada, "secret.txt")
    put(ada, "shared.txt", bucket=ada.team_buckets["vision"])
    s3 = client(bob)
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [bob.bucket]
    for bucket in (ada.bucket, ada.team_buckets["vision"]):
        for action in (
            lambda bucket=bucket: s3.list_objects_v2(Bucket=bucket),
            lambda bucket=bucket: s3.get_object(Bucket=bucket, Key="secret.txt"),
            lambda bucket=bucket: s3.put_object(Bucket=bucket, Key="evil", Body=b"x"),
            lambda bucket=bucket: s3.delete_object(Bucket=bucket, Key="secret.txt"),
        ):
            assert refused(action) == "AccessDenied"
    # nobody can take the name of a bucket that is to be another's
    assert refused(lambda: s3.create_bucket(Bucket="gpucloud-user-carol")) == "AccessDenied"


async def test_a_member_cannot_change_who_is_in_the_team(rgw: CephRGW) -> None:
    ada = await rgw.ensure_user("ada", ["vision"])
    bucket = ada.team_buckets["vision"]
    s3 = client(ada)
    assert refused(lambda: s3.put_bucket_policy(Bucket=bucket, Policy="{}")) == "AccessDenied"
    assert refused(lambda: s3.delete_bucket(Bucket=bucket)) in ("AccessDenied", "BucketNotEmpty")
    assert refused(lambda: s3.put_bucket_acl(Bucket=bucket, ACL="public-read")) == "AccessDenied"


async def test_teams_come_and_go_with_the_next_start(rgw: CephRGW) -> None:
    tia, tom = await asyncio.gather(
        rgw.ensure_user("tia", ["speech", "Ton & Wort"]), rgw.ensure_user("tom", ["speech"])
    )
    bucket = tia.team_buckets["speech"]
    put(tia, "seen.txt", b"by all", bucket)
    assert get(tom, "seen.txt", bucket) == b"by all"
    put(tia, "x", bucket=tia.team_buckets["Ton & Wort"])
    assert (await rgw.ensure_user("tia", [])).team_buckets == {}
    assert refused(lambda: names(tia, bucket)) == "AccessDenied"
    assert refused(lambda: names(tia, tia.team_buckets["Ton & Wort"])) == "AccessDenied"
    assert get(tom, "seen.txt", bucket) == b"by all"


async def test_a_revoked_key_is_dead_at_once_and_the_data_are_kept(rgw: CephRGW) -> None:
    keys = await rgw.ensure_user("fired", [])
    put(keys, "known")
    link = client(keys).generate_presigned_url(
        "get_object", Params={"Bucket": keys.bucket, "Key": "known"}
    )
    await rgw.revoke("fired")
    assert is_dead(keys)
    assert fetch(link)[0] == 403
    fresh = await rgw.ensure_user("fired", [])
    assert names(fresh) == ["known"]
    assert is_dead(keys)


async def test_rotation(rgw: CephRGW) -> None:
    old = await rgw.ensure_user("rota", ["speech"])
    put(old, "known")
    new = await rgw.new_key("rota", ["speech"])
    assert get(old, "known") == get(new, "known")
    await rgw.revoke("rota", keep=new.access_key)
    assert is_dead(old)
    put(new, "more")
    assert (await rgw.ensure_user("rota", ["speech"])).access_key == new.access_key


async def test_a_quota_is_set_changed_and_taken_away(ceph_server: Server) -> None:
    admin_file = ceph_server.data / "admin.json"
    small = CephRGW(ceph_server.endpoint, admin_file=admin_file, quota_bytes=64 * 1024)
    keys = await small.ensure_user("full", [])
    assert (await small.usage("full")).quota_bytes == 64 * 1024
    code = refused(lambda: put(keys, "big", bytes(200 * 1024)))
    assert code == "QuotaExceeded"
    await CephRGW(ceph_server.endpoint, admin_file=admin_file).ensure_user("full", [])
    assert (await small.usage("full")).quota_bytes is None

    async def fits() -> bool:
        try:
            put(keys, "big", bytes(200 * 1024))
        except client(keys).exceptions.ClientError:
            return False
        return True

    async with asyncio.timeout(10):
        while not await fits():  # RGW looks at a quota once a second
            await asyncio.sleep(0.1)


async def test_purge_takes_all_of_one_user_only(rgw: CephRGW) -> None:
    one, two = await asyncio.gather(*[rgw.ensure_user(n, ["speech"]) for n in ("p", "p-2")])
    put(one, "a")
    put(two, "b")
    put(one, "team", bucket=one.team_buckets["speech"])
    await rgw.purge("p")
    assert is_dead(one)
    assert await rgw.usage("p") == Usage(0, 0)
    assert names(two) == ["b"]
    assert "team" in names(two, two.team_buckets["speech"])
    assert names(await rgw.ensure_user("p", [])) == []
    await rgw.purge("never-was-there")


async def test_a_name_that_is_anothers_is_refused(rgw: CephRGW) -> None:
    query = {"uid": "gpucloud-user-taken", "display-name": "somebody else"}
    assert (await rgw._admin("PUT", "user", query)).ok
    with pytest.raises(S3Error, match="another user"):
        await rgw.ensure_user("taken", [])


async def test_no_secret_gets_into_logs_or_errors(
    rgw: CephRGW, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = await rgw.ensure_user("quiet", ["speech"])
    new = await rgw.new_key("quiet", [])
    assert rgw.admin_file is not None
    admin = json.loads(rgw.admin_file.read_text())
    texts = caplog.text + repr(rgw) + repr(keys) + repr(vars(rgw))
    for secret in (keys.secret_key, new.secret_key, admin["secret_key"]):
        assert secret not in texts


@pytest.mark.parametrize("record", ['{"access_key": "A", "secret_key": "not-a-secret"}', "{", "{}"])
async def test_a_wrong_admin_key_is_said(ceph_server: Server, tmp_path: Path, record: str) -> None:
    file = tmp_path / "admin.json"
    file.write_text(record)
    with pytest.raises(S3Error) as error:
        await CephRGW(ceph_server.endpoint, admin_file=file).ensure_user("ada", [])
    assert error.value.code in ("s3_refused", "s3_misconfigured")
    assert "not-a-secret" not in str(error.value)


async def test_the_admins_key_may_come_from_the_environment(
    ceph_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin: dict[str, Any] = json.loads((ceph_server.data / "admin.json").read_text())
    monkeypatch.setenv("GPUCLOUD_RGW_ACCESS_KEY", admin["access_key"])
    monkeypatch.setenv("GPUCLOUD_RGW_SECRET_KEY", admin["secret_key"])
    put(await CephRGW(ceph_server.endpoint).ensure_user("envy", []), "x")


async def test_an_endpoint_that_is_down_is_said(ceph_server: Server) -> None:
    port = free_ports()
    away = CephRGW(f"http://127.0.0.1:{port}", admin_file=ceph_server.data / "admin.json")
    with pytest.raises(S3Error, match="does not answer") as error:
        await away.ensure_user("ada", [])
    assert error.value.code == "s3_unreachable"


async def test_a_one_node_ceph_keeps_its_data_over_a_restart(
    ceph_server: Server, tmp_path: Path
) -> None:
    with running(tmp_path / "ceph", "--kind", "ceph") as own:
        admin_file = own.data / "admin.json"
        assert admin_file.stat().st_mode & 0o777 == 0o600
        keys = await CephRGW(own.endpoint, admin_file=admin_file).ensure_user("ada", ["vision"])
        put(keys, "kept.txt", b"kept")
        own.stop()
        own.start()
        assert get(keys, "kept.txt") == b"kept"
