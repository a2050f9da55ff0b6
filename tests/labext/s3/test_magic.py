"""`%gpucloud s3 ls|cp|sync` on a real store: content, names, progress, errors, Ctrl-C."""

from __future__ import annotations

import _thread
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from gpucloud_labext import s3
from gpucloud_labext.errors import LabError
from gpucloud_labext.magics import s3 as magic
from gpucloud_labext.magics.command import Context, Result
from gpucloud_labext.magics.dispatch import dispatch
from gpucloud_labext.magics.snippets import snippets
from tests.storage import servers

from .conftest import Pod

NAMES = ["plain.csv", "a b.csv", "a+b.csv", "50%.csv", "%20.csv", "übung/数据.csv", "sub/deep/x"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(line: str) -> Result:
    found: Result = dispatch(f"s3 {line}", Context())
    return found


def refused(line: str) -> LabError:
    with pytest.raises(LabError) as error:
        run(line)
    return error.value


def fill(folder: Path, names: list[str] = NAMES) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def tree(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


async def test_folders_there_and_back_with_any_names(pod: Pod, home: Path) -> None:
    fill(home / "data")
    told = run("cp -r data s3/")
    assert (told.files, told.alike) == (len(NAMES), 0)
    assert pod.names() == sorted(f"data/{name}" for name in NAMES)
    assert pod.read("data/%20.csv") == b"%20.csv"
    run("cp -r s3/data back")
    assert tree(home / "back") == tree(home / "data")
    run("cp -r s3/data .")  # into a folder that is there: by its name
    run(f"cp 's3/data/a b.csv' s3://{pod.keys.team_buckets['vision']}/")
    listed = run("ls s3-vision")
    assert [entry["name"] for entry in listed.entries] == ["a b.csv"]


async def test_sync_moves_only_what_differs(pod: Pod, home: Path) -> None:
    fill(home / "data")
    assert run("sync data s3/data").files == len(NAMES)
    again = run("sync data s3/data")
    assert (again.files, again.alike) == (0, len(NAMES))
    (home / "data" / "plain.csv").write_bytes(b"longer than before")
    (home / "data" / "a b.csv").write_bytes(b"A B.CSV")  # as long as before
    for name in ("a b.csv", "a+b.csv"):  # the other one is only touched
        os.utime(home / "data" / name, (time.time() + 10, time.time() + 10))
    assert run("sync data s3/data").files == 2
    assert pod.read("data/a b.csv") == b"A B.CSV"
    (home / "data" / "50%.csv").unlink()
    assert run("sync data s3/data").files == 0
    assert "data/50%.csv" in pod.names(), "nothing is deleted"
    run("sync s3/data data")
    assert (home / "data" / "50%.csv").read_bytes() == b"50%.csv"
    assert run("sync s3/data data").files == 0, "they have the objects' times now"
    pod.put("other", b"1")
    assert run("sync s3/data s3/copy").files == len(NAMES)
    assert run("sync s3/data s3/copy").files == 0


async def test_listings_and_the_neighbour_of_a_like_name(pod: Pod, home: Path) -> None:
    for key in ("alice/x", "alice-2/y", "file.txt", "empty/.s3keep"):
        pod.put(key)
    root = run("ls")
    assert [entry["name"] for entry in root.entries] == ["alice/", "alice-2/", "empty/", "file.txt"]
    assert [entry["name"] for entry in run("ls s3/alice").entries] == ["x"]
    assert [entry["name"] for entry in run("ls s3/file.txt").entries] == ["file.txt"]
    assert run("ls s3/empty").entries == []
    assert "alice-2/" in repr(root) and "alice-2/" in (root._repr_html_() or "")
    run("cp -r s3/alice .")
    assert tree(home) == {"alice/x": b"data"}


async def test_errors_say_what_is_wrong(pod: Pod, home: Path) -> None:
    fill(home / "data")
    stranger = await pod.provider.ensure_user("eve", [])
    for line, status, words in (
        ("cp nothing s3/", 404, "nothing at nothing"),
        ("cp s3/nothing .", 404, "nothing at s3://"),
        ("ls s3/nothing", 404, "nothing at s3://"),
        ("cp data s3/", 400, "add -r"),
        ("cp data/plain.csv other", 400, "must be in S3"),
        ("cp -r s3/data s3/data/inside", 400, "into itself"),
        ("cp data", 400, "required: target"),
        ("ls data", 400, "on the disk"),
        ("mv a b", 400, "invalid choice"),
        (f"ls s3://{stranger.bucket}", 404, "does not exist"),
        (f"cp data/plain.csv s3://{stranger.bucket}/x", 404, "does not exist"),
    ):
        error = refused(line)
        assert error.status == status, line
        assert words in error.message, line


async def test_a_dead_store_is_told_soon(
    pod: Pod, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    s3.client.cache_clear()
    fill(home / "data")
    began = time.monotonic()
    for line in ("ls", "cp data/plain.csv s3/", "cp s3/x ."):
        error = refused(line)
        assert (error.status, "does not answer" in error.message) == (503, True), line
    assert time.monotonic() - began < 30


async def test_a_big_file_goes_in_parts_and_progress_is_shown(
    pod: Pod, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = os.urandom(2**20)
    with (home / "big").open("wb") as file:
        for _ in range(40):
            file.write(block)
    pictures: list[str] = []
    monkeypatch.setattr(magic, "_bar", lambda: lambda p: pictures.append(repr(magic._picture(p))))
    run("cp big s3/")
    assert "0 of 1 files, 0 B of 40 MiB" in pictures[0]
    assert pictures[-1].startswith("[####################] 100 %  1 of 1 files, 40 MiB")
    run("cp s3/big back")
    assert (home / "back").read_bytes() == (home / "big").read_bytes()


def interrupt_when(condition: Callable[[], Any]) -> threading.Thread:
    """As Jupyter's button: SIGINT to the main thread, once ``condition`` holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.001)
        _thread.interrupt_main(signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


# boto3's transfer manager leaves the connection of a cancelled download to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_ctrl_c_leaves_nothing_half_copied(
    pod: Pod, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (home / "big").open("wb") as file:
        file.truncate(256 * 2**20)
    seen: list[int] = []
    monkeypatch.setattr(magic, "_bar", lambda: lambda p: seen.append(p.bytes_done))
    monkeypatch.setattr(signal, "SIGINT", signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for line in ("cp big s3/big", "cp s3/whole here"):
            if "whole" in line:
                run("cp -q big s3/whole")
            seen.clear()
            thread = interrupt_when(lambda: any(0 < count < 256 * 2**20 for count in seen))
            error = refused(line)
            thread.join()
            assert (error.code, "0 of 1 files" in error.message) == ("interrupted", True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "big" not in pod.names()
    assert unfinished(pod) == []
    assert sorted(path.name for path in home.iterdir()) == ["big"]
    run("cp -q big s3/big")  # and again


def unfinished(pod: Pod) -> list[str]:
    """Multipart uploads that the store still knows, and what it may have kept of them."""
    parts = [p.name for p in (pod.provider.data / "users").rglob(".rclone_temp_*")]
    try:
        found = pod.client().list_multipart_uploads(Bucket=pod.keys.bucket).get("Uploads", ())
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload"  # this server's word for none
        found = ()
    return [upload["Key"] for upload in found] + parts


def output_of(*command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_snippets_work_as_they_are_pasted(pod: Pod, tmp_path: Path) -> None:
    pod.put("übung 1.csv", b"12345")
    keys = pod.keys
    data = {"endpoint": keys.endpoint, "bucket": keys.bucket, "region": keys.region}
    shown = snippets(data, keys.access_key, keys.secret_key)
    rclone = Path(sys.executable).with_name("rclone")
    lines = [line.replace("rclone ", f"{shlex.quote(str(rclone))} ", 1) for line in shown["rclone"]]
    environment = {"PATH": os.environ["PATH"], "RCLONE_CONFIG": str(tmp_path / "rclone.conf")}
    assert "5 übung 1.csv" in output_of("sh", "-ec", "\n".join(lines), environment=environment)
    *before, last = shown["Python (boto3)"]
    script = "\n".join([*before, f"print({last}['Contents'][0]['Key'])"])
    assert output_of(sys.executable, "-c", script, environment={}).strip() == "übung 1.csv"
    hidden = repr(snippets(data, keys.access_key, ""))
    assert keys.secret_key not in hidden
    assert "only programs there reach it" in hidden
    assert servers.refused(lambda: servers.get(keys, "nothing")) == "NoSuchKey"
