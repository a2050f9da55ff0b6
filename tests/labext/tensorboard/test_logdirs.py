"""Which log directories are the user's: whole parts, after symlinks are resolved."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_labext.errors import LabError
from gpucloud_labext.tensorboard import logdirs

DRIVES = {"s3": "alice", "s3-vision": "team-vision"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "alice"
    (home / "runs" / "one").mkdir(parents=True)
    (home / "file").touch()
    (tmp_path / "alice-2" / "runs").mkdir(parents=True)
    (home / "out").symlink_to(tmp_path / "alice-2")
    (home / "in").symlink_to(home / "runs")
    (home / "loop").symlink_to(home / "loop")
    return home


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("runs", "runs"),
        ("./runs/one/", "runs/one"),
        ("in/one", "runs/one"),
        ("not/yet/there", "not/yet/there"),
        (".", "."),
        ("s3://alice/runs/", "s3://alice/runs"),
        ("s3://alice", "s3://alice/"),
        ("s3://team-vision/a b", "s3://team-vision/a b"),
        ("s3/runs", "s3://alice/runs"),
        ("s3-vision", "s3://team-vision/"),
    ],
)
def test_what_is_the_users_is_found(home: Path, given_text: str, text: str) -> None:
    assert logdirs.find(given_text, home, DRIVES).text == text


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 400, "empty"),
        (" ", 400, "empty"),
        ("../alice-2", 400, "seen from your home"),
        ("runs/../../alice-2", 400, "seen from your home"),
        ("/etc", 400, "seen from your home"),
        ("~/runs", 400, "seen from your home"),
        ("out", 403, "outside of your home"),
        ("out/runs", 403, "outside of your home"),
        ("file", 400, "is a file"),
        ("loop", 400, "cannot be opened"),
        ("a\0b", 400, "control characters"),
        ("a\nb", 400, "control characters"),
        ("\udc80", 400, "not valid text"),
        ("x" * 10_000, 400, "10000 bytes"),
        ("y/" + "x" * 300, 400, "over 255 bytes"),
        ("s3://alice-2/runs", 403, "s3://alice/, s3://team-vision/"),
        ("s3://alic", 403, "not a bucket of yours"),
        ("s3://", 403, "not a bucket of yours"),
        ("s3://alice/a/../b", 400, "'..'"),
        ("s3://alice/a//b", 400, "empty part"),
        ("gs://alice/a", 400, "only s3://"),
        ("file:///etc", 400, "only s3://"),
    ],
)
def test_what_is_not_is_refused_in_words(home: Path, text: str, status: int, words: str) -> None:
    with pytest.raises(LabError) as refused:
        logdirs.find(text, home, DRIVES)
    assert refused.value.status == status
    assert words in refused.value.message
    assert len(refused.value.message) < 600


def test_without_a_bucket_no_s3(home: Path) -> None:
    with pytest.raises(LabError, match="no S3 bucket"):
        logdirs.find("s3://alice/runs", home, {})


@given(text=st.text(max_size=60), prefix=st.sampled_from(["", "runs/", "out/", "../", "s3://"]))
def test_whatever_is_asked_for_nothing_outside_is_found(
    tmp_path_factory: pytest.TempPathFactory, text: str, prefix: str
) -> None:
    home = tmp_path_factory.getbasetemp() / "someones-home"
    (home / "runs").mkdir(parents=True, exist_ok=True)
    out = home / "out"
    if not out.is_symlink():
        out.symlink_to("/")
    try:
        found = logdirs.find(prefix + text, home, DRIVES)
    except LabError as error:
        assert 400 <= error.status < 500
        return
    if found.path is None:
        assert found.bucket in DRIVES.values()
        assert not {"..", "."} & set(found.prefix.split("/"))
    else:
        assert found.path == home.resolve() or home.resolve() in found.path.parents
