"""Which packages are the user's, found among real ones that pip installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

from gpucloud_labext.errors import LabError
from gpucloud_labext.jobs.packages import BASELINE, Installed, installed_by_user

from .wheels import wheel


def install(target: Path, *words: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose site-packages have `mine` 1.2 from an index."""
    home = tmp_path_factory.mktemp("home")
    wheels = tmp_path_factory.mktemp("wheels")
    wheel(wheels, "mine", "1.2")
    install(home / "site", "--find-links", str(wheels), "mine")
    return home / "site"


def look(site: Path, prefix: Path, root: Path | None = None, out: Iterable[str] = ()) -> Installed:
    found: list[Distribution] = list(distributions(path=[str(site)]))
    return installed_by_user(root or site.parent / "work", out, found, prefix, site.parent)


def test_those_of_the_home_are_the_users(site: Path, tmp_path: Path) -> None:
    assert look(site, tmp_path).requirements == ("mine==1.2",)
    # the image's own lie below its prefix, also where that is in the home
    assert look(site, site.parent).requirements == ()
    assert look(site, tmp_path, out=["Mine"]).requirements == ()


def test_the_images_baseline_decides_where_there_is_one(site: Path, tmp_path: Path) -> None:
    file = tmp_path / BASELINE
    file.parent.mkdir(parents=True)
    file.write_text("mine==1.2\n")
    assert look(site, tmp_path).requirements == ()
    file.write_text("mine==1.1\nothers==1\n")
    assert look(site, tmp_path).requirements == ("mine==1.2",)


def test_the_baseline_of_this_very_environment(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpucloud_labext.jobs.packages"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (tmp_path / BASELINE).parent.mkdir(parents=True)
    (tmp_path / BASELINE).write_text(said)
    assert "boto3==" in said
    assert installed_by_user(tmp_path, prefix=tmp_path).requirements == ()


def copied(site: Path, tmp_path: Path, origin: dict[str, object]) -> Path:
    """`mine` as installed from elsewhere than an index; pip writes such files (PEP 610)."""
    place = tmp_path / "home" / "site"
    info = place / "mine-1.2.dist-info"
    info.mkdir(parents=True)
    metadata = (site / "mine-1.2.dist-info" / "METADATA").read_text()
    (info / "METADATA").write_text(metadata)
    (info / "direct_url.json").write_text(json.dumps(origin))
    (info / "RECORD").write_text("__editable__.mine.pth,,\nmine-1.2.dist-info/METADATA,,\n")
    return place


def test_from_git_it_is_that_commit(site: Path, tmp_path: Path) -> None:
    vcs = {"vcs": "git", "commit_id": "a" * 40, "requested_revision": "main"}
    place = copied(site, tmp_path, {"url": "https://git.example.org/m.git", "vcs_info": vcs})
    wanted = f"mine @ git+https://git.example.org/m.git@{'a' * 40}"
    assert look(place, tmp_path / "prefix").requirements == (wanted,)


def test_editable_inside_the_working_directory_is_imported_from_there(
    site: Path, tmp_path: Path
) -> None:
    work = tmp_path / "home" / "work"
    origin = {"url": f"file://{work}", "dir_info": {"editable": True}}
    place = copied(site, tmp_path, origin)
    (work / "src").mkdir(parents=True)
    (place / "__editable__.mine.pth").write_text(f"{work / 'src'}\n")
    found = look(place, tmp_path / "prefix", work)
    assert found == Installed((), ("src",))


def test_editable_elsewhere_is_refused_in_words(site: Path, tmp_path: Path) -> None:
    origin = {"url": "file:///elsewhere/mine", "dir_info": {"editable": True}}
    place = copied(site, tmp_path, origin)
    with pytest.raises(LabError, match=r"mine .* /elsewhere/mine.*--without-package mine"):
        look(place, tmp_path / "prefix")
    assert look(place, tmp_path / "prefix", out=["mine"]) == Installed()
