"""The user's data in S3, from Python in a pod: a client whose key is always the present one.

::

    from gpucloud_labext import s3

    client = s3.client()  # boto3's; goes on working when the key is renewed
    client.list_objects_v2(Bucket=s3.bucket())

`keys` follows the key, `places` reads names such as `s3://bucket/x` and `s3/x`, `plans` and
`transfer` move files. This module imports nothing of Jupyter, and boto3 only when it is used: job
replicas load it, too.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from ..errors import LabError
from .keys import KeyFile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["KeyFile", "bucket", "client"]


def bucket() -> str:
    """The user's own bucket. Raises LabError where there is none."""
    name = os.environ.get("GPUCLOUD_S3_BUCKET")
    if not name:
        raise LabError(404, "s3_off", "This server has no S3 bucket: ask your administrator.")
    return name


@functools.cache
def client() -> S3Client:
    """A boto3 client of the pod's store, the same one at each call; threads may share it."""
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.credentials import CredentialResolver

    from .following import FileProvider

    session = botocore.session.get_session()
    file = KeyFile.of_environment()
    if file is not None and file.read() is not None:
        session.register_component("credential_provider", CredentialResolver([FileProvider(file)]))
    config = Config(
        # bucket names are host names only at AWS, and other stores know the classic checksums only
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
    )
    made: S3Client = boto3.Session(botocore_session=session).client("s3", config=config)
    return made
