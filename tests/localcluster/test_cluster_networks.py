"""Two local clusters on one machine do not share pod addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucloud_spawner.localcluster import networks
from gpucloud_spawner.localcluster.networks import Networks


def test_clusters_have_networks_of_their_own_and_keep_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Networks(tmp_path / "a", 2) as a, Networks(tmp_path / "b", 2) as b:
        assert len({*a.cidrs, *b.cidrs}) == 4
        kept = b.cidrs
    with Networks(tmp_path / "b", 2) as b:
        assert b.cidrs == kept
    with Networks(tmp_path / "b", 3) as b:
        assert b.cidrs[:2] == kept


def test_there_is_an_end_to_them(tmp_path: Path) -> None:
    every = networks.LAST - networks.FIRST + 2
    with pytest.raises(RuntimeError, match="no free loopback network"), Networks(tmp_path, every):
        pass
    with Networks(tmp_path, 1) as again:  # nothing is held after the failure
        assert again.cidrs
