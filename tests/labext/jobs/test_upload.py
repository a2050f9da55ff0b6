"""Code on its way: into the bucket by content, out of it into a replica's folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpucloud_labext.errors import LabError
from gpucloud_labext.jobs.capture import capture
from gpucloud_labext.jobs.manifest import Manifest, blob_key, key_of
from gpucloud_labext.jobs.store import Store
from gpucloud_labext.jobs.upload import Uploaded, upload
from gpucloud_labext.replica.contract import Failure
from gpucloud_labext.replica.workspace import fetch


def send(store: Store, root: Path) -> Uploaded:
    captured = capture(root)
    return upload(store, captured, Manifest(captured.files))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text(f"print({str(tmp_path)!r})")  # no other test's content
    (root / "pkg" / "empty.py").touch()
    (root / "run.sh").write_text(f"#!/bin/sh\n# {tmp_path}\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("pkg")
    return root


@pytest.mark.parametrize("count", [3, 100])
def test_only_what_is_new_is_sent(bucket: Store, tree: Path, count: int) -> None:
    """Few files are asked for one by one, many by a listing."""
    for number in range(count):
        (tree / f"f{number}.txt").write_text(f"{tree} {number}")
    first = send(bucket, tree)
    assert first.sent_files >= count + 2
    again = send(bucket, tree)
    assert (again.sha256, again.sent_files, again.sent_bytes) == (first.sha256, 0, 0)
    (tree / "train.py").write_text("changed " + str(tree))
    third = send(bucket, tree)
    assert third.sent_files == 1 and third.sha256 != first.sha256


def test_what_arrives_is_what_was_sent(bucket: Store, tree: Path, tmp_path: Path) -> None:
    big = bytes(range(256)) * 4096 * 10
    (tree / "big.bin").write_bytes(big)
    sent = send(bucket, tree)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "of an earlier start").touch()
    fetch(bucket, sent.sha256, copy)
    assert capture(copy).files == capture(tree).files
    assert (copy / "big.bin").read_bytes() == big
    assert (copy / "link").readlink() == Path("pkg")


def test_two_launches_at_once_do_no_harm(bucket: Store, tree: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda _: send(bucket, tree), range(4)))
    assert len({one.sha256 for one in sent}) == 1
    fetch(bucket, sent[0].sha256, tmp_path / "copy")


def test_a_broken_upload_is_completed(bucket: Store, tree: Path, tmp_path: Path) -> None:
    sent = send(bucket, tree)
    digest = next(f.sha256 for f in capture(tree).files if f.path == "train.py")
    bucket.delete([blob_key(digest)])
    with pytest.raises(Failure, match=r"train\.py .* is not there"):
        fetch(bucket, sent.sha256, tmp_path / "copy")
    assert send(bucket, tree).sent_files == 1
    fetch(bucket, sent.sha256, tmp_path / "copy")


def test_what_was_changed_in_the_bucket_is_not_run(
    bucket: Store, tree: Path, tmp_path: Path
) -> None:
    sent = send(bucket, tree)
    digest = next(f.sha256 for f in capture(tree).files if f.path == "train.py")
    good = bucket.get(blob_key(digest))
    assert good is not None
    bucket.put(blob_key(digest), b"print('something else')")
    with pytest.raises(Failure, match="is not what was sent"):
        fetch(bucket, sent.sha256, tmp_path / "copy")
    bucket.put(blob_key(digest), good)
    manifest = bucket.get(key_of(sent.sha256))
    assert manifest is not None
    bucket.put(key_of(sent.sha256), manifest.replace(b"train.py", b"other.py"))
    with pytest.raises(Failure, match="was changed since the launch"):
        fetch(bucket, sent.sha256, tmp_path / "copy")


def test_a_file_that_changes_meanwhile_is_told(bucket: Store, tree: Path) -> None:
    captured = capture(tree)
    (tree / "train.py").write_text(f"written to {tree}")
    with pytest.raises(LabError, match="was changed while it was sent"):
        upload(bucket, captured, Manifest(captured.files))


def test_content_without_a_file(bucket: Store, tree: Path, tmp_path: Path) -> None:
    captured = capture(tree).with_file("cell.py", b"print('cell')")
    sent = upload(bucket, captured, Manifest(captured.files))
    fetch(bucket, sent.sha256, tmp_path / "copy")
    assert (tmp_path / "copy" / "cell.py").read_text() == "print('cell')"
