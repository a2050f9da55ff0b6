"""The boto3 client of a drive: settings, keys that may be renewed at any time, bounded waiting."""

from __future__ import annotations

import datetime
import gc
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import botocore.utils
from botocore import UNSIGNED
from botocore.config import Config

from ..s3.keys import KeyFile, Keys, session_arguments

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Seconds, each at most twice. A dead endpoint refuses at once; one that swallows packets or hangs
# costs these.
CONNECT_TIMEOUT = 3
READ_TIMEOUT = 30


@dataclass(frozen=True)
class Settings:
    """Where the objects are and how to get in; the meaning of each is in s3manager.py's traits."""

    bucket: str
    prefix: str = ""
    delimiter: str = "/"
    endpoint_url: str = ""
    region_name: str = ""
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    anon: bool = False
    boto3_session: Any = None
    signature_version: str = ""
    skip_tls_verify: bool = False
    # sent with every write: server-side encryption, ACL, ...
    write_extras: Mapping[str, Any] = field(default_factory=dict)
    config_extras: Mapping[str, Any] = field(default_factory=dict)
    pool_size: int = 16


class Connection:
    """Makes the client, and makes it anew when the mounted credentials file has changed.

    Only for worker threads: making a client reads files for a tenth of a second.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._made_for: tuple[Any, ...] | None = None
        self._client: S3Client | None = None

    def client(self) -> S3Client:
        file = self._key_file()
        stamp = file.stamp() if file else None
        with self._lock:
            if self._client is None or stamp != self._made_for:
                first = self._client is None
                self._client = self._make()
                self._made_for = stamp
                if first:
                    # A big listing makes so many objects that Python looks through all it has for
                    # garbage, with every thread stopped: 200-250 ms for the hundreds of thousands
                    # of a started server. Those live as long as it does: leave them out.
                    gc.freeze()
            return self._client

    def _key_file(self) -> KeyFile | None:
        own = self.settings
        if own.access_key_id or own.anon or own.boto3_session is not None:
            return None
        return KeyFile.of_environment()

    def _make(self) -> S3Client:
        own = self.settings
        if own.boto3_session is not None:
            session = own.boto3_session
        else:
            session = boto3.Session(**session_arguments(self._keys()))
            # botocore's own parser takes a third of the time of a big listing
            session._session.get_component("response_parser_factory").set_parser_defaults(
                timestamp_parser=parse_time
            )
        client: S3Client = session.client(
            "s3",
            endpoint_url=own.endpoint_url or None,
            region_name=own.region_name or None,
            verify=False if own.skip_tls_verify else None,
            config=self._config(),
        )
        return client

    def _keys(self) -> Keys | None:
        """The keys to use; None leaves the search to boto3 (environment, instance role...)."""
        own = self.settings
        if own.access_key_id and own.secret_access_key:
            return own.access_key_id, own.secret_access_key, own.session_token
        # boto3 alone would prefer the variables, which may be of yesterday
        file = self._key_file()
        return file.read() if file else None

    def _config(self) -> Config:
        own = self.settings
        options: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"mode": "standard", "total_max_attempts": 2},
            "max_pool_connections": own.pool_size * 2,
            # Ceph and rclone know only the classic checksums
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        if own.endpoint_url:
            # bucket names are host names only at AWS
            options["s3"] = {"addressing_style": "path"}
        options.update(own.config_extras)
        if own.anon:
            options["signature_version"] = UNSIGNED
        elif own.signature_version:
            options["signature_version"] = own.signature_version
        return Config(**options)


def parse_time(value: Any) -> datetime.datetime:
    """ISO 8601 at the speed of C; anything else as botocore does."""
    if isinstance(value, str) and len(value) > 10 and value[10] == "T":
        try:
            return datetime.datetime.fromisoformat(value)
        except ValueError:
            pass
    return botocore.utils.parse_timestamp(value)
