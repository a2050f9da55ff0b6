"""Ceph RGW: users, keys, quotas and buckets by its Admin Ops API, teams by bucket policies.

https://docs.ceph.com/en/latest/radosgw/adminops/ - an RGW user per person, who owns one bucket and
can make no other (nobody can take a name that is to be another's); team buckets belong to the
administrating user, and their policies name the members.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .s3 import Credentials, S3Error, Shared, Usage, check_prefix, taken, team_bucket, user_bucket
from .signed import Answer, SignedClient

log = logging.getLogger(__name__)
PURGE_SECONDS = 3600.0
MEMBER_RIGHTS = [
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:GetBucketLocation",
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
]
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html
OLD_UPLOADS = b"""\
<LifecycleConfiguration><Rule><ID>gpucloud-unfinished-uploads</ID><Status>Enabled</Status>\
<Filter><Prefix></Prefix></Filter><AbortIncompleteMultipartUpload>\
<DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>\
</Rule></LifecycleConfiguration>"""
_NAME = "{http://s3.amazonaws.com/doc/2006-03-01/}Name"


class CephRGW(Shared):
    """RGW at ``endpoint``, administered with the key of ``admin_file`` or of the environment.

    ``admin_file`` holds ``{"access_key": ..., "secret_key": ...}``; without one, the hub's
    GPUCLOUD_RGW_ACCESS_KEY and GPUCLOUD_RGW_SECRET_KEY count. That user needs the capabilities
    ``users=*;buckets=*``. ``quota_bytes`` (None: no limit) is each user's. ``pod_endpoint`` is the
    one that pods and people use, where it differs. ``prefix`` goes before all names in Ceph.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        admin_file: str | Path | None = None,
        quota_bytes: int | None = None,
        pod_endpoint: str = "",
        region: str = "us-east-1",
        prefix: str = "gpucloud-",
        timeout: float = 10.0,
    ) -> None:
        super().__init__()
        self.endpoint = endpoint.rstrip("/")
        self.admin_file = Path(admin_file) if admin_file else None
        self.quota_bytes = quota_bytes
        self.pod_endpoint = pod_endpoint or self.endpoint
        self.region = region
        self.prefix = check_prefix(prefix)
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"CephRGW({self.endpoint!r})"

    # --- the interface -------------------------------------------------------------------------

    async def ensure_user(
        self, user: str, teams: Collection[str], current: str = ""
    ) -> Credentials:
        async with self.alone(user):
            return await self._ensure(user, teams, current)

    async def new_key(self, user: str, teams: Collection[str]) -> Credentials:
        async with self.alone(user):
            before = await self._ensure(user, teams)
            info = await self._user(user) or {"keys": []}
            old = {key["access_key"]: key["secret_key"] for key in info["keys"]}
            [(access_key, secret_key)] = (await self._add_key(user, old)).items()
        return self._credentials(user, access_key, secret_key, before.team_buckets)

    async def revoke(self, user: str, keep: str = "") -> None:
        info = await self._user(user)
        for key in info["keys"] if info else []:
            if key["access_key"] != keep:
                query = {"key": "", "uid": self._uid(user), "access-key": key["access_key"]}
                answer = await self._admin("DELETE", "user", query)
                if not answer.ok and answer.status != 404:  # 404: somebody else was quicker
                    raise _refused("end a key", answer)

    async def usage(self, user: str) -> Usage:
        query = {"bucket": self._bucket(user), "stats": "True"}
        answer = await self._admin("GET", "bucket", query)
        if answer.status == 404:
            return Usage(0, 0, await self._quota(user))
        self._expect(answer, "read a bucket's usage")
        held = json.loads(answer.text).get("usage", {}).get("rgw.main", {})
        return Usage(
            int(held.get("size", 0)),
            int(held.get("num_objects", 0)),
            await self._quota(user),
        )

    async def purge(self, user: str) -> None:
        if await self._user(user) is None:
            return
        await self._leave_teams(user)
        query = {"uid": self._uid(user), "purge-data": "True"}
        answer = await self._admin("DELETE", "user", query, timeout=PURGE_SECONDS)
        if not answer.ok and answer.status != 404:
            raise _refused("delete a user's data", answer)

    # --- users and keys ------------------------------------------------------------------------

    async def _ensure(self, user: str, teams: Collection[str], current: str = "") -> Credentials:
        info = await self._user(user) or await self._make_user(user)
        await self._set_quota(user)
        await self._ensure_bucket(user)
        buckets = await self._fit_teams(user, teams)
        keys = {key["access_key"]: key["secret_key"] for key in info["keys"]}
        if not keys:
            keys = await self._add_key(user, keys)
        access_key = current if current in keys else min(keys)
        return self._credentials(user, access_key, keys[access_key], buckets)

    def _uid(self, user: str) -> str:
        return self._bucket(user)  # one rule for names

    def _bucket(self, user: str) -> str:
        return user_bucket(user, self.prefix)

    def _credentials(
        self, user: str, access_key: str, secret_key: str, teams: Mapping[str, str]
    ) -> Credentials:
        return Credentials(
            access_key=access_key,
            secret_key=secret_key,
            endpoint=self.pod_endpoint,
            region=self.region,
            bucket=self._bucket(user),
            team_buckets=teams,
        )

    async def _user(self, user: str) -> dict[str, Any] | None:
        """RGW's record, or None. Raises S3Error where it is another person's."""
        answer = await self._admin("GET", "user", {"uid": self._uid(user)})
        if answer.status == 404:
            return None
        self._expect(answer, "read a user")
        info: dict[str, Any] = json.loads(answer.text)
        if info["display_name"] != user:
            raise taken("user", user)
        return info

    async def _make_user(self, user: str) -> dict[str, Any]:
        query = {"uid": self._uid(user), "display-name": user, "max-buckets": "-1"}
        answer = await self._admin("PUT", "user", query)
        if answer.status == 409:  # made at the same moment by another start
            return await self._user(user) or {"keys": []}
        self._expect(answer, "make a user")
        made: dict[str, Any] = json.loads(answer.text)
        return made

    async def _add_key(self, user: str, old: Mapping[str, str]) -> dict[str, str]:
        """The one new key. RGW makes it, so that no secret stands in a URL."""
        query = {"key": "", "uid": self._uid(user), "generate-key": "True"}
        answer = await self._admin("PUT", "user", query)
        self._expect(answer, "make a key")
        fresh = {k["access_key"]: k["secret_key"] for k in json.loads(answer.text)}
        fresh = {name: secret for name, secret in fresh.items() if name not in old}
        name = min(fresh)
        return {name: fresh[name]}

    async def _set_quota(self, user: str) -> None:
        if await self._quota(user) == self.quota_bytes:
            return
        size = -1 if self.quota_bytes is None else -(-self.quota_bytes // 1024)
        query = {
            "quota": "",
            "uid": self._uid(user),
            "quota-type": "user",
            "enabled": "false" if self.quota_bytes is None else "true",
            "max-size-kb": str(size),
            "max-objects": "-1",
        }
        self._expect(await self._admin("PUT", "user", query), "set a quota")

    async def _quota(self, user: str) -> int | None:
        query = {"quota": "", "uid": self._uid(user), "quota-type": "user"}
        answer = await self._admin("GET", "user", query)
        if not answer.ok:
            return None
        quota = json.loads(answer.text)
        size = int(quota.get("max_size", -1))
        return size if quota.get("enabled") and size >= 0 else None

    # --- buckets and teams ---------------------------------------------------------------------

    async def _ensure_bucket(self, user: str) -> None:
        bucket = self._bucket(user)
        owner = await self._owner(bucket)
        if owner == self._uid(user):
            return
        if owner is None:
            made = await self._s3("PUT", f"/{bucket}")
            if not made.ok and made.status != 409:
                raise _refused("make a bucket", made)
            await self._end_old_uploads(bucket)  # only its owner may, so before it is given away
        link = await self._admin("PUT", "bucket", {"bucket": bucket, "uid": self._uid(user)})
        if await self._owner(bucket) != self._uid(user):
            if link.ok:
                raise taken("bucket", user)
            raise _refused("give a bucket to its user", link)

    async def _end_old_uploads(self, bucket: str) -> None:
        """Parts of uploads that nobody finished go after a week, whoever left them.

        A store that cannot do it works as well, but for the space.
        """
        digest = hashlib.md5(OLD_UPLOADS, usedforsecurity=False).digest()
        headers = {"Content-MD5": base64.b64encode(digest).decode()}
        answer = await self._s3("PUT", f"/{bucket}", {"lifecycle": ""}, OLD_UPLOADS, headers)
        if not answer.ok:
            log.warning(
                "Bucket %s keeps unfinished uploads (%s)", bucket, _refused("set it", answer)
            )

    async def _owner(self, bucket: str) -> str | None:
        answer = await self._admin("GET", "bucket", {"bucket": bucket, "stats": "True"})
        if answer.status == 404:
            return None
        self._expect(answer, "read a bucket's owner")
        return str(json.loads(answer.text)["owner"])

    async def _fit_teams(self, user: str, teams: Collection[str]) -> dict[str, str]:
        """Make ``user`` a member of the buckets of ``teams`` and of no other. Team -> bucket."""
        wanted = {team: team_bucket(team, self.prefix) for team in sorted(teams)}
        present = await self._team_buckets()
        for bucket in sorted({*wanted.values(), *present}):
            member = bucket in wanted.values()
            if member and bucket not in present:
                self._expect(await self._s3("PUT", f"/{bucket}"), "make a team's bucket")
                await self._end_old_uploads(bucket)
            await self._set_membership(bucket, user, member)
        return wanted

    async def _leave_teams(self, user: str) -> None:
        for bucket in await self._team_buckets():
            await self._set_membership(bucket, user, False)

    async def _team_buckets(self) -> list[str]:
        """Those of the administrating user, which gpucloud alone makes."""
        marker = f"{self.prefix}team-"
        answer = await self._s3("GET", "/")
        self._expect(answer, "list the teams' buckets")
        names = [element.text or "" for element in ElementTree.fromstring(answer.text).iter(_NAME)]  # noqa: S314 - our own store's
        return [name for name in names if name.startswith(marker)]

    async def _set_membership(self, bucket: str, user: str, member: bool) -> None:
        principal = f"arn:aws:iam:::user/{self._uid(user)}"
        async with self.alone(bucket):  # it is read, changed and written
            answer = await self._s3("GET", f"/{bucket}", {"policy": ""})
            if answer.status == 404:
                members: list[str] = []
            else:
                self._expect(answer, "read a team's members")
                members = _members(json.loads(answer.text))
            if (principal in members) == member:
                return
            members = sorted({*members, principal} if member else set(members) - {principal})
            if members:
                body = json.dumps(_policy(bucket, members)).encode()
                answer = await self._s3("PUT", f"/{bucket}", {"policy": ""}, body)
            else:
                answer = await self._s3("DELETE", f"/{bucket}", {"policy": ""})
            self._expect(answer, "change a team's members")

    # --- requests ------------------------------------------------------------------------------

    async def _admin(
        self, method: str, what: str, query: Mapping[str, str], timeout: float | None = None
    ) -> Answer:
        client = await self._client()
        return await client.send(
            method, f"/admin/{what}", {**query, "format": "json"}, timeout=timeout
        )

    async def _s3(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return await (await self._client()).send(method, path, query, body, headers=headers)

    async def _client(self) -> SignedClient:
        access_key, secret_key = await asyncio.to_thread(self._admin_key)
        return SignedClient(self.endpoint, access_key, secret_key, self.region, self.timeout)

    def _admin_key(self) -> tuple[str, str]:
        """Read for every request, so that a changed key needs no restart."""
        if self.admin_file is None:
            pair = (
                os.environ.get("GPUCLOUD_RGW_ACCESS_KEY", ""),
                os.environ.get("GPUCLOUD_RGW_SECRET_KEY", ""),
            )
            where = "GPUCLOUD_RGW_ACCESS_KEY and GPUCLOUD_RGW_SECRET_KEY"
        else:
            where = str(self.admin_file)
            try:
                record = json.loads(self.admin_file.read_text(encoding="utf-8"))
                pair = (str(record["access_key"]), str(record["secret_key"]))
            except (OSError, ValueError, KeyError, TypeError):
                pair = ("", "")
        if not all(pair):
            raise S3Error(
                f"The hub has no administrator's key for {self.endpoint}: see {where}.",
                "s3_misconfigured",
            )
        return pair

    def _expect(self, answer: Answer, doing: str) -> None:
        if not answer.ok:
            raise _refused(doing, answer)


def _refused(doing: str, answer: Answer) -> S3Error:
    # RGW's own code is a word; the rest of the answer stays out of logs
    code = _error_code(answer.text)
    return S3Error(f"Ceph RGW refused to {doing} ({answer.status} {code}).", "s3_refused")


def _error_code(text: str) -> str:
    for before, after in (('"Code":"', '"'), ("<Code>", "<")):
        _, found, rest = text.partition(before)
        if found:
            code = rest.partition(after)[0]
            return code if code.isalnum() else ""
    return ""


def _members(policy: Mapping[str, Any]) -> list[str]:
    found: set[str] = set()
    for statement in policy.get("Statement", []):
        principals = statement.get("Principal", {}).get("AWS", [])
        found.update([principals] if isinstance(principals, str) else principals)
    return sorted(found)


def _policy(bucket: str, members: list[str]) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "gpucloud-team",
                "Effect": "Allow",
                "Principal": {"AWS": members},
                "Action": MEMBER_RIGHTS,
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
