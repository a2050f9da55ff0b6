"""How many jobs a user may have, and what is left of one who is deleted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from traitlets.config import Config

from tests.e2e.cloud import wait_for

from .inprocess import ACCESS, OWN_TOKEN, Hub, Service, person, robot, serving
from .jobs import IMAGES, Ask, body, launch, over, upload, works

MAX_OPEN = 3
PEOPLE = {"eve": person("eve"), "admin": person("admin", scopes=(ACCESS, "admin:users"))}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = Config()
    config.GPUCloudSpawner.profiles = [{"slug": "cpu", "display_name": "CPU", "images": IMAGES}]
    config.GPUCloudPortal.job_max_open = MAX_OPEN
    with serving(tmp_path_factory.mktemp("service"), Hub(PEOPLE, []), config) as found:
        wait_for(lambda: found.ask("admin", "api/prices").status_code == 200, "the ledger is open")
        yield found


@pytest.fixture(scope="module")
def ask(service: Service) -> Ask:
    return service.ask


def test_a_user_has_so_many_jobs_and_none_once_he_is_deleted(ask: Ask, service: Service) -> None:
    code = upload(ask, "eve", "import time\ntime.sleep(600)\n")
    jobs = [launch(ask, "eve", code=code) for _ in range(MAX_OPEN)]
    refused = ask("eve", "api/jobs", "POST", json=body(code=code))
    assert (refused.status_code, refused.json()["code"]) == (403, "too_many_jobs")
    assert refused.json()["details"] == {"maximum": MAX_OPEN}
    paths = [f"api/jobs/{job['id']}" for job in jobs]
    assert ask("eve", paths[0], "DELETE").status_code == 200
    over(ask, "eve", jobs[0])
    launch(ask, "eve", code=code)

    # without the right to see users, everybody looks deleted
    people = service.hub.people
    own = people[OWN_TOKEN]
    people[OWN_TOKEN] = robot("gpucloud")
    del people["eve"]
    before = service.hub.questions
    wait_for(lambda: service.hub.questions >= before + 2, "the service asks for its own rights")
    assert not ask("admin", paths[1]).json()["ended"]

    # the service still knows her token: a key that she gets now, the hub has not ended
    answer = ask("eve", "api/s3/credentials", "POST", json={})
    assert answer.status_code == 201
    wait_for(lambda: works(answer.json()), "the new key works")

    people[OWN_TOKEN] = own
    found = over(ask, "admin", jobs[1])
    assert (found["state"], found["reason"]) == (
        "stopped",
        "Its owner is no user of the hub any more.",
    )
    wait_for(lambda: not service.left("gpucloud.io/user=eve"), "nothing is left of her jobs")
    wait_for(lambda: not works(answer.json()), "her last key has ended, too")
    place = "api/s3?user=eve"
    wait_for(lambda: ask("admin", place).json()["bucket"] is None, "nor is there a Secret")
    own_jobs = ask("admin", "api/jobs?user=eve").json()["jobs"]
    assert len(own_jobs) == MAX_OPEN + 1 and {job["state"] for job in own_jobs} == {"stopped"}
