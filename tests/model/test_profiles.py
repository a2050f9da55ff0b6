import pytest

from gpucloud_spawner.model.profiles import Profile, allowed_profiles, parse_profiles


def profile(**fields: object) -> Profile:
    given = {"slug": "p", "display_name": "P", "images": {"i": {"image": "img:1"}}}
    return Profile.model_validate({**given, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"slug": "Has Space"}, "slug"),
        ({"slug": "-x"}, "slug"),
        ({"slug": "tf--big"}, "slug"),
        ({"mem_limit": "8Gi"}, "mem_limit"),
        ({"kubespawner_override": {"image": "x"}}, "field images"),
        ({"images": {}}, "images"),
        ({"gpus": []}, "gpus"),
        ({"gpus": [-1]}, "negative"),
        ({"gpus": [1, 2], "default_gpus": 3}, "default_gpus"),
        ({"storage": ["ten"]}, "quantity"),
        ({"storage": ["0"]}, "positive"),
        ({"storage": ["1Gi"], "default_storage": "2Gi"}, "default_storage"),
        ({"gpu_resource": "gpu"}, "extended resource"),
        ({"price_per_gpu_hour": "-1"}, "price_per_gpu_hour"),
        ({"max_gpus": 4}, "max_gpus"),
    ],
)
def test_a_mistake_in_the_site_file_is_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        profile(**fields)


def test_two_profiles_of_one_slug_are_refused() -> None:
    with pytest.raises(ValueError, match="used twice: p"):
        parse_profiles([profile(), profile(display_name="Q")])


def test_defaults_are_the_first_image_the_fewest_gpus_and_the_first_size() -> None:
    made = profile(gpus=[2, 1], storage=["20Gi", "10Gi"])
    assert (made.image_by_default, made.gpus_by_default, made.storage_by_default) == (
        "i",
        1,
        "20Gi",
    )


def test_a_profile_of_a_group_is_hidden_from_others() -> None:
    everyone, vision = profile(slug="a"), profile(slug="b", groups=["vision"])
    assert allowed_profiles([vision, everyone], set()) == [everyone]
    assert allowed_profiles([vision, everyone], {"vision"}) == [vision, everyone]
