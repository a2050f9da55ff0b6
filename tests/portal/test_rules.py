"""The parts that need no hub: rights, input, settings, charts, the GPUs of a cluster."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.metering.observe import GPUResources
from gpucloud_spawner.portal.auth import Caller, Need, visible_filters
from gpucloud_spawner.portal.charts import Bar, bar_chart, gauge, nice_top
from gpucloud_spawner.portal.contract import Field, read_parameters
from gpucloud_spawner.portal.errors import PortalError
from gpucloud_spawner.portal.gpus import describe_gpus
from gpucloud_spawner.portal.settings import SettingsError, load_settings, read_config

ACCESS = "access:services!service=gpucloud"


@pytest.mark.parametrize(
    ("scopes", "is_admin"),
    [
        ([ACCESS, "admin:users"], True),
        ([ACCESS, "custom:gpucloud:admin"], True),
        (["admin:users"], False),  # may not use the service at all
        ([ACCESS, "admin:users!group=vision"], False),
        ([ACCESS, "admin:users!user=ada"], False),
        ([ACCESS, "admin-ui"], False),
        ([ACCESS, "custom:gpucloud:admin!user=ada"], False),
        (["access:services!service=gpucloud2", "admin:users"], False),
        ([ACCESS], False),
    ],
)
def test_an_administrator_holds_a_whole_scope(scopes: list[str], is_admin: bool) -> None:
    model = {"kind": "user", "name": "ada", "groups": [], "scopes": scopes, "admin": True}
    assert Caller.from_model(model).is_admin is is_admin


def test_a_service_is_nobody_s_namesake() -> None:
    caller = Caller.from_model({"kind": "service", "name": "ada", "scopes": [ACCESS]})
    assert (caller.user, caller.actor) == ("", "service ada")
    with pytest.raises(PortalError):
        visible_filters({}, caller, ())


names = st.sampled_from(["ada", "bob", ""])
teams = st.sampled_from(["vision", "speech", ""])
filters = st.fixed_dictionaries(
    {},
    optional={
        "user": st.lists(names, max_size=3).map(tuple),
        "team": st.lists(teams, max_size=3).map(tuple),
        "app": st.just(("x",)),
    },
)


@given(filters, names, st.sets(st.sampled_from(["vision", "speech"])))
def test_nobody_but_admins_gets_rows_of_others(
    asked: dict[str, tuple[str, ...]], user: str, mine: set[str]
) -> None:
    caller = Caller(name=user, user=user, groups=frozenset(), is_admin=False)
    try:
        allowed = visible_filters(asked, caller, mine)
    except PortalError as error:
        assert error.status == 403
        return
    only_self = bool(user) and bool(allowed.get("user")) and set(allowed["user"]) == {user}
    only_teams = bool(allowed.get("team")) and set(allowed["team"]) <= mine
    assert only_self or only_teams
    assert {k: v for k, v in allowed.items() if k in asked} == asked


def test_every_need_but_nothing_needs_something() -> None:
    for need in Need:
        assert need.is_met(set()) is (need is Need.NOTHING)


@given(st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=30), max_size=3), max_size=4))
def test_parameters_are_refused_or_of_their_kind(asked: dict[str, list[str]]) -> None:
    fields = (
        Field("n", "", "integer"),
        Field("m", "", many=True),
        Field("f", "", allowed=("a", "b")),
    )
    try:
        values = read_parameters(fields, asked)
    except PortalError as error:
        assert error.status == 400
        return
    assert set(values) <= {"n", "m", "f"}
    assert isinstance(values.get("n", 0), int)
    assert isinstance(values.get("m", ()), tuple)
    assert values.get("f", "a") in ("a", "b")


def configured(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(
        "c = get_config()\nfrom gpucloud_spawner import configure\nconfigure(c)\n" + text
    )
    return load_settings(read_config(file), {})


def test_the_service_reads_the_hub_s_own_file(tmp_path: Path) -> None:
    profile = '{"slug": "a", "display_name": "A", "images": {"i": {"image": "i"}}, '
    profile += '"gpu_resource": "amd.com/gpu", "price_per_gpu_hour": "2.5"}'
    settings = configured(
        tmp_path,
        f"c.GPUCloudSpawner.profiles = [{profile}]\n"
        "c.GPUCloudSpawner.namespace = 'lab'\n"
        "c.JupyterHub.db_url = 'hub.sqlite'\n"
        "c.GPUCloudPortal.user_budgets = {'*': 1.5, 'ada': 3}\n",
    )
    assert settings.namespace == "lab"
    assert settings.db_url == "sqlite:///hub.sqlite"
    assert settings.gpu_prices == {"a": Decimal("2.5")}
    assert settings.gpus.names == {"nvidia.com/gpu", "amd.com/gpu"}
    assert settings.budgets.of_user("bob") == Decimal("1.5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("c.GPUCloudPortal.user_budget = {}", "user_budget is no setting"),
        ("c.GPUCloudPortal.user_budgets = {'ada': 'much'}", "'much' of 'ada' is not a number"),
        ("c.GPUCloudPortal.team_budgets = {'vision': -1}", "budget of vision"),
        ("c.GPUCloudPortal.user_budgets = {'ada': float('nan')}", "budget of ada"),
        ("c.GPUCloudPortal.storage_price_per_gib_hour = 'free'", "'free' is not a price"),
        ("c.GPUCloudPortal.currency_digits = 20", "currency_digits"),
        ("c.GPUCloudSpawner.profiles = [{'slug': 'A'}]", "slug"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        configured(tmp_path, text)


def node(name: str, gpus: int, product: str = "T4", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": spec,
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(name: str, gpus: int, on: str = "", **notes: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "gpucloud",
            "uid": name,
            "creationTimestamp": "2026-11-23T14:00:00Z",
            "annotations": {f"gpucloud.io/{k}": v for k, v in notes.items()},
        },
        "spec": {
            "nodeName": on or None,
            "containers": [{"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
        },
    }


def test_free_counts_only_machines_that_take_pods() -> None:
    nodes = [node("a", 4), node("b", 4, unschedulable=True), node("c", 2, "A100")]
    pods = [pod("p", 1, "a", user="ada", team="vision"), pod("q", 2, "b"), pod("w", 3)]
    inventory = describe_gpus(GPUResources(), nodes, pods)
    rows = {row.product: row for row in inventory.products}
    assert (rows["T4"].capacity, rows["T4"].used, rows["T4"].free) == (8, 3, 3)
    assert (rows["A100"].capacity, rows["A100"].free) == (2, 2)
    assert rows["T4"].pending_gpus == 3
    told = inventory.as_json(with_holders=True)
    assert told["nodes"][0]["used_by"][0]["user"] == "ada"
    assert told["nodes"][1]["used_by"][0]["user"] == ""
    assert "ada" not in str(inventory.as_json(with_holders=False))


@given(st.floats(min_value=0, max_value=1e12))
def test_a_scale_reaches_its_value_and_not_ten_times(value: float) -> None:
    top = nice_top(value)
    assert value <= top * (1 + 1e-6)
    assert top <= (max(0.001, value) * 2.5 * (1 + 1e-6) if value else 1.0)


def test_charts_escape_and_stay_inside() -> None:
    drawn = bar_chart([Bar("<b>", 3.0, '"><script>')], "<i>")
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert 'class="full" width="100.00"' in gauge(7.0, "")
    assert 'class="near"' in gauge(0.8, "")
    assert 'class="fine" width="0.00"' in gauge(-1.0, "")
