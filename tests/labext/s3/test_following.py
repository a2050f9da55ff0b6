"""A key that is renewed while kernels run: what they hold goes on working, without a restart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpucloud_labext import s3
from gpucloud_labext.s3.keys import FreshVariables, KeyFile
from gpucloud_labext.s3.server import KeyWatch
from tests.labext.contents.servers import write_keys
from tests.storage import servers

from .conftest import Pod

# IPython as in a kernel: a cell per line of stdin, a line of stdout per cell.
SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.extension_manager.load_extension("gpucloud_labext")
assert "botocore" not in sys.modules, "a kernel starts without the time that botocore takes"
for line in sys.stdin:
    result = shell.run_cell(line, silent=False)
    print("=>", repr(result.result) if result.success else repr(result.error_in_exec), flush=True)
"""
REFUSED = ("InvalidAccessKeyId", "AccessDenied", "NoSuchBucket", "SignatureDoesNotMatch")


class Shell:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, cell: str) -> str:
        """The repr of the cell's value, or of its error."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{cell}\n")
        stdin.flush()
        for line in stdout:
            if line.startswith("=> "):
                return line.removeprefix("=> ").strip()
        raise AssertionError("the shell ended")


@contextmanager
def kernel(folder: Path) -> Iterator[Shell]:
    with subprocess.Popen(
        [sys.executable, "-c", SHELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "IPYTHONDIR": str(folder)},
    ) as process:
        try:
            yield Shell(process)
        finally:
            process.kill()


async def test_a_kernels_boto3_goes_on_after_a_rotation(pod: Pod, tmp_path: Path) -> None:
    pod.put("known", b"12345")
    read = "client.get_object(Bucket=bucket, Key='known')['Body'].read()"
    with kernel(tmp_path) as shell:
        shell.run("import boto3, os; bucket = os.environ['GPUCLOUD_S3_BUCKET']")
        shell.run("client = boto3.client('s3'); session = boto3.Session()")
        shell.run("other = session.resource('s3').Object(bucket, 'known')")
        assert shell.run(read) == "b'12345'"
        old = await pod.rotate()
        assert servers.refused(lambda: servers.get(old, "known")) in REFUSED
        assert shell.run(read) == "b'12345'", "a client made before the rotation"
        assert shell.run("other.get()['Body'].read()") == "b'12345'"
        assert shell.run(read.replace("client.", "boto3.client('s3').")) == "b'12345'"
        fresh = f"'{pod.keys.access_key}'"
        assert shell.run("os.environ['AWS_ACCESS_KEY_ID']") == fresh
        whole = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import boto3, os; "
        whole += 'print(boto3.client("s3").list_objects_v2(Bucket=os.environ["GPUCLOUD_S3_BUCKET"])'
        whole += '["KeyCount"])\'], capture_output=True, text=True).stdout'
        assert shell.run(whole) == "'1\\n'", "a script that is started from the kernel"


async def test_a_key_of_ones_own_is_left_alone(pod: Pod, tmp_path: Path) -> None:
    with kernel(tmp_path) as shell:
        shell.run("import boto3, os; os.environ['AWS_ACCESS_KEY_ID'] = 'MINE'")
        shell.run("client = boto3.client('s3')")
        await pod.rotate()
        assert shell.run("os.environ['AWS_ACCESS_KEY_ID']") == "'MINE'"
        shell.run("from botocore.exceptions import ClientError")
        assert "AccessDenied" in shell.run("client.list_buckets()")
        made = "boto3.client('s3', aws_access_key_id='X', aws_secret_access_key='Y')"
        assert "AccessDenied" in shell.run(f"{made}.list_buckets()")


async def test_the_own_client_follows_in_any_process(pod: Pod) -> None:
    pod.put("known")
    client = s3.client()
    await pod.rotate()
    assert client.list_objects_v2(Bucket=s3.bucket())["KeyCount"] == 1


async def test_a_file_that_is_being_switched_changes_nothing(pod: Pod) -> None:
    client = s3.client()
    text = pod.file.read_text()
    for broken in ("", "[default]\naws_access_key_id = X\n", "\0"):
        pod.file.write_text(broken)
        assert "Contents" not in client.list_objects_v2(Bucket=s3.bucket())
    pod.file.unlink()
    assert "Contents" not in client.list_objects_v2(Bucket=s3.bucket())
    pod.file.write_text(text)
    await pod.rotate()
    assert "Contents" not in client.list_objects_v2(Bucket=s3.bucket())


def test_variables_follow_the_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    write_keys(file, "one", "first")
    environment = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "first", "X": "y"}
    variables = FreshVariables(KeyFile(file), environment)
    assert not variables.follow()
    write_keys(file, "two", "second")
    assert variables.follow()
    assert environment == {"AWS_ACCESS_KEY_ID": "two", "AWS_SECRET_ACCESS_KEY": "second", "X": "y"}
    environment["AWS_ACCESS_KEY_ID"] = "mine"
    write_keys(file, "three", "third")
    assert not variables.follow()
    assert environment["AWS_ACCESS_KEY_ID"] == "mine"


async def test_a_server_starts_kernels_with_the_present_key(pod: Pod) -> None:
    watch = KeyWatch()
    watch.start()
    try:
        await pod.rotate()
        async with asyncio.timeout(10):
            while os.environ["AWS_ACCESS_KEY_ID"] != pod.keys.access_key:
                await asyncio.sleep(0.02)
    finally:
        await watch.stop()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == pod.keys.secret_key


def test_without_a_key_file_boto3_is_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    s3.client.cache_clear()
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    url = s3.client().generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "AK" in url
