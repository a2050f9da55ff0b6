"""One bucket (or a prefix of it): blocking calls for worker threads, in terms of whole keys.

Keys given to and returned by this module are relative to the drive's prefix and use "/"; nothing
here knows models, HTTP or the home volume.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from .connection import Connection, Settings
from .errors import code_of, is_missing
from .paths import KEEP

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 2**20
# One request may copy 5 GiB, but its answer comes only when all is copied: bigger ones in parts.
ONE_COPY = 1024 * MIB
COPY_TRANSFER = TransferConfig(
    multipart_threshold=ONE_COPY, multipart_chunksize=256 * MIB, max_concurrency=4
)
FAN_OUT = 8  # requests of one folder operation at a time
BATCH = 1000  # keys of one DeleteObjects


class StoreError(Exception):
    """The store answered, but did not do all that it was asked."""


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    size: int
    etag: str
    modified: datetime

    @property
    def md5(self) -> str | None:
        """The MD5 of the content where the ETag is one. Multipart ETags have a dash, fresh keys in
        listings of the embedded server none at all."""
        plain = len(self.etag) == 32 and all(c in "0123456789abcdef" for c in self.etag)
        return self.etag if plain else None


class Bucket:
    """The drive's objects."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        own: Settings = connection.settings
        self.name = own.bucket
        self.delimiter = own.delimiter
        prefix = own.prefix.strip(own.delimiter)
        self._prefix = f"{prefix}{own.delimiter}" if prefix else ""
        self.write_extras: dict[str, Any] = dict(own.write_extras)
        # encryption by a KMS key makes ETags that are no MD5
        self.etags_are_md5 = "SSECustomerAlgorithm" not in self.write_extras and not str(
            self.write_extras.get("ServerSideEncryption", "")
        ).startswith("aws:kms")

    @property
    def client(self) -> S3Client:
        return self.connection.client()

    def key(self, relative: str) -> str:
        """The key in the bucket."""
        if self.delimiter != "/":
            relative = relative.replace("/", self.delimiter)
        return self._prefix + relative

    def relative(self, key: str) -> str:
        rest = key[len(self._prefix) :]
        return rest if self.delimiter == "/" else rest.replace(self.delimiter, "/")

    # --- looking ---

    def head(self, relative: str) -> Entry | None:
        """The object of this key; None if there is none."""
        try:
            answer = self.client.head_object(Bucket=self.name, Key=self.key(relative))
        except ClientError as error:
            if is_missing(error):
                return None
            # HEAD answers have no body, so no reason: a listing tells it, if it fails as well
            self.client.list_objects_v2(Bucket=self.name, Prefix=self.key(relative), MaxKeys=1)
            raise
        return Entry(
            relative, answer["ContentLength"], clean(answer["ETag"]), answer["LastModified"]
        )

    def any_under(self, folder: str) -> bool:
        """Is there any key in the folder? Also how a missing bucket is told from a missing key."""
        answer = self.client.list_objects_v2(
            Bucket=self.name, Prefix=self._folder(folder), MaxKeys=1
        )
        return bool(answer.get("Contents"))

    def children(self, folder: str) -> tuple[list[str], list[Entry]]:
        """The names of the folder's folders, and its objects: one request per 1,000 of them."""
        folders: list[str] = []
        objects: list[Entry] = []
        prefix = self._folder(folder)
        for page in self._pages(Prefix=prefix, Delimiter=self.delimiter):
            for common in page.get("CommonPrefixes", ()):
                folders.append(common["Prefix"][len(prefix) : -len(self.delimiter)])
            objects.extend(self._entries(page))
        return folders, objects

    def walk(self, folder: str) -> list[Entry]:
        """Everything below the folder, its own markers included."""
        return [
            entry
            for page in self._pages(Prefix=self._folder(folder))
            for entry in self._entries(page)
        ]

    def _pages(self, **query: Any) -> Iterator[Any]:
        return iter(
            self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, **query)
        )

    def _entries(self, page: Any) -> Iterator[Entry]:
        relative = self.relative
        for item in page.get("Contents", ()):
            # HEAD tells whole seconds: the same file must not look changed in the other answer
            modified = item["LastModified"].replace(microsecond=0)
            yield Entry(relative(item["Key"]), item["Size"], clean(item["ETag"]), modified)

    def _folder(self, folder: str) -> str:
        """The prefix of what is in the folder: whole parts, so `alice` is never `alice-2`."""
        return self.key(f"{folder}/") if folder else self._prefix

    # --- reading ---

    def read(self, relative: str) -> tuple[Entry, bytes]:
        answer = self.client.get_object(Bucket=self.name, Key=self.key(relative))
        with answer["Body"] as body:
            data = body.read()
        return Entry(relative, len(data), clean(answer["ETag"]), answer["LastModified"]), data

    def open(self, entry: Entry, start: int, length: int) -> Any:
        """A stream that gives ``length`` bytes from ``start``, also where ranges are ignored."""
        partial = start > 0 or length < entry.size
        query: dict[str, Any] = {"Range": f"bytes={start}-{start + length - 1}"} if partial else {}
        answer = self.client.get_object(
            Bucket=self.name, Key=self.key(entry.key), IfMatch=f'"{entry.etag}"', **query
        )
        body = answer["Body"]
        if clean(answer["ETag"]) != entry.etag:  # If-Match is ignored by some servers
            body.close()
            raise StoreError(f"{entry.key!r} was changed meanwhile; try again")
        if partial and "ContentRange" not in answer:
            skip(body, start)
        return body

    # --- writing ---

    def put(self, relative: str, data: bytes, content_type: str) -> None:
        """Complete or not at all: the server checks the MD5 before it replaces anything."""
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        self.client.put_object(
            Bucket=self.name,
            Key=self.key(relative),
            Body=data,
            ContentMD5=digest,
            ContentType=content_type,
            **self.write_extras,
        )

    def make_folder(self, folder: str) -> None:
        """`.s3keep`, not `name/`: the embedded server makes such a key a file called `name`."""
        self.put(f"{folder}/{KEEP}", b"", "application/octet-stream")

    def keep_folder(self, folder: str) -> None:
        """A folder does not vanish because its last file went."""
        if folder and not self.any_under(folder):
            self.make_folder(folder)

    def copy(self, source: Bucket, entry: Entry, relative: str) -> None:
        """A copy made by the server, checked against its source."""
        if entry.size > ONE_COPY:
            self._copy_parts(source, entry, relative)
            etag = None
        else:
            answer = self.client.copy_object(
                Bucket=self.name,
                Key=self.key(relative),
                CopySource={"Bucket": source.name, "Key": source.key(entry.key)},
                **self.write_extras,
            )
            etag = clean(answer["CopyObjectResult"].get("ETag", ""))
        if etag and etag == entry.md5 and self.etags_are_md5:
            return
        made = self.head(relative)
        if made is None or made.size != entry.size or self._differs(made, entry):
            raise StoreError(f"the copy of {entry.key!r} is not like the original")

    def _copy_parts(self, source: Bucket, entry: Entry, relative: str) -> None:
        """The transfer manager's copy in parts; it aborts what fails."""
        self.client.copy(
            {"Bucket": source.name, "Key": source.key(entry.key)},
            self.name,
            self.key(relative),
            ExtraArgs=dict(self.write_extras) or None,
            SourceClient=source.client,
            Config=COPY_TRANSFER,
        )

    def _differs(self, made: Entry, entry: Entry) -> bool:
        return bool(self.etags_are_md5 and made.md5 and entry.md5 and made.md5 != entry.md5)

    def delete(self, keys: Iterable[str]) -> None:
        """Raises StoreError naming the first key that the store would not delete."""
        names = [self.key(key) for key in keys]
        for start in range(0, len(names), BATCH):
            answer = self.client.delete_objects(
                Bucket=self.name,
                Delete={
                    "Objects": [{"Key": name} for name in names[start : start + BATCH]],
                    "Quiet": True,
                },
            )
            for failed in answer.get("Errors", []):
                if failed.get("Code") not in ("NoSuchKey", "NotFound"):
                    code, name = failed.get("Code"), failed.get("Key", "")
                    raise StoreError(f"{self.relative(name)!r} could not be deleted ({code})")

    # --- big files, part by part ---

    def start_parts(self, relative: str, content_type: str) -> str:
        answer = self.client.create_multipart_upload(
            Bucket=self.name, Key=self.key(relative), ContentType=content_type, **self.write_extras
        )
        return answer["UploadId"]

    def put_part(self, relative: str, upload: str, number: int, data: BinaryIO) -> str:
        """``data``: a file at its beginning, which can be read more than once."""
        md5 = hashlib.md5(usedforsecurity=False)
        while block := data.read(MIB):
            md5.update(block)
        data.seek(0)
        digest = base64.b64encode(md5.digest()).decode()
        answer = self.client.upload_part(
            Bucket=self.name,
            Key=self.key(relative),
            UploadId=upload,
            PartNumber=number,
            Body=data,
            ContentMD5=digest,
        )
        return answer["ETag"]

    def finish_parts(self, relative: str, upload: str, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        self.client.complete_multipart_upload(
            Bucket=self.name,
            Key=self.key(relative),
            UploadId=upload,
            MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
        )

    def abort_parts(self, relative: str, upload: str) -> None:
        try:
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=self.key(relative), UploadId=upload
            )
        except ClientError as error:
            if code_of(error) not in ("NoSuchUpload", "NoSuchKey", "404"):
                raise


def clean(etag: str) -> str:
    """Without its quotes: listings of the embedded server have none."""
    return etag.strip('"')


def skip(body: Any, count: int) -> None:
    while count > 0:
        block = body.read(min(count, MIB))
        if not block:
            raise StoreError("the object is shorter than it was")
        count -= len(block)


def folder_of(relative: str) -> str:
    return posixpath.dirname(relative)
