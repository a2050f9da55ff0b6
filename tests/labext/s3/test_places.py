"""Names of places, plans of copies: what is typed, and what it means."""

from __future__ import annotations

import pytest

from gpucloud_labext.errors import LabError
from gpucloud_labext.s3.places import Place, drives, parse

ENVIRONMENT = {
    "GPUCLOUD_S3_BUCKET": "user-ada",
    "GPUCLOUD_S3_TEAM_BUCKETS": '{"vision": "team-vision"}',
}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3", Place("user-ada", "", True)),
        ("s3/", Place("user-ada", "", True)),
        ("s3/a b+%/ü.csv", Place("user-ada", "a b+%/ü.csv")),
        ("s3/data/", Place("user-ada", "data", True)),
        ("s3-vision/x", Place("team-vision", "x")),
        ("s3://other-bucket/x//y", Place("other-bucket", "x/y")),
        ("s3://other-bucket", Place("other-bucket", "", True)),
        ("s3-speech/x", Place("", "s3-speech/x")),  # no team of hers: a folder on the disk
        ("./s3/x", Place("", "./s3/x")),
        ("s3x", Place("", "s3x")),
        ("~/data/", Place("", "~/data/", True)),
    ],
)
def test_names(text: str, place: Place) -> None:
    assert parse(text, ENVIRONMENT) == place


@pytest.mark.parametrize("text", ["s3://", "s3:///x", "s3://A_B/x", "s3/../x", "s3/./x", ""])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(LabError) as error:
        parse(text, ENVIRONMENT)
    assert (error.value.status, error.value.code) == (400, "usage")


def test_without_a_bucket_s3_is_a_folder_like_others() -> None:
    assert parse("s3/x", {}) == Place("", "s3/x")


@pytest.mark.parametrize("teams", ["", "{}", "not json", "[]"])
def test_drives_are_those_of_the_environment(teams: str) -> None:
    environment = {"GPUCLOUD_S3_BUCKET": "user-ada", "GPUCLOUD_S3_TEAM_BUCKETS": teams}
    assert drives(environment) == {"s3": "user-ada"}
    assert drives(ENVIRONMENT) == {"s3": "user-ada", "s3-vision": "team-vision"}
    assert drives({}) == {}
