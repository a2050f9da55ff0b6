"""What can be configured of a drive: s3contents 0.11.2's S3ContentsManager traits, and ours.

Sections of a configuration are found by class name, so `c.S3ContentsManager.bucket = ...` written
for s3contents means the same here. Values only; what they do is in connection.py and s3manager.py.
"""

from __future__ import annotations

import hashlib
import os
from urllib.parse import urlparse

from traitlets import Any as AnyTrait
from traitlets import Bool, Dict, Enum, Float, HasTraits, Int, Unicode, default

from .connection import Settings


class S3Traits(HasTraits):
    """To be mixed into a Configurable."""

    # --- where: the traits of s3contents, with their meaning ---

    bucket = Unicode(
        help="Name of the bucket, e.g. 'ada'. Default: GPUCLOUD_S3_BUCKET, else 'notebooks'."
    ).tag(config=True)
    prefix = Unicode(
        "", help="Show only what is below this prefix, e.g. 'projects/one'. Empty: everything."
    ).tag(config=True)
    delimiter = Unicode("/", help="What separates folders in keys.").tag(config=True)
    endpoint_url = Unicode(
        help="URL of the S3 service, e.g. 'https://s3.example.org'. Default: AWS_ENDPOINT_URL_S3, "
        "AWS_ENDPOINT_URL, else Amazon's."
    ).tag(config=True)
    region_name = Unicode(help="Default: AWS_DEFAULT_REGION, else 'us-east-1'.").tag(config=True)
    access_key_id = Unicode(
        None,
        allow_none=True,
        help="Key to use. None: AWS_SHARED_CREDENTIALS_FILE, read anew whenever it changes, else "
        "whatever boto3 finds. A configuration file is no good place for a key.",
    ).tag(config=True)
    secret_access_key = Unicode(None, allow_none=True, help="Secret of access_key_id.").tag(
        config=True
    )
    session_token = Unicode(
        None, allow_none=True, help="Token of a temporary key; None: the key is permanent."
    ).tag(config=True)
    anon = Bool(False, help="Send requests unsigned, for public buckets.").tag(config=True)
    boto3_session = AnyTrait(None, allow_none=True, help="A boto3.Session of your own.")
    init_s3_hook = AnyTrait(
        None, allow_none=True, help="Called with this manager before it connects; may set traits."
    ).tag(config=True)
    signature_version = Unicode(
        "", help="Such as 's3v4'. Empty: botocore's choice, which is s3v4."
    ).tag(config=True)
    skip_tls_verify = Bool(False, help="Accept any certificate of the endpoint.").tag(config=True)
    sse = Unicode(
        "", help="Server-side encryption of what is written: 'AES256', 'aws:kms'. Empty: none."
    ).tag(config=True)
    kms_key_id = Unicode("", help="Key for sse='aws:kms'. Empty: the service's own.").tag(
        config=True
    )
    s3fs_additional_kwargs = Dict(
        help="Parameters of every write, as S3 names them, e.g. {'StorageClass': 'STANDARD_IA'}."
    ).tag(config=True)
    s3fs_config_kwargs = Dict(
        help="Settings of botocore.config.Config, e.g. {'read_timeout': 120}."
    ).tag(config=True)
    post_save_hook = AnyTrait(
        None,
        allow_none=True,
        help="Called after a save as hook(s3_path=key, model=model, contents_manager=manager).",
    ).tag(config=True)

    # --- ours ---

    max_open_mb = Int(
        512,
        help="MiB; a bigger file is not opened in an editor (it would fill the server's memory), "
        "only downloaded, copied and moved. 0: no limit.",
    ).tag(config=True)
    threads = Int(8, help="Threads that wait for S3; as many again for folders.").tag(config=True)
    upload_idle_seconds = Float(
        900.0, help="Seconds after which an upload that stands still is aborted."
    ).tag(config=True)
    always_delete_dir = Bool(
        True, help="Delete folders that are not empty. S3 has no trash: it is for good."
    ).tag(config=True)
    hash_algorithm = Enum(
        sorted(hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}),
        "sha256",
        help="Algorithm of the hashes in models.",
    ).tag(config=True)

    @default("bucket")
    def _default_bucket(self) -> str:
        return os.environ.get("GPUCLOUD_S3_BUCKET") or "notebooks"

    @default("endpoint_url")
    def _default_endpoint_url(self) -> str:
        return (
            os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or "https://s3.amazonaws.com"
        )

    @default("region_name")
    def _default_region_name(self) -> str:
        return os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    def settings(self) -> Settings:
        extras = dict(self.s3fs_additional_kwargs)
        if self.sse:
            extras["ServerSideEncryption"] = self.sse
        if self.kms_key_id:
            extras["SSEKMSKeyId"] = self.kms_key_id
        return Settings(
            bucket=self.bucket,
            prefix=self.prefix,
            delimiter=self.delimiter,
            endpoint_url="" if self.bucket.startswith("arn:") else self.endpoint_url,
            region_name=self.region_name,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            session_token=self.session_token,
            anon=self.anon,
            boto3_session=self.boto3_session,
            signature_version=self.signature_version,
            skip_tls_verify=self.skip_tls_verify,
            write_extras=extras,
            config_extras=self.s3fs_config_kwargs,
            pool_size=self.threads,
        )


def bucket_name(given: str) -> str:
    """As s3contents does: `s3://ada`, `https://ada` and `ada/folder` all mean `ada`."""
    if not given:
        raise ValueError("S3ContentsManager.bucket is empty")
    if given.startswith(("arn:", "s3://arn:")):
        return given.removeprefix("s3://")
    parsed = urlparse(given)
    name = parsed.netloc or parsed.path.split("/", 1)[0]
    if not name or parsed.params or parsed.query or parsed.fragment:
        raise ValueError(f"Not a bucket name: {given!r}")
    return name
