"""What goes between the home volume and S3, in both directions."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from . import servers
from .servers import Drive

BIG = os.urandom(2**20) * 80  # several parts of the transfer manager


def test_a_file_moves_into_the_bucket_and_back(drive: Drive) -> None:
    (drive.home / "ä b.txt").write_bytes(b"one")
    drive.api.rename(f"{drive.name}/ä b.txt", f"{drive.s3}/c+d.txt")
    assert drive.read("c+d.txt") == b"one"
    assert drive.in_home() == []
    model = drive.api.rename(f"{drive.s3}/c+d.txt", f"{drive.name}/e.txt")
    assert model["path"] == f"{drive.name}/e.txt"
    assert (drive.home / "e.txt").read_bytes() == b"one"
    assert drive.found() == []
    assert drive.api.names(drive.s3) == []


def test_a_folder_moves_into_the_bucket_and_back_whole(drive: Drive) -> None:
    source = drive.home / "d"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a.txt").write_bytes(b"one")
    (source / ".hidden").write_bytes(b"two")
    (source / "deep" / "er" / "ü %.bin").write_bytes(BIG)
    drive.api.rename(f"{drive.name}/d", f"{drive.s3}/d")
    assert not source.exists()
    assert sorted(drive.found()) == ["d/.hidden", "d/a.txt", "d/deep/er/ü %.bin"]
    assert drive.read("d/deep/er/ü %.bin") == BIG
    assert drive.api.names(f"{drive.s3}/d") == ["a.txt", "deep", "empty"]
    drive.api.rename(f"{drive.s3}/d", f"{drive.name}/back")
    back = drive.home / "back"
    found = sorted(str(p.relative_to(back)) for p in back.rglob("*"))
    assert found == [".hidden", "a.txt", "deep", "deep/er", "deep/er/ü %.bin", "empty"]
    digest = hashlib.sha256((back / "deep/er/ü %.bin").read_bytes()).digest()
    assert digest == hashlib.sha256(BIG).digest()
    assert drive.found() == []


def test_copies_leave_the_original(drive: Drive) -> None:
    (drive.home / "d").mkdir()
    (drive.home / "d" / "a.txt").write_bytes(b"one")
    assert drive.api.copy(f"{drive.name}/d", drive.s3)["path"] == f"{drive.s3}/d"
    assert drive.api.copy(f"{drive.name}/d/a.txt", drive.s3)["path"] == f"{drive.s3}/a.txt"
    assert drive.api.copy(f"{drive.s3}/d", drive.name)["path"] == f"{drive.name}/d-Copy1"
    assert drive.api.copy(f"{drive.s3}/a.txt", drive.name)["type"] == "file"
    assert (drive.home / "d-Copy1" / "a.txt").read_bytes() == b"one"
    assert (drive.home / "d" / "a.txt").read_bytes() == b"one"
    assert sorted(drive.found()) == ["a.txt", "d/a.txt"]


def test_what_is_there_already_is_not_overwritten(drive: Drive) -> None:
    (drive.home / "a.txt").write_bytes(b"home")
    drive.put("a.txt", b"bucket")
    drive.put("d/x.txt")
    for old, new in (
        (f"{drive.name}/a.txt", f"{drive.s3}/a.txt"),
        (f"{drive.name}/a.txt", f"{drive.s3}/d"),
        (f"{drive.s3}/a.txt", f"{drive.name}/a.txt"),
    ):
        assert drive.api.refusal("PATCH", old, json={"path": new})[0] == 409
    for old, new in (
        (f"{drive.name}/a.txt", f"{drive.s3}/no/a.txt"),
        (f"{drive.s3}/a.txt", f"{drive.name}/no/a.txt"),
        (f"{drive.name}/none", f"{drive.s3}/none"),
        (f"{drive.s3}/none", f"{drive.name}/none"),
    ):
        assert drive.api.refusal("PATCH", old, json={"path": new})[0] == 404
    assert drive.api.refusal("PATCH", "s3", json={"path": f"{drive.name}/all"})[0] == 400
    assert (drive.home / "a.txt").read_bytes() == b"home"
    assert drive.read("a.txt") == b"bucket"
    assert drive.in_home() == ["a.txt"], "no half copy, no leftover"


def test_keys_that_are_no_paths_stay_in_the_bucket(drive: Drive) -> None:
    drive.put("d/ok.txt")
    drive.put("d/" + "x" * 200 + "/" + "y" * 200)
    drive.api.rename(f"{drive.s3}/d", f"{drive.name}/fine")
    if drive.store.kind == "ceph":  # the embedded server cannot hold such keys
        drive.put("evil/../../../outside.txt")
        drive.put("evil/a.txt")
        status, words = drive.api.refusal(
            "PATCH", f"{drive.s3}/evil", json={"path": f"{drive.name}/evil"}
        )
        assert (status, "cannot be a file name" in words) == (400, True)
        assert not (drive.api.home.parent / "outside.txt").exists()
        assert "evil/a.txt" in drive.found()
        drive.api.delete(f"{drive.s3}/evil")
        assert drive.found() == []


def test_links_to_folders_are_refused_and_kept(drive: Drive) -> None:
    (drive.home / "d").mkdir()
    (drive.home / "d" / "a.txt").write_bytes(b"one")
    (drive.home / "d" / "loop").symlink_to(drive.home)
    status, words = drive.api.refusal("PATCH", f"{drive.name}/d", json={"path": f"{drive.s3}/d"})
    assert (status, "link" in words) == (400, True)
    assert drive.found() == []
    assert (drive.home / "d" / "a.txt").read_bytes() == b"one"


def test_checkpoints_go_along_with_a_file(drive: Drive) -> None:
    drive.api.put(f"{drive.name}/a.txt", "one")
    drive.api.call("POST", f"{drive.name}/a.txt/checkpoints")
    drive.api.put(f"{drive.name}/a.txt", "two")
    drive.api.rename(f"{drive.name}/a.txt", f"{drive.s3}/a.txt")
    assert drive.api.call("POST", f"{drive.s3}/a.txt/checkpoints/checkpoint").status_code == 204
    assert drive.read("a.txt") == b"one"
    drive.api.rename(f"{drive.s3}/a.txt", f"{drive.name}/b.txt")
    assert len(drive.api.get(f"{drive.name}/b.txt/checkpoints")) == 1


def test_the_home_works_as_without_us(drive: Drive) -> None:
    drive.api.mkdir(f"{drive.name}/d")
    drive.api.put(f"{drive.name}/d/a.txt", "one")
    drive.api.rename(f"{drive.name}/d", f"{drive.name}/e")
    assert drive.api.copy(f"{drive.name}/e/a.txt", f"{drive.name}/e")["name"] == "a-Copy1.txt"
    assert drive.api.files(f"{drive.name}/e/a.txt").text == "one"
    ranged = drive.api.files(f"{drive.name}/e/a.txt", headers={"Range": "bytes=1-1"})
    assert (ranged.status_code, ranged.text) == (206, "n")
    assert drive.api.files(f"{drive.name}/e/a.txt", method="HEAD").headers["Content-Length"] == "3"
    drive.api.delete(f"{drive.name}/e")
    assert drive.in_home() == []


def test_who_has_chosen_another_manager_keeps_it(own_store: servers.Store, tmp_path: Path) -> None:
    config = (
        "c.ServerApp.jpserver_extensions = {'gpucloud_labext': True}\n"
        "c.ServerApp.contents_manager_class = "
        "'jupyter_server.services.contents.largefilemanager.AsyncLargeFileManager'\n"
    )
    with servers.jupyter(tmp_path, own_store.environment(), config) as api:
        assert api.names("") == []
