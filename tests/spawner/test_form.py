from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader

import gpucloud_spawner.spawner
from gpucloud_spawner.model.options import OptionError
from gpucloud_spawner.model.profiles import Profile
from gpucloud_spawner.spawner.form import options_from_fields, render_profile_list


def profile(**fields: object) -> Profile:
    given = {"slug": "p", "display_name": "P", "images": {"i": {"image": "img:1"}}}
    return Profile.model_validate({**given, **fields})


GPU = profile(slug="gpu", gpus=[0, 1, 2], default_gpus=1, node_selector={"product": "A100"})
MIG = profile(slug="mig", gpus=[1], gpu_resource="nvidia.com/mig-1g.5gb")
CPU = profile(slug="cpu", display_name="<b>CPU</b>")


def html(profile_list: list[dict[str, Any]], **user_options: str) -> str:
    """The form as KubeSpawner renders it: without any escaping of its own."""
    folder = Path(gpucloud_spawner.spawner.__file__).parent / "templates" / "form"
    form = Environment(loader=FileSystemLoader(folder)).get_template("form.html")
    return form.render(profile_list=profile_list, user_options=user_options)


def test_what_was_chosen_last_is_chosen_again() -> None:
    page = html(render_profile_list([CPU, GPU], []), profile="gpu", gpus="2")
    lines = [" ".join(line.split()) for line in page.split("<")]
    assert [line for line in lines if "selected" in line] == ['option value="2" selected>2']
    assert [line for line in lines if "checked" in line and "gpu" in line]


def test_a_volume_keeps_its_size_unless_another_one_is_chosen() -> None:
    made = render_profile_list([profile(storage=["10Gi", "20Gi"])], [])[0]
    choices = made["profile_options"]["storage"]["choices"]
    assert list(choices) == ["", "10Gi", "20Gi"]
    assert choices[""]["default"]
    assert choices[""]["kubespawner_override"] == {"storage_capacity": "10Gi"}


def test_an_override_adds_to_the_gpus_and_selectors_of_its_profile() -> None:
    override = {"extra_resource_limits": {"rdma/hca": "1"}, "node_selector": {"zone": "b"}}
    fields = {"gpus": [1], "node_selector": {"product": "A100"}, "kubespawner_override": override}
    made = render_profile_list([profile(**fields)], [])[0]["kubespawner_override"]
    assert made["extra_resource_limits"] == {"rdma/hca": "1", "nvidia.com/gpu": "1"}
    assert made["node_selector"] == {"zone": "b", "product": "A100"}


def test_every_profile_unsets_the_gpus_and_selectors_of_the_others() -> None:
    _, _, cpu = render_profile_list([GPU, MIG, CPU], [])
    none = {"nvidia.com/gpu": None, "nvidia.com/mig-1g.5gb": None}
    assert cpu["kubespawner_override"]["extra_resource_limits"] == none
    assert cpu["kubespawner_override"]["node_selector"] == {"product": None}


def test_the_chosen_number_of_gpus_becomes_a_limit() -> None:
    gpu = render_profile_list([GPU], [])[0]
    choices = gpu["profile_options"]["gpus"]["choices"]
    assert list(choices) == ["0", "1", "2"]
    assert [c["default"] for c in choices.values()] == [False, True, False]
    limits = choices["2"]["kubespawner_override"]["extra_resource_limits"]
    assert limits == {"nvidia.com/gpu": "2"}


def test_what_leaves_no_choice_is_set_and_not_asked() -> None:
    cpu = render_profile_list([CPU], [])[0]
    assert cpu["profile_options"] == {}
    assert cpu["kubespawner_override"]["image"] == "img:1"
    assert cpu["kubespawner_override"]["storage_capacity"] == "10Gi"


def test_what_is_free_now_is_told_with_the_profile() -> None:
    gpu = render_profile_list([GPU], [], {"gpu": "3 of 4 GPUs free now."})[0]
    assert gpu["description"] == "3 of 4 GPUs free now."


def test_what_an_admin_wrote_is_text_not_markup() -> None:
    page = html(render_profile_list([CPU], ["<i>team</i>", "other"]))
    assert "&lt;b&gt;CPU&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_team_is_asked_for_only_where_there_is_a_choice() -> None:
    assert "team" not in render_profile_list([CPU], ["one"])[0]["profile_options"]
    both = render_profile_list([CPU], ["two", "one"])[0]["profile_options"]["team"]
    assert list(both["choices"]) == ["one", "two"]


def test_the_price_is_shown_with_a_gpu_profile() -> None:
    priced = profile(gpus=[1], price_per_gpu_hour="1.5", description="Fast.")
    assert render_profile_list([priced], [])[0]["description"] == "Fast. 1.50 per GPU-hour."


def test_fields_of_profiles_that_were_not_chosen_are_dropped() -> None:
    fields = {
        "profile": ["gpu"],
        "profile-option-gpu--gpus": ["2"],
        "profile-option-cpu--gpus": ["0"],
        "_xsrf": ["t"],
    }
    assert options_from_fields(fields) == {"profile": "gpu", "gpus": "2"}


def test_plain_and_unknown_parameters_are_kept_for_the_check() -> None:
    fields = {"profile": ["gpu"], "gpus": ["2"], "privileged": ["yes"]}
    assert options_from_fields(fields) == {"profile": "gpu", "gpus": "2", "privileged": "yes"}


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(OptionError, match="once"):
        options_from_fields({"profile": ["gpu", "cpu"]})
