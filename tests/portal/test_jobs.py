"""Jobs over REST: what cannot be passed, who sees what, and real replicas on a real cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from traitlets.config import Config

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.tables import INTERVAL
from tests.e2e.cloud import wait_for

from .conftest import interval
from .inprocess import ACCESS, ADMIN, PREFIX, Hub, Service, person, robot, serving
from .jobs import IMAGES, Ask, body, launch, over, upload

# by their tokens
PEOPLE = {
    "ada": person("ada", "vision"),
    "ann": person("ann"),
    "bob": person("bob"),
    "dora": person("dora", "speech"),
    "vera": person("vera", "vision"),
    "zoe": person("zoe"),
    "admin": person("admin", scopes=(ACCESS, "admin:users")),
    "without-access": person("ada", "vision", scopes=()),
    "namesake": robot("ada"),
    "auditor": robot("auditor", ADMIN),
}
GROUPS = [
    {"name": "vision", "properties": {"gpucloud_admins": ["vera"]}},
    {"name": "speech", "properties": {}},
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = Config()
    config.GPUCloudSpawner.profiles = [
        {"slug": "cpu", "display_name": "CPU", "images": IMAGES, "mem_limit": "4G"},
        {
            "slug": "tensorflow",
            "display_name": "GPU",
            "images": IMAGES,
            "gpus": [0, 1, 2],
            "price_per_gpu_hour": "1.50",
        },
        {"slug": "theirs", "display_name": "Speech", "images": IMAGES, "groups": ["speech"]},
    ]
    config.GPUCloudPortal.user_budgets = {"zoe": 1000}
    config.GPUCloudPortal.currency = "CHF"
    with serving(tmp_path_factory.mktemp("service"), Hub(PEOPLE, GROUPS), config) as found:
        wait_for(lambda: found.ask("admin", "api/prices").status_code == 200, "the ledger is open")
        yield found


@pytest.fixture(scope="module")
def ask(service: Service) -> Ask:
    return service.ask


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": "kube-system"},
        {"image": "docker.io/evil:1"},
        {"node_selector": {"kubernetes.io/hostname": "node-0"}},
        {"nodeSelector": {}},
        {"privileged": True},
        {"security_context": {"privileged": True}},
        {"volumes": [{"hostPath": {"path": "/"}}]},
        {"host_path": "/etc"},
        {"service_account": "admin"},
        {"bucket": "user-bob"},
        {"user": "bob"},
        {"env": {"GPUCLOUD_S3_BUCKET": "user-bob"}},
        {"env": {"AWS_ACCESS_KEY_ID": "x"}},
        {"env": {"NVIDIA_VISIBLE_DEVICES": "all"}},
        {"env": {"X": {"valueFrom": {"secretKeyRef": {"name": "gpucloud-s3-bob", "key": "y"}}}}},
        {"team": "vision"},  # not hers
        {"profile": "nonsense"},
        {"profile": "theirs"},
        {"gpus": 1},  # not with this profile
        {"memory": "500G"},
        {"name": "../../etc"},
        {"code": "../../user-bob/x"},
        {"command": "sh -c true"},
        {"replicas": {"worker": 100000}},
        {"idempotency_key": ""},
    ],
    ids=str,
)
def test_what_cannot_be_passed(ask: Ask, changes: dict[str, Any]) -> None:
    before = ask("ann", "api/jobs").json()["jobs"]
    answer = ask("ann", "api/jobs", "POST", json=body(**changes))
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"code", "message", "details"}
    assert ask("ann", "api/jobs").json()["jobs"] == before


def test_more_than_the_cluster_could_ever_hold_is_refused(ask: Ask) -> None:
    wanted = body(profile="tensorflow", gpus=2, replicas={"worker": 3})
    answer = ask("ann", "api/jobs", "POST", json=wanted)
    assert (answer.status_code, answer.json()["code"]) == (400, "impossible")
    assert "hold at most 2 of them" in answer.json()["message"]


def test_a_used_up_budget_refuses_gpus_before_anything_is_made(ask: Ask, service: Service) -> None:
    now = int(time.time()) - 5
    row = interval(owner="zoe", start_at=now - 3600, end_at=now, gpus=1001)
    with db.writing(service.engine).begin() as connection:
        connection.execute(insert(INTERVAL), [row])
    answer = ask("zoe", "api/jobs", "POST", json=body(profile="tensorflow", gpus=1))
    assert (answer.status_code, answer.json()["code"]) == (403, "budget")
    assert ask("zoe", "api/jobs").json()["jobs"] == []


def test_a_repeated_request_launches_nothing_twice(ask: Ask) -> None:
    wanted = body()
    first = ask("ann", "api/jobs", "POST", json=wanted)
    again = ask("ann", "api/jobs", "POST", json=wanted)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = ask("ann", "api/jobs", "POST", json={**wanted, "retries": 3})
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    assert other.json()["details"]["job"] == first.json()["id"]
    over(ask, "ann", first.json())


def test_a_service_launches_no_job(ask: Ask) -> None:
    for who in ("namesake", "auditor"):
        assert ask(who, "api/jobs", "POST", json=body()).status_code == 403


def test_code_that_is_not_there_is_told_with_the_replica(ask: Ask) -> None:
    found = over(ask, "ann", launch(ask, "ann", name="nothing"))
    assert found["state"] == "failed"
    assert found["failure"]["replica"] == "worker-0"
    assert found["failure"]["exit_code"] == 80
    assert found["name"] == "nothing"
    assert found["replicas"][0]["state"] == "failed"
    path = f"api/jobs/{found['id']}"
    lines = {who: ask(who, path).json()["failure"]["lines"] for who in ("ann", "admin", "auditor")}
    assert lines["ann"] == lines["admin"] and "could not be fetched" in lines["ann"][-1]
    assert lines["auditor"] == []  # who may not read the log


@pytest.fixture(scope="module")
def adas(ask: Ask) -> dict[str, Any]:
    """A job of ada's that is billed to her team and goes on; its first line is told."""
    script = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
    code = upload(ask, "ada", script)
    job = launch(ask, "ada", team="vision", code=code, profile="tensorflow", gpus=1)
    path = f"api/jobs/{job['id']}/logs"
    wait_for(lambda: "begun" in ask("ada", path).text, "it trains")
    return job


