"""Users and keys of the embedded S3 server, with boto3 against the running server."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import http.client
import stat
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningKey

from gpucloud_spawner.storage.s3 import Credentials, S3Error, Usage
from gpucloud_spawner.storage.s3_local import LocalS3

from .servers import client, fetch, get, is_dead, names, put, refused


def raw(keys: Credentials, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """A signed request for exactly ``target``, which boto3 would refuse to send."""
    request = AWSRequest(method=method, url=keys.endpoint + target, data=body)
    S3SigV4Auth(SigningKey(keys.access_key, keys.secret_key), "s3", keys.region).add_auth(request)
    connection = http.client.HTTPConnection(keys.endpoint.removeprefix("http://"), timeout=10)
    connection.request(method, target, body, dict(request.headers.items()))
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


async def test_a_user_writes_and_reads_his_own_bucket(local: LocalS3) -> None:
    keys = await local.ensure_user("Ada Lovelace", [])
    put(keys, "a b/ü+%.txt", b"hello")
    assert get(keys, "a b/ü+%.txt") == b"hello"
    assert names(keys) == ["a b/ü+%.txt"]
    assert await local.usage("Ada Lovelace") == Usage(5, 1)


async def test_the_bucket_stays_when_its_last_object_goes(local: LocalS3) -> None:
    keys = await local.ensure_user("emptier", [])
    put(keys, "d/only")
    client(keys).delete_object(Bucket=keys.bucket, Key="d/only")
    assert names(keys) == []
    put(keys, "again")


async def test_a_second_start_gets_the_same_key(local: LocalS3) -> None:
    first, second = await asyncio.gather(*[local.ensure_user("steady", []) for _ in range(2)])
    third = await local.ensure_user("steady", [], current=second.access_key)
    assert first.access_key == second.access_key == third.access_key
    assert first.bucket == third.bucket


async def test_a_foreign_key_reaches_nothing(local: LocalS3) -> None:
    ada, bob = await local.ensure_user("ada", ["vision"]), await local.ensure_user("bob", [])
    put(ada, "secret.txt", b"adas")
    put(ada, "shared.txt", b"teams", ada.team_buckets["vision"])
    s3 = client(bob)
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [bob.bucket]
    for bucket in (ada.bucket, ada.team_buckets["vision"]):
        for action in (
            lambda bucket=bucket: s3.list_objects_v2(Bucket=bucket),
            lambda bucket=bucket: s3.get_object(Bucket=bucket, Key="secret.txt"),
            lambda bucket=bucket: s3.put_object(Bucket=bucket, Key="evil", Body=b"x"),
            lambda bucket=bucket: s3.delete_object(Bucket=bucket, Key="secret.txt"),
            lambda bucket=bucket: s3.copy_object(
                Bucket=bob.bucket, Key="stolen", CopySource={"Bucket": bucket, "Key": "secret.txt"}
            ),
            lambda bucket=bucket: s3.create_multipart_upload(Bucket=bucket, Key="evil"),
            lambda bucket=bucket: s3.delete_bucket(Bucket=bucket),
        ):
            assert refused(action) in ("NoSuchBucket", "404", "AccessDenied")
    assert names(ada) == ["secret.txt"]
    assert names(bob) == []


CRAFTED = ["..", ".", "%2e%2e", "..%2f{ada}", "../{ada}", "{bob}/../{ada}", "{bob}/../../{ada}"]
CRAFTED += ["{bob}/%2e%2e/%2e%2e/{ada}", "..\\{ada}", "{ada}%00", "\uff0e\uff0e/{ada}", "//{ada}"]
CRAFTED += [
    "{bob}/../../../keys",
    "../keys",
    "../owners",
    "{ada}/.",
    "./{ada}",
    "{bob}/..%c0%af{ada}",
]


@pytest.mark.parametrize("shape", CRAFTED)
async def test_crafted_names_lead_nowhere(local: LocalS3, shape: str) -> None:
    ada, bob = await local.ensure_user("ada", []), await local.ensure_user("bob", [])
    put(ada, "secret.txt", b"adas own words")
    before = {p for p in local.data.rglob("*") if "cache" not in p.parts}
    name = shape.format(ada=f"{ada.bucket}/{ada.bucket}", bob=bob.bucket)
    for target in (f"/{name}", f"/{quote(name)}", f"/{quote(name, safe='')}"):
        if not target.isascii():
            continue
        for method, suffix in (("GET", ""), ("GET", "/secret.txt"), ("PUT", "/evil"), ("PUT", "")):
            status, text = raw(bob, method, target + suffix, b"evil" if suffix else b"")
            assert b"adas own words" not in text
            assert b"secret.txt</Key>" not in text, (method, target, status)
    assert names(ada) == ["secret.txt"]
    # bob may have made buckets and objects, but only below his own root
    fresh = {p for p in local.data.rglob("*") if "cache" not in p.parts} - before
    root = local.data / "users" / bob.bucket
    assert all(p.is_relative_to(root) for p in fresh), fresh


async def test_wrong_unknown_and_absent_keys_are_refused(local: LocalS3) -> None:
    ada = await local.ensure_user("ada", [])
    wrong = Credentials(ada.access_key, "x" * 40, ada.endpoint, ada.region, ada.bucket)
    unknown = Credentials("GC" + "A" * 18, "x" * 40, ada.endpoint, ada.region, ada.bucket)
    path = Credentials("../keys/x", "x" * 40, ada.endpoint, ada.region, ada.bucket)
    for keys in (wrong, unknown, path):
        assert refused(lambda keys=keys: client(keys).list_buckets()) in (
            "AccessDenied",
            "SignatureDoesNotMatch",
            "InvalidAccessKeyId",
            "403",
        )
    assert fetch(f"{ada.endpoint}/{ada.bucket}")[0] == 403


async def test_teams_come_and_go_with_the_next_start(local: LocalS3) -> None:
    ada = await local.ensure_user("tia", ["vision", "Sprache & Ton"])
    tom = await local.ensure_user("tom", ["vision"])
    bucket = ada.team_buckets["vision"]
    put(ada, "seen.txt", b"by all", bucket)
    for _ in range(100):  # another's view is at most a second old
        if names(tom, bucket) == ["seen.txt"]:
            break
        await asyncio.sleep(0.05)
    assert get(tom, "seen.txt", bucket) == b"by all"
    assert ada.team_buckets["Sprache & Ton"] not in tom.team_buckets.values()
    again = await local.ensure_user("tia", [], current=ada.access_key)
    assert (again.team_buckets, again.access_key) == ({}, ada.access_key)
    assert refused(lambda: get(ada, "seen.txt", bucket)) in ("NoSuchBucket", "NoSuchKey")
    assert get(tom, "seen.txt", bucket) == b"by all"


async def test_a_bucket_in_the_way_of_a_team_is_kept(local: LocalS3) -> None:
    keys = await local.ensure_user("squatter", [])
    client(keys).create_bucket(Bucket="team-late")
    put(keys, "mine.txt", b"mine", "team-late")
    keys = await local.ensure_user("squatter", ["late"])
    put(keys, "ours.txt", b"ours", keys.team_buckets["late"])
    assert not (local.data / "teams" / "team-late" / "mine.txt").exists()
    [kept] = (local.data / "users" / keys.bucket).glob("own-team-late-*")
    assert (kept / "mine.txt").read_bytes() == b"mine"


async def test_an_ended_key_is_dead_when_revoke_returns(local: LocalS3) -> None:
    keys = await local.ensure_user("fired", [])
    put(keys, "known")
    assert get(keys, "known") == b"data"
    s3 = client(keys)
    upload = s3.create_multipart_upload(Bucket=keys.bucket, Key="half")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": keys.bucket, "Key": "known"})
    assert fetch(link) == (200, b"data")
    await local.revoke("fired")
    assert is_dead(keys)
    assert fetch(link)[0] >= 400
    refused(
        lambda: s3.upload_part(
            Bucket=keys.bucket, Key="half", PartNumber=1, UploadId=upload["UploadId"], Body=b"x"
        )
    )
    # the data are kept, and come back with a new key
    fresh = await local.ensure_user("fired", [])
    assert fresh.access_key != keys.access_key
    assert names(fresh) == ["known"]
    assert is_dead(keys)


async def test_a_rotation_keeps_the_new_key_alone(local: LocalS3) -> None:
    old = await local.ensure_user("rota", [])
    put(old, "known")
    new = await local.new_key("rota", [])
    assert get(old, "known") == get(new, "known")
    await local.revoke("rota", keep=new.access_key)
    assert is_dead(old)
    put(new, "more")


async def test_purge_takes_all_of_one_user_only(local: LocalS3) -> None:
    one, two = await local.ensure_user("gone", []), await local.ensure_user("gone-2", [])
    put(one, "a"), put(two, "b")
    await local.purge("gone")
    assert is_dead(one)
    assert await local.usage("gone") == Usage(0, 0)
    assert names(two) == ["b"]
    assert names(await local.ensure_user("gone", [])) == []
    await local.purge("never-was-there")


async def test_what_is_on_the_disk_is_private(local: LocalS3) -> None:
    keys = await local.ensure_user("private", [])
    record = local.data / "keys" / f"{keys.access_key}.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(local.data.stat().st_mode) == 0o700
    assert keys.secret_key in record.read_text()
    assert keys.secret_key not in repr(keys) + repr(local)


async def test_a_name_that_is_anothers_is_refused(local: LocalS3) -> None:
    await local.ensure_user("first", [])
    (local.data / "owners" / "user-first").write_text("somebody whose name has the same slug")
    with pytest.raises(S3Error, match="another user") as error:
        await local.ensure_user("first", [])
    assert error.value.code == "s3_name_taken"


async def test_every_spawner_gets_the_same_provider(local: LocalS3) -> None:
    assert copy.deepcopy({"s3_provider": local})["s3_provider"] is local


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(S3Error, match="embedded S3 server") as error:
        await LocalS3(tmp_path / "file", "http://127.0.0.1:1").ensure_user("ada", [])
    assert error.value.code == "s3_unreachable"


async def test_content_md5_is_checked(local: LocalS3) -> None:
    keys = await local.ensure_user("md5", [])
    wrong = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    put(keys, "f", b"old")
    code = refused(
        lambda: client(keys).put_object(Bucket=keys.bucket, Key="f", Body=b"new", ContentMD5=wrong)
    )
    assert code == "BadDigest"
    assert get(keys, "f") == b"old"
