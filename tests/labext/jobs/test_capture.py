"""What travels with a job and what does not."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_labext.errors import LabError
from gpucloud_labext.jobs.capture import capture
from gpucloud_labext.jobs.manifest import BadManifest, File, Manifest, inside


def make(root: Path, *names: str, **contents: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(contents.get(name, name))
    return root


def names(root: Path) -> list[str]:
    return [file.path for file in capture(root).files]


def test_ignored_as_git_does_it(tmp_path: Path) -> None:
    """The oracle is git itself."""
    root = make(
        tmp_path,
        *("train.py", "data/big.bin", "data/keep.csv", "out/a.log", "lib/x.py", "lib/gen/y.py"),
        *("lib/gen/keep.py", "a b/c.txt", "deep/out/z", "#odd", "notes.txt", "deep/notes.txt"),
    )
    (root / ".gitignore").write_text("*.bin\nout/\n/notes.txt\n!data/keep.csv\n\\#odd\n")
    (root / "lib" / ".gitignore").write_text("gen/*\n!gen/keep.py\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert names(root) == sorted(name for name in listed.split("\0") if name)
    assert "lib/gen/keep.py" in names(root) and "deep/out/z" not in names(root)


def test_rules_above_in_the_repository_count(tmp_path: Path) -> None:
    root = make(tmp_path / "repo", "sub/train.py", "sub/data.bin", "sub/only/here.txt")
    (root / ".gitignore").write_text("*.bin\n/sub/only\n")
    assert "data.bin" in names(root / "sub")  # no repository: nobody asked for that file
    (root / ".git").mkdir()
    assert names(root / "sub") == ["train.py"]


def test_a_repository_that_the_home_lies_in_is_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make run` in a clone: homes are below a folder that the clone ignores."""
    make(tmp_path, "data/home/jobs/train.py", "data/home/jobs/x.bin", ".git/config")
    (tmp_path / ".gitignore").write_text("/data/\n*.bin\n")
    home = tmp_path / "data" / "home"
    monkeypatch.setenv("HOME", str(home))
    assert names(home / "jobs") == ["train.py", "x.bin"]
    # one in the home is, up to the home itself
    make(home, ".git/config")
    (home / ".gitignore").write_text("*.bin\n")
    assert names(home / "jobs") == ["train.py"]


def test_gpucloudignore_has_the_last_word(tmp_path: Path) -> None:
    root = make(tmp_path, "train.py", "weights.bin", "notes.md")
    (root / ".gitignore").write_text("*.bin\n")
    (root / ".gpucloudignore").write_text("!weights.bin\n*.md\n.gitignore\n.gpucloudignore\n")
    assert names(root) == ["train.py", "weights.bin"]


def test_caches_and_version_control_stay(tmp_path: Path) -> None:
    make(tmp_path, "a.py", ".git/config", "x/__pycache__/a.pyc", ".ipynb_checkpoints/a.ipynb")
    assert names(tmp_path) == ["a.py"]


def test_hidden_files_of_the_home_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.py", ".ssh/id", ".netrc", "project/.env")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(tmp_path) == ["a.py", "project/.env"]
    assert names(tmp_path / "project") == [".env"]


def test_links(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "data/a.txt", "sub/b.txt")
    (root / "near").symlink_to("data/a.txt")
    (root / "sub" / "up").symlink_to("../data")
    (root / "full").symlink_to(root / "data" / "a.txt")
    links = {file.path: file.target for file in capture(root).files if file.target}
    assert links == {"near": "data/a.txt", "sub/up": "../data", "full": "data/a.txt"}
    (root / "away").symlink_to("../other")
    with pytest.raises(LabError, match=r"away is a link to \.\./other, outside"):
        capture(root)
    (root / ".gpucloudignore").write_text("away\n")
    capture(root)
    # a way out through another link
    (root / "sub" / "sly").symlink_to("up/../../../other")
    with pytest.raises(LabError, match="sub/sly"):
        capture(root)


def test_too_much_names_the_largest(tmp_path: Path) -> None:
    make(tmp_path, "small.py", "big.bin", "bigger.bin")
    (tmp_path / "big.bin").write_bytes(b"x" * 2000)
    (tmp_path / "bigger.bin").write_bytes(b"x" * 3000)
    with pytest.raises(LabError, match=r"bigger\.bin .*big\.bin .*\.gpucloudignore") as caught:
        capture(tmp_path, max_bytes=4000)
    assert caught.value.details["largest"][0] == "bigger.bin"
    with pytest.raises(LabError, match="more than 2 files"):
        capture(tmp_path, max_files=2)


def test_no_files_are_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path, "a.py")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(tmp_path / "socket"))
        assert capture(tmp_path).skipped == ("pipe", "socket")


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path, "train.py", "lost+found/x", "theirs/x")
    listing = os.scandir

    def scandir(folder: Path) -> Any:
        if folder.name in ("lost+found", "theirs"):  # root, as whom tests may run, reads all
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(LabError, match=r"theirs cannot be read \(Permission denied\)"):
        capture(root)
    (root / ".gpucloudignore").write_text("theirs\n")
    assert names(root) == [".gpucloudignore", "train.py"]


def test_the_same_tree_has_the_same_name(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1", "b.py", "a/c.py"), make(tmp_path / "2", "a/c.py", "b.py")
    os.utime(two / "b.py", (1, 1))
    first, second = Manifest(capture(one).files), Manifest(capture(two).files)
    assert first.sha256 == second.sha256
    (two / "b.py").chmod(0o755)
    assert Manifest(capture(two).files).sha256 != first.sha256
    assert Manifest(first.files, packages=("x==1",)).sha256 != first.sha256


@given(
    files=st.dictionaries(
        st.from_regex(r"[a-z]{1,4}(/[a-zäß ]{1,4}){0,2}", fullmatch=True),
        st.binary(min_size=32, max_size=32),
        max_size=5,
    )
)
def test_manifests_survive_the_journey(files: dict[str, bytes]) -> None:
    entries = tuple(File(path, data.hex(), 1, data[0] > 128) for path, data in files.items())
    manifest = Manifest(tuple(sorted(entries)), ("a==1",), ("src",))
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "files",
    [
        [File("/etc/passwd", "0" * 64)],
        [File("../x", "0" * 64)],
        [File("a/../../x", "0" * 64)],
        [File("a", "0" * 64), File("a", "1" * 64)],
        [File("a", "none")],
        [File("a", target="../x")],
        [File("a", target="/etc")],
        [File("a", target="b"), File("a/x", "0" * 64)],
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(files: list[File]) -> None:
    with pytest.raises(BadManifest):
        Manifest.from_json(Manifest(tuple(files)).to_json())


def test_inside() -> None:
    assert inside("", "a/../b") and inside("x/y", "../../a")
    assert not inside("", "a/../../b") and not inside("x", "../../a") and not inside("", "/a")