@pytest.mark.parametrize(
    ("who", "see", "rule"),
    [
        ("ada", 200, 200),
        ("bob", 404, 404),
        ("dora", 404, 404),
        ("namesake", 404, 404),  # a service that has her name
        ("without-access", 403, 403),
        ("nobody", 401, 401),
        ("vera", 200, 403),  # administrator of the team
        ("auditor", 200, 403),  # sees all use, rules nothing
        ("admin", 200, 200),
    ],
)
def test_whose_job_it_is(ask: Ask, adas: dict[str, Any], who: str, see: int, rule: int) -> None:
    path = f"api/jobs/{adas['id']}"
    assert ask(who, path).status_code == see
    logs = ask(who, f"{path}/logs")
    assert logs.status_code == rule
    assert ("begun" in logs.text) == (rule == 200)
    if rule != 200:
        assert ask(who, path, "DELETE").status_code == rule
    listed = ask(who, "api/jobs")
    if see in (200, 404) and who != "namesake":
        seen = adas["id"] in [job["id"] for job in listed.json()["jobs"]]
        assert seen == (who in ("ada", "auditor", "admin"))
    assert ask("ada", path).json()["state"] == "running"


@pytest.mark.parametrize(
    ("who", "question", "status", "sees"),
    [
        ("vera", "team=vision", 200, True),
        ("vera", "user=ada", 200, True),
        ("vera", "team=speech", 403, None),
        ("bob", "user=ada", 403, None),
        ("bob", "team=vision", 403, None),
        ("ada", "user=ada&state=running", 200, True),
        ("ada", "state=failed&state=stopped", 200, False),
        ("ada", "state=odd", 400, None),
        ("ada", "page_size=0", 400, None),
        ("ada", "cursor=x", 400, None),
        ("admin", "user=ada", 200, True),
        ("admin", "user=bob", 200, False),
    ],
)
def test_whose_jobs_are_listed(
    ask: Ask, adas: dict[str, Any], who: str, question: str, status: int, sees: bool | None
) -> None:
    answer = ask(who, f"api/jobs?{question}")
    assert answer.status_code == status, answer.text
    if sees is not None:
        assert (adas["id"] in [job["id"] for job in answer.json()["jobs"]]) == sees


