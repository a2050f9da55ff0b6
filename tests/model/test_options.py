from typing import Any

import pytest

from gpucloud_spawner.model.options import OptionError, resolve_options
from gpucloud_spawner.model.profiles import Profile

TENSORFLOW = Profile.model_validate(
    {
        "slug": "tensorflow",
        "display_name": "TensorFlow",
        "images": {"tf": {"image": "tf:1"}, "torch": {"image": "torch:1"}},
        "gpus": [0, 1, 2],
        "default_gpus": 1,
        "storage": ["10Gi", "20Gi"],
    }
)
SECRET = Profile.model_validate(
    {
        "slug": "secret",
        "display_name": "S",
        "images": {"s": {"image": "s:1"}},
        "groups": ["vision"],
    }
)
PROFILES = [TENSORFLOW, SECRET]


def test_nothing_asked_for_gives_every_default() -> None:
    choice = resolve_options({}, PROFILES, [])
    assert choice.profile is TENSORFLOW
    assert (choice.image, choice.gpus, choice.storage, choice.team) == ("tf:1", 1, "10Gi", "")
    assert not choice.storage_chosen


def test_what_was_asked_for_is_given() -> None:
    asked = {"profile": "tensorflow", "image": "torch", "gpus": "2", "storage": "20Gi", "team": "b"}
    choice = resolve_options(asked, PROFILES, ["b", "a"])
    assert (choice.image, choice.gpus, choice.storage, choice.team) == ("torch:1", 2, "20Gi", "b")
    assert choice.storage_chosen


def test_the_first_of_the_own_teams_is_the_default() -> None:
    assert resolve_options({}, PROFILES, ["zeta", "alpha"]).team == "alpha"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpus": "3"}, "gpus '3' is not offered by profile tensorflow. Allowed: 0, 1, 2."),
        ({"gpus": "-1"}, "Allowed: 0, 1, 2"),
        ({"gpus": "01"}, "Allowed: 0, 1, 2"),
        ({"gpus": " 1"}, "Allowed: 0, 1, 2"),
        ({"gpus": 1}, "gpus must be a string, not int"),
        ({"gpus": ["1"]}, "gpus must be a string, not list"),
        ({"profile": None}, "profile must be a string, not NoneType"),
        ({"image": "evil/image:1"}, "Allowed: tf, torch"),
        ({"profile": "secret"}, "Profile 'secret' is not offered to you. Allowed: tensorflow."),
        ({"profile": "TensorFlow"}, "Allowed: tensorflow"),
        ({"storage": "1Ti"}, "Allowed: 10Gi, 20Gi"),
        ({"team": "others"}, "Allowed: none"),
        ({"node_selector": "x"}, "Unknown option 'node_selector'. Allowed options: profile, team"),
        ({"image--unlisted-choice": "x"}, "Unknown option"),
    ],
)
def test_what_is_not_on_offer_is_refused_with_what_is(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as refused:
        resolve_options(options, PROFILES, [])
    assert said in str(refused.value)


@pytest.mark.parametrize("key", ["profile", "image", "x" * 10_000])
def test_a_refusal_does_not_repeat_an_endless_value(key: str) -> None:
    with pytest.raises(OptionError) as refused:
        resolve_options({key: "y" * 10_000}, PROFILES, [])
    assert len(str(refused.value)) < 300


def test_a_member_may_use_the_profile_of_his_group() -> None:
    assert resolve_options({"profile": "secret"}, PROFILES, ["vision"]).profile is SECRET


def test_a_user_without_any_profile_is_told_whom_to_ask() -> None:
    with pytest.raises(OptionError, match="Ask an administrator"):
        resolve_options({}, [SECRET], [])
