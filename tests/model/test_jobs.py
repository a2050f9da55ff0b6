"""A job's request: what is filled in, what is refused and with which words; its names and ports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.model.gpus import Inventory, Node, Request, why_never_together
from gpucloud_spawner.model.job_request import (
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    JobLimits,
    fingerprint,
    idempotency_key,
    parse_job,
)
from gpucloud_spawner.model.jobs import (
    ROLES,
    JobError,
    JobSpec,
    cluster,
    new_job_id,
    ports_needed,
    rendezvous,
)
from gpucloud_spawner.model.profiles import parse_profiles

PROFILES = parse_profiles(
    [
        {
            "slug": "tensorflow",
            "display_name": "TensorFlow",
            "images": {"tf": {"image": "tf:1"}, "nightly": {"image": "tf:2"}},
            "gpus": [0, 1, 2],
            "default_gpus": 1,
            "cpu_limit": 4,
            "mem_limit": "8G",
        },
        {
            "slug": "secret",
            "display_name": "For some",
            "images": {"tf": {"image": "tf:1"}},
            "groups": ["vision"],
        },
    ]
)
CODE = "a" * 64


def body(**changes: Any) -> dict[str, Any]:
    return {"command": ["python", "train.py"], "code": CODE, "idempotency_key": "k", **changes}


def parse(**changes: Any) -> JobSpec:
    return parse_job(body(**changes), PROFILES, ["vision", "speech"])[0]


def refusal(**changes: Any) -> JobError:
    with pytest.raises(JobError) as caught:
        parse(**changes)
    return caught.value


def test_defaults_are_those_of_the_profile_and_of_the_site() -> None:
    spec = parse()
    assert (spec.profile, spec.image, spec.gpus, spec.team) == ("tensorflow", "tf", 1, "speech")
    assert spec.replicas == {"chief": 0, "worker": 1, "ps": 0, "evaluator": 0}
    assert (spec.timeout_seconds, spec.gang_seconds, spec.retries) == (86400, 600, 1)
    assert spec.name == "train"
    assert not spec.is_distributed


def test_parameter_servers_get_a_coordinator_unless_told_otherwise() -> None:
    assert parse(replicas={"worker": 2, "ps": 1}).replicas["chief"] == 1
    assert parse(replicas={"worker": 2, "ps": 1, "chief": 0}).replicas["chief"] == 0


@pytest.mark.parametrize(
    ("replicas", "deciding"),
    [
        ({"worker": 3}, ("worker",)),
        ({"chief": 1, "worker": 2}, ("chief", "worker")),
        ({"chief": 1, "worker": 2, "ps": 1}, ("chief",)),  # its workers are servers
        ({"chief": 0, "worker": 2, "ps": 1}, ("worker",)),
        ({"chief": 1, "evaluator": 1}, ("chief",)),
    ],
)
def test_whose_success_is_the_jobs(replicas: dict[str, int], deciding: tuple[str, ...]) -> None:
    assert parse(replicas=replicas).deciding_roles == deciding


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": "kube-system"}, "Allowed: name, idempotency_key"),
        ({"node_selector": {}}, "There is no field 'node_selector'"),
        ({"privileged": True}, "There is no field"),
        ({"volumes": []}, "There is no field"),
        ({"bucket": "user-bob"}, "There is no field"),
        ({"image": "evil:1"}, "Allowed: tf, nightly"),
        ({"profile": "other"}, "Allowed: tensorflow, secret"),
        ({"team": "finance"}, "Allowed: speech, vision"),
        ({"gpus": 3}, "Allowed: 0, 1, 2"),
        ({"gpus": "1"}, "gpus must be a whole number"),
        ({"gpus": True}, "gpus must be a whole number"),
        ({"ps_gpus": 7}, "ps_gpus must be one of 0, 1, 2"),
        ({"cpu": "5"}, "at most 4 with profile tensorflow"),
        ({"cpu": "0"}, "above 0"),
        ({"cpu": "many"}, "cores as a string"),
        ({"cpu": 2}, "cores as a string"),
        ({"memory": "9G"}, "at most 8G with profile tensorflow"),
        ({"memory": "1K"}, "at least 16M"),
        ({"memory": "8E"}, 'a size such as "4G"'),
        ({"replicas": {"master": 1}}, "Allowed: chief, worker, ps, evaluator"),
        ({"replicas": {"chief": 2}}, "replicas.chief must be a whole number from 0 to 1"),
        ({"replicas": {"worker": 60, "ps": 5}}, "at most 64 replicas of all roles"),
        ({"replicas": {"ps": 1, "chief": 0}}, "needs a chief or at least one worker"),
        ({"replicas": {"worker": -1}}, "from 0 to 64"),
        ({"replicas": [1]}, "an object such as"),
        ({"command": []}, "a list of strings"),
        ({"command": "rm -rf"}, "a list of strings"),
        ({"command": ["a\0b"]}, "a list of strings"),
        ({"command": ["\ud800"]}, "a list of strings"),
        ({"command": ["x" * 40000]}, "at most 1000 words"),
        ({"code": "A" * 64}, "64 hex digits"),
        ({"code": CODE + "\n"}, "64 hex digits"),
        ({"name": "Train"}, "a-z, 0-9 and single hyphens"),
        ({"name": "1st"}, "beginning with a letter"),
        ({"name": "a--b"}, "single hyphens"),
        ({"name": "x" * 31}, "1 to 30"),
        ({"name": "train\n"}, "1 to 30"),
        ({"env": {"A-B": "1"}}, "letters, digits and _"),
        ({"env": {"A": 1}}, "an object of strings"),
        ({"env": {"A": "\ud800"}}, "an object of strings"),
        ({"env": {"A": "x" * 40000}}, "at most 100 variables"),
        ({"timeout_seconds": 0}, "from 1 to 1209600"),
        ({"gang_seconds": 10**9}, "from 1 to 86400"),
        ({"retries": 21}, "from 0 to 20"),
    ],
)
def test_refusals_say_what_is_allowed(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(**changes).message


@pytest.mark.parametrize("name", [*RESERVED_NAMES, *(f"{p}X" for p in RESERVED_PREFIXES), "aws_x"])
def test_variables_that_decide_about_rights_are_not_the_users(name: str) -> None:
    error = refusal(env={name: "x"})
    assert error.code == "reserved_env"
    assert name in error.message


def test_a_profile_of_a_group_is_only_for_its_members() -> None:
    with pytest.raises(JobError, match="Allowed: tensorflow"):
        parse_job(body(profile="secret"), PROFILES, ["speech"])


def test_what_is_missing_is_named() -> None:
    for key in ("command", "code"):
        with pytest.raises(JobError, match=key):
            parse_job({k: v for k, v in body().items() if k != key}, PROFILES, [])
    for key in (None, "", "x" * 101, "a\nb", 1):
        with pytest.raises(JobError, match="idempotency_key"):
            idempotency_key({"idempotency_key": key})


def test_limits_are_the_sites() -> None:
    limits = JobLimits(max_replicas=2, default_timeout=60, max_timeout=60)
    with pytest.raises(JobError, match="at most 2 replicas"):
        parse_job(body(replicas={"worker": 2, "evaluator": 1}), PROFILES, [], limits)
    assert parse_job(body(), PROFILES, [], limits)[0].timeout_seconds == 60


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "Mnist_Train.py"], "mnist-train"),
        (["python", "src/1.py"], "job"),
        (["./run"], "run"),
        (["python", "x" * 50 + ".py"], "x" * 30),
    ],
)
def test_a_job_without_a_name_is_called_as_its_script(command: list[str], name: str) -> None:
    assert parse(command=command).name == name


def test_the_cluster_has_distinct_ports_and_no_evaluator() -> None:
    spec = parse(replicas={"chief": 1, "worker": 2, "ps": 1, "evaluator": 1})
    found = cluster(spec, "job-1", "ns", 12000)
    assert found == {
        "chief": ["job-1-chief-0.job-1.ns.svc:12000"],
        "worker": ["job-1-worker-0.job-1.ns.svc:12001", "job-1-worker-1.job-1.ns.svc:12002"],
        "ps": ["job-1-ps-0.job-1.ns.svc:12003"],
    }
    # the evaluator has 12004
    assert rendezvous(spec, "job-1", "ns", 12000) == "job-1-chief-0.job-1.ns.svc:12005"
    assert ports_needed(spec) == 6


def test_names_fit_into_a_dns_label() -> None:
    longest = new_job_id("x" * 30)
    assert len(f"{longest}-evaluator-0") <= 63
    assert len(f"{longest}-worker-99-abcde") <= 63  # the pods of an Indexed Job
    assert longest[0].isalpha()


def test_a_repeated_request_is_the_same_whatever_its_order_and_key() -> None:
    one = body(gpus=1, name="a")
    other = dict(reversed(list(one.items()))) | {"idempotency_key": "other"}
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(one | {"gpus": 2})


@given(
    st.fixed_dictionaries({role: st.integers(0, 1) for role in ROLES}),
    st.dictionaries(st.text("ABC_", min_size=1, max_size=5), st.text(max_size=20), max_size=5),
)
def test_a_spec_survives_storage(replicas: dict[str, int], env: dict[str, str]) -> None:
    try:
        spec = parse(replicas=replicas, env=env, cpu="1", memory="1G")
    except JobError:
        return
    assert JobSpec.from_json(spec.to_json()) == spec
    json.loads(spec.to_json())


@pytest.mark.parametrize(
    ("gpus", "number", "words"),
    [
        (1, 6, ""),
        (2, 3, ""),
        (2, 4, "hold at most 3 of them"),
        (3, 2, "hold at most 1 of them"),  # the machine with two GPUs holds none
        (5, 1, "no machine has more than 4"),
    ],
)
def test_what_can_never_run_together(gpus: int, number: int, words: str) -> None:
    nodes = (
        Node("a", {}, capacity=4, used=4),  # in use now, but not for ever
        Node("b", {}, capacity=0, installed=2),  # its device plugin restarts
    )
    found = why_never_together(Inventory("g", nodes, ()), Request("g", gpus, {}), number)
    assert words in found if words else found == ""