def test_a_client_that_goes_leaves_nothing_behind(service: Service, adas: dict[str, Any]) -> None:
    url = f"{service.url}{PREFIX}api/jobs/{adas['id']}/logs?follow=1"
    headers = {"Authorization": "Bearer ada"}
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()  # kept: httpx hangs up when it is let go
        assert any("begun" in line for line in lines)
        assert service.tasks("JobLogs._read")
    wait_for(lambda: not service.tasks("JobLogs._read"), "nobody reads any more")


def test_it_is_metered_as_a_job_and_stopped(
    ask: Ask, service: Service, adas: dict[str, Any]
) -> None:
    path = f"api/jobs/{adas['id']}"
    wait_for(lambda: ask("ada", path).json()["gpu_seconds"] > 0, "it is metered")
    rows = ask("ada", f"api/usage?group_by=job,component&job={adas['id']}").json()["rows"]
    assert [(row["job"], row["component"]) for row in rows] == [(adas["id"], "job")]
    stopped = ask("ada", path, "DELETE")
    assert stopped.status_code == 200
    found = over(ask, "ada", adas)
    assert (found["state"], found["reason"]) == ("stopped", "Stopped by you.")
    assert found["currency"] == "CHF"
    mark = f"gpucloud.io/job={adas['id']}"
    wait_for(lambda: not service.left(mark), "nothing is left of it")
    gone = ask("ada", f"{path}/logs")
    assert (gone.status_code, gone.json()["code"]) == (410, "logs_archived")
    assert gone.json()["details"]["prefix"] == found["logs"]
    assert ask("ada", path, "DELETE").status_code == 200  # again changes nothing


def test_logs_are_followed_to_the_end_of_the_job(ask: Ask, service: Service) -> None:
    script = "import time\nfor i in range(5):\n    print('step', i, flush=True); time.sleep(0.3)\n"
    job = launch(ask, "ann", code=upload(ask, "ann", script))
    url = f"{service.url}{PREFIX}api/jobs/{job['id']}/logs?follow=1"
    headers = {"Authorization": "Bearer ann"}
    arrived: list[float] = []
    lines: list[str] = []
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        for line in answer.iter_lines():
            lines.append(line)
            arrived.append(time.monotonic())
    steps = [line for line in lines if "step" in line]
    assert steps == [f"[worker-0] step {n}" for n in range(5)]
    assert arrived[-1] - arrived[lines.index(steps[0])] > 0.5  # while it ran, not at its end
    assert over(ask, "ann", job)["state"] == "succeeded"
    path = f"api/jobs/{job['id']}/logs"
    assert ask("ann", f"{path}?replica=ps-7").json()["details"] == {"allowed": ["worker-0"]}
    assert ask("ann", f"{path}?tail=-1").status_code == 400


GANG = """
import json, os, time
role = os.environ["GPUCLOUD_ROLE"]
print("role", role, "cluster", sorted(json.loads(os.environ["TF_CONFIG"])["cluster"]), flush=True)
print("rank", os.environ.get("RANK"), "of", os.environ["WORLD_SIZE"], flush=True)
if role != "chief":
    time.sleep(600)  # a server, until it is ended
time.sleep(1)
"""


def test_a_whole_gang_finds_itself_and_its_servers_end_with_it(ask: Ask, service: Service) -> None:
    code = upload(ask, "ann", GANG)
    job = launch(ask, "ann", code=code, replicas={"worker": 2, "ps": 1}, gang_seconds=60)
    assert [r["name"] for r in job["replicas"]] == ["chief-0", "worker-0", "worker-1", "ps-0"]
    found = over(ask, "ann", job)
    assert (found["state"], found["reason"]) == ("succeeded", ""), found
    assert {r["state"] for r in found["replicas"]} == {"succeeded"}
    text = ask("ann", f"api/jobs/{job['id']}/logs?replica=chief-0").text
    assert "role chief cluster ['chief', 'ps', 'worker']" in text
    assert "rank 0 of 3" in text
    mark = f"gpucloud.io/job={job['id']}"
    wait_for(lambda: not service.left(mark, active=True), "the servers have ended")
