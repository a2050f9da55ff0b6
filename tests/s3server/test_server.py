"""The embedded server as a process: restarts, kills, what it leaves, what it needs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from gpucloud_spawner.s3server import files
from tests.storage.servers import Server, client, get, is_dead, names, provider, put, running

MIB = 2**20


async def test_keys_data_and_buckets_survive_a_kill(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as server:
        keys = await provider(server).ensure_user("ada", ["vision"])
        put(keys, "a/b.txt", b"kept")
        put(keys, "t.txt", b"teams", keys.team_buckets["vision"])
        etag = client(keys).head_object(Bucket=keys.bucket, Key="a/b.txt")["ETag"]
        server.stop(signal.SIGKILL)
        server.start()
        assert get(keys, "a/b.txt") == b"kept"
        assert get(keys, "t.txt", keys.team_buckets["vision"]) == b"teams"
        head = client(keys).head_object(Bucket=keys.bucket, Key="a/b.txt")
        assert head["ETag"] == etag
        assert (await provider(server).ensure_user("ada", [])).access_key == keys.access_key


async def test_a_kill_in_an_upload_leaves_the_old_object_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as server:
        keys = await provider(server).ensure_user("ada", [])
        put(keys, "model.h5", b"old")
        s3 = client(keys)
        upload = s3.create_multipart_upload(Bucket=keys.bucket, Key="model.h5")["UploadId"]
        s3.upload_part(
            Bucket=keys.bucket, Key="model.h5", PartNumber=1, UploadId=upload, Body=bytes(6 * MIB)
        )
        bucket = server.data / "users" / keys.bucket / keys.bucket
        assert len(list(bucket.iterdir())) == 2, "the unfinished one lies beside it"
        assert names(keys) == ["model.h5"]
        server.stop(signal.SIGKILL)
        server.start()
        assert get(keys, "model.h5") == b"old"
        assert [path.name for path in bucket.iterdir()] == ["model.h5"]


async def test_a_revoked_key_stays_dead_over_a_restart(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as server:
        keys = await provider(server).ensure_user("ada", [])
        put(keys, "known")
        await provider(server).revoke("ada")
        server.stop()
        server.start()
        assert list((server.data / "views").iterdir()) == [], "dead keys are forgotten"
        assert is_dead(keys)


async def test_ranges_are_served_without_reading_the_whole(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as server:
        keys = await provider(server).ensure_user("ada", [])
        body = bytes(range(256)) * (4 * MIB // 256)
        put(keys, "big.bin", body)
        answer = client(keys).get_object(Bucket=keys.bucket, Key="big.bin", Range="bytes=256-511")
        assert answer["Body"].read() == body[256:512]
        assert answer["ContentRange"] == f"bytes 256-511/{len(body)}"


async def test_at_rest_it_is_one_process_that_does_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as server:
        keys = await provider(server).ensure_user("ada", [])
        put(keys, "x")
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        assert process.children() == []
        assert "rclone" in process.exe()
        for _ in range(10):  # what was asked of it may still be going on
            before = sum(process.cpu_times()[:2])
            await asyncio.sleep(2)  # the time that is measured; nothing is waited for
            used = sum(process.cpu_times()[:2]) - before
            if used < 0.04:
                break
        assert used < 0.04, "2 % of a core"
        assert process.memory_full_info().uss < 128 * MIB


async def test_only_loopback_listens(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as server:
        assert server.process is not None
        listening = psutil.Process(server.process.pid).net_connections("inet")
        assert {c.laddr.ip for c in listening if c.status == "LISTEN"} == {"127.0.0.1"}


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with running(tmp_path / "one") as first:
        second = Server(tmp_path / "two")
        command = [sys.executable, "-m", "gpucloud_spawner.s3server", "--data", str(second.data)]
        done = subprocess.run(
            [*command, "--port", str(first.port)],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode != 0
        assert b"address already in use" in done.stderr


def test_a_persons_own_rclone_settings_do_not_count() -> None:
    kept = files.environment({"RCLONE_AUTH_KEY": "open,sesame", "PATH": "/bin", "HOME": "/h"})
    assert kept["RCLONE_CONFIG"] == "/dev/null"
    assert "RCLONE_AUTH_KEY" not in kept
    assert kept["PATH"] == "/bin"
