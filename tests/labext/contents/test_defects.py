"""The defects of s3contents 0.11.2, each reproduced there, none here; and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.web import HTTPError
from traitlets.config import Config

from gpucloud_labext.contents import GPUCloudContentsManager, S3ContentsManager
from gpucloud_labext.contents.traits import bucket_name

from .servers import BUCKET, Drive
from .test_uploads import CHUNK, send

Make = Callable[..., S3ContentsManager]


def test_1_moving_a_folder_from_s3_to_the_home_loses_nothing(drive: Drive) -> None:
    drive.put("d/a.txt", b"one")
    drive.put("d/deep/b.txt", b"two")
    drive.api.rename(f"{drive.s3}/d", f"{drive.name}/d")
    assert (drive.home / "d" / "a.txt").read_bytes() == b"one"
    assert (drive.home / "d" / "deep" / "b.txt").read_bytes() == b"two"


def test_2_folders_of_other_clients_are_seen(drive: Drive) -> None:
    drive.put("training/run1/model.bin")
    if drive.store.kind == "ceph":  # the embedded server makes a file of such a key
        drive.put("marked/", b"")
        assert drive.api.names(f"{drive.s3}/marked") == []
        assert drive.api.names(drive.s3) == ["marked", "training"]
        drive.api.rename(f"{drive.s3}/marked", f"{drive.s3}/renamed")
        drive.api.delete(f"{drive.s3}/renamed")
    assert drive.api.names(drive.s3) == ["training"]
    assert drive.api.names(f"{drive.s3}/training") == ["run1"]
    assert drive.api.get(f"{drive.s3}/training/run1")["type"] == "directory"


# 3, the blocked event loop: test_listing.py


async def test_4_alone_files_come_from_s3_and_never_from_the_disk(alone: Make) -> None:
    manager = alone()
    from gpucloud_labext.contents.files import FilesHandler

    assert manager.files_handler_class is FilesHandler
    assert not Path(manager.files_handler_params["path"]).is_dir()


def test_4_in_the_hybrid_files_come_from_where_they_are(drive: Drive) -> None:
    drive.put("a.txt", b"bucket")
    (drive.home / "a.txt").write_bytes(b"home")
    assert drive.api.files(f"{drive.s3}/a.txt").text == "bucket"
    assert drive.api.files(f"{drive.name}/a.txt").text == "home"


def test_5_downloads_obey_ranges(drive: Drive) -> None:
    drive.put("a.bin", bytes(range(200)))
    answer = drive.api.files(f"{drive.s3}/a.bin", headers={"Range": "bytes=50-59"})
    assert (answer.status_code, answer.content) == (206, bytes(range(50, 60)))


def test_6_an_aborted_upload_is_not_put_before_the_next(drive: Drive) -> None:
    send(drive, "f", 1, b"old" * CHUNK * 3)
    send(drive, "f", 1, b"new")
    send(drive, "f", -1, b"!")
    assert drive.read("f") == b"new!"
    assert drive.uploads() == []


def test_7_checkpoints_are_not_on_the_local_disk(drive: Drive) -> None:
    drive.api.put(f"{drive.s3}/a.txt", "one")
    assert drive.api.call("POST", f"{drive.s3}/a.txt/checkpoints").status_code == 201
    assert drive.in_home() == []
    found = drive.store.client().list_objects_v2(
        Bucket=BUCKET, Prefix=f".gpucloud/checkpoints/{drive.name}/"
    )
    assert [entry["Size"] for entry in found["Contents"]] == [3]


def test_7_models_have_hashes(drive: Drive) -> None:
    drive.put("a.txt")
    assert drive.api.get(f"{drive.s3}/a.txt", hash=1)["hash"]


async def test_7_a_bad_type_is_the_askers_fault(alone: Make) -> None:
    with pytest.raises(HTTPError) as refused:
        await alone().save({"type": "nonsense", "content": ""}, "x")
    assert refused.value.status_code == 400


def test_7_no_save_under_a_missing_parent(drive: Drive) -> None:
    body = {"type": "file", "format": "text", "content": "x"}
    assert drive.api.refusal("PUT", f"{drive.s3}/missing/a.txt", json=body)[0] == 404
    assert drive.found() == []


def test_7_folders_can_be_copied(drive: Drive) -> None:
    drive.put("d/a.txt")
    assert drive.api.copy(f"{drive.s3}/d", drive.s3)["name"] == "d-Copy1"


# --- a configuration written for s3contents means the same ---


def test_the_traits_of_s3contents() -> None:
    """Names and defaults as in its S3ContentsManager; those of the environment left out."""
    traits = S3ContentsManager.class_traits(config=True)
    wanted: dict[str, Any] = {
        "access_key_id": None,
        "anon": False,
        "delimiter": "/",
        "skip_tls_verify": False,
        "kms_key_id": "",
        "init_s3_hook": None,
        "prefix": "",
        "secret_access_key": None,
        "session_token": None,
        "signature_version": "",
        "sse": "",
    }
    assert {name: traits[name].default_value for name in wanted} == wanted
    for name in ("bucket", "endpoint_url", "region_name", "s3fs_additional_kwargs"):
        assert name in traits
    assert {"s3fs_config_kwargs", "post_save_hook"} <= set(traits)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("ada", "ada"), ("s3://ada", "ada"), ("https://ada", "ada"), ("ada/some/folder", "ada")],
)
def test_bucket_names_are_forgiven_as_by_s3contents(given: str, meant: str) -> None:
    assert bucket_name(given) == meant


def test_an_empty_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        bucket_name("")


async def test_prefix_and_delimiter(own: Drive, alone: Make) -> None:
    own.put("p/inside.txt")
    own.put("p-2/outside.txt")
    manager = alone(prefix=f"/{own.name}/p/")
    assert [e["path"] for e in (await manager.get(""))["content"]] == ["inside.txt"]
    assert not await manager.exists("../p-2/outside.txt".removeprefix("../"))
    await manager.save({"type": "directory"}, "d")
    await manager.save({"type": "file", "format": "text", "content": "x"}, "d/new.txt")
    assert sorted(own.found()) == ["p-2/outside.txt", "p/d/new.txt", "p/inside.txt"]


async def test_the_hook_may_set_traits(alone: Make) -> None:
    def hook(manager: S3ContentsManager) -> None:
        manager.bucket = BUCKET

    manager = alone(bucket="wrong", init_s3_hook=hook)
    assert manager.store.name == BUCKET


async def test_encryption_and_extras_go_with_every_write(own: Drive, alone: Make) -> None:
    manager = alone(sse="AES256", s3fs_additional_kwargs={"StorageClass": "STANDARD"})
    sent: list[dict[str, Any]] = []
    events = manager.store.client.meta.events
    events.register("before-call.s3.PutObject", lambda params, **_: sent.append(params["headers"]))
    await manager.save({"type": "file", "format": "text", "content": "x"}, f"{own.name}/a.txt")
    assert sent[0]["x-amz-server-side-encryption"] == "AES256"
    assert sent[0]["x-amz-storage-class"] == "STANDARD"


async def test_hooks_before_and_after_a_save(own: Drive, alone: Make) -> None:
    calls: list[str] = []

    def before(model: dict[str, Any], path: str, contents_manager: object) -> None:
        model["content"] = model["content"].upper()

    def after(s3_path: str, model: dict[str, Any], contents_manager: object) -> None:
        calls.append(s3_path)

    manager = alone()
    manager.post_save_hook = after
    manager.register_pre_save_hook(before)
    await manager.save({"type": "file", "format": "text", "content": "x"}, f"{own.name}/a.txt")
    assert own.read("a.txt") == b"X"
    assert calls == [f"{own.name}/a.txt"]


def test_sections_of_an_existing_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUCLOUD_S3_BUCKET", raising=False)
    monkeypatch.delenv("GPUCLOUD_S3_TEAM_BUCKETS", raising=False)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    plain = GPUCloudContentsManager(root_dir=str(tmp_path))
    assert plain.drives == {}, "without S3 it is Jupyter's own manager"
    config = Config()
    config.S3ContentsManager.bucket = "old"
    config.S3ContentsManager.endpoint_url = "http://127.0.0.1:1"
    manager = GPUCloudContentsManager(config=config, root_dir=str(tmp_path))
    assert manager.drives["s3"].store.name == "old"
    assert manager.drives["s3"].endpoint_url == "http://127.0.0.1:1"
    monkeypatch.setenv("GPUCLOUD_S3_TEAM_BUCKETS", '{"../x": "b"}')
    with pytest.raises((ValueError, HTTPError)):
        GPUCloudContentsManager(root_dir=str(tmp_path))


async def test_a_file_too_large_to_open_is_refused(own: Drive, alone: Make) -> None:
    own.put("a.bin", b"x" * (2**20 + 1))
    manager = alone(max_open_mb=1)
    with pytest.raises(HTTPError) as refused:
        await manager.get(f"{own.name}/a.bin")
    assert (refused.value.status_code, "Download" in str(refused.value)) == (413, True)
    model = await manager.get(f"{own.name}/a.bin", content=False, require_hash=True)
    assert model["hash"]
