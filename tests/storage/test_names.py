"""Names of buckets: valid everywhere, and never the same for two."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.storage.keys import secret_name
from gpucloud_spawner.storage.s3 import check_prefix, team_bucket, user_bucket

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
VALID = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
ODD = ["a", "", "alice", "alice-2", "Alice", "älice", "a.b", "a_b", "a--b", "-a", "a-", "x" * 300]
ODD += ["team-alice", "user-alice", "xn--a", "b-s3alias", "192.168.1.1", "a\n", "a/../b", "🦊"]


@given(st.text(), st.sampled_from(["", "gpucloud-", "a-rather-long-one-"]))
def test_every_name_gives_a_valid_bucket(name: str, prefix: str) -> None:
    for bucket in (user_bucket(name, prefix), team_bucket(name, prefix)):
        assert VALID.fullmatch(bucket)
        assert len(bucket) <= 63
        assert not bucket.endswith(("-s3alias", "--ol-s3"))
        assert bucket.startswith(prefix)
    assert VALID.fullmatch(secret_name(name))
    assert len(secret_name(name)) <= 63


def test_different_names_give_different_buckets() -> None:
    buckets = [make(name) for name in ODD for make in (user_bucket, team_bucket)]
    assert len(set(buckets)) == len(buckets)
    assert user_bucket("alice") == "user-alice", "a plain name stays readable"


@given(st.lists(st.text(max_size=4), unique=True))
def test_short_names_do_not_collide(found: list[str]) -> None:
    assert len({user_bucket(name) for name in found}) == len(found)


@pytest.mark.parametrize("prefix", ["A-", "a..b", "-a", "x" * 19, "xn--", "a_b", "sthree-"])
def test_a_prefix_that_s3_refuses_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(prefix)
