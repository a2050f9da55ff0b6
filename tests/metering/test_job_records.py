"""The table of jobs, on both databases: keys, versions, pages, bills, the way to this schema."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.errors import LedgerError
from gpucloud_spawner.metering.job_records import JobRecords, KeyReused, NewJob, TooManyJobs
from gpucloud_spawner.metering.tables import INTERVAL, POSITION
from gpucloud_spawner.model.job_record import Failure, JobRecord, Replica
from gpucloud_spawner.model.jobs import FIRST_PORT, LAST_PORT, JobSpec


def new(key: str = "k", user: str = "ada", team: str = "", workers: int = 1) -> NewJob:
    spec = JobSpec(
        name="train",
        command=("python", "train.py"),
        code="a" * 64,
        replicas={"chief": 0, "worker": workers, "ps": 0, "evaluator": 0},
        profile="tensorflow",
        image="tf",
        team=team,
        gpus=1,
        ps_gpus=0,
        cpu="",
        memory=0,
    )
    return NewJob(spec, user, key, f"print of {workers}", "ns", "user-ada", "gpucloud-s3-ada")


def created(records: JobRecords, *args: Any, **kwargs: Any) -> JobRecord:
    record, fresh = records.create(new(*args, **kwargs))
    assert fresh
    return record


def test_a_key_makes_one_job(engine: Engine) -> None:
    records = JobRecords(engine)
    first = created(records)
    assert records.create(new()) == (first, False)
    assert created(records, user="alan").id != first.id  # keys are each user's own
    with pytest.raises(KeyReused) as caught:
        records.create(new(workers=2))
    assert caught.value.details == {"job": first.id}


def test_the_same_key_at_the_same_time_makes_one_job(engine: Engine) -> None:
    found: list[str] = []
    barrier = threading.Barrier(4)

    def create() -> None:
        barrier.wait()
        found.append(JobRecords(engine).create(new())[0].id)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_what_is_stored_is_what_is_read(engine: Engine) -> None:
    records = JobRecords(engine)
    record = created(records)
    changed = records.update(
        record,
        state="failed",
        ended_at=7,
        replicas=(Replica("worker", 0, "failed", "why", "node-1", 2, 1, 1),),
        failure=Failure("worker-0", 1, ("a", "b"), "hint"),
    )
    assert changed == records.get(record.id)
    assert changed is not None
    assert changed.failure == Failure("worker-0", 1, ("a", "b"), "hint")
    assert changed.replicas[0].name == "worker-0"
    assert changed.version == record.version + 1
    assert records.get("no-such") is None


def test_who_comes_second_changes_nothing(engine: Engine) -> None:
    records = JobRecords(engine)
    record = created(records)
    records.request_stop(record.id, "stopped by ada")
    assert records.update(record, state="running") is None
    fresh = records.get(record.id)
    assert fresh is not None
    assert (fresh.state, fresh.stop_requested) == ("queued", True)
    records.request_stop(record.id, "again")  # the first word stays
    assert records.get(record.id) == fresh


def test_what_is_over_stays_so(engine: Engine) -> None:
    records = JobRecords(engine)
    over = records.update(created(records), state="succeeded")
    assert over is not None
    assert records.update(over, state="running") is None
    records.request_stop(over.id, "too late")
    assert records.get(over.id) == over
    assert records.open_versions() == {over.id: over.version}
    assert records.update(over, closed_at=5) is not None
    assert records.open_versions() == {}
    assert records.counts()["succeeded"] == 1


def test_jobs_that_run_at_the_same_time_have_distinct_ports(engine: Engine) -> None:
    records = JobRecords(engine)
    seen: set[int] = set()
    for number in range(30):
        record = created(records, str(number), workers=number + 1)
        ports = set(range(record.port, record.port + number + 2))
        assert not ports & seen
        seen |= ports
    assert min(seen) >= FIRST_PORT
    with db.writing(engine).begin() as connection:
        connection.execute(text(f"UPDATE gpucloud_jobs SET port = {LAST_PORT - 5}"))
    assert created(records, "round", workers=3).port == FIRST_PORT


def test_so_many_jobs_may_a_user_have_open(engine: Engine) -> None:
    records = JobRecords(engine)
    first, _ = records.create(new("1"), max_open=2)
    records.create(new("2"), max_open=2)
    with pytest.raises(TooManyJobs, match="2 jobs that are not over, and may have 2"):
        records.create(new("3"), max_open=2)
    assert records.create(new("1"), max_open=2) == (first, False)  # what is there is no new one
    records.create(new("3", user="bob"), max_open=2)
    assert records.open_owners() == {"ada", "bob"}
    records.update(first, state="failed")
    third, fresh = records.create(new("3"), max_open=2)
    assert fresh
    stopped = records.request_stop_of("ada", "gone")
    assert third.id in stopped and first.id not in stopped and len(stopped) == 2
    assert records.request_stop_of("ada", "again") == []
    found = records.get(third.id)
    assert found is not None and found.stop_requested and found.reason == "gone"


def test_at_the_same_time_there_are_not_more_and_ports_are_distinct(engine: Engine) -> None:
    records = JobRecords(engine)
    made: list[JobRecord] = []
    refused: list[TooManyJobs] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        try:
            made.append(records.create(new(str(number)), max_open=3)[0])
        except TooManyJobs as error:
            refused.append(error)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (3, 5)
    assert len({record.port for record in made}) == 3


def test_pages_are_the_newest_first_and_lose_nothing(engine: Engine) -> None:
    records = JobRecords(engine)
    mine = [created(records, str(n)).id for n in range(5)]
    created(records, "x", user="bob", team="vision")
    found: list[str] = []
    cursor = ""
    while True:
        page, cursor = records.page(user="ada", size=2, cursor=cursor)
        found += [record.id for record in page]
        if not cursor:
            break
    assert found == mine[::-1]
    assert [r.user for r in records.page(teams=["vision"])[0]] == ["bob"]
    assert records.page(user="ada", teams=["vision"])[0] == []
    assert len(records.page()[0]) == 6
    assert records.page(states=["running"])[0] == []
    for question in ({"states": ["odd"]}, {"cursor": "x"}, {"cursor": "\u0661"}, {"size": 0}):
        with pytest.raises(LedgerError):
            records.page(**question)  # type: ignore[arg-type]


def test_a_bill_is_the_ledgers(engine: Engine) -> None:
    records = JobRecords(engine)
    record, other = created(records), created(records, "other")
    row: dict[str, Any] = {c.name: "" for c in INTERVAL.columns}
    del row["id"]
    row |= {"job": record.id, "gpus": 2, "price_nano": 3 * 10**9, "uid": "u", "component": "job"}
    row |= {"start_at": record.created_at, "end_at": record.created_at + 1800}
    row |= {"ended_alone": True, "gone": True, "finished_at": record.created_at + 1800}
    row |= dict.fromkeys(("failed_at", "deleted_at", "last_seen"))
    heartbeat = {"stream": "pods", "heartbeat_at": record.created_at + 1800}
    with db.writing(engine).begin() as connection:
        connection.execute(insert(INTERVAL), [row])
        connection.execute(insert(POSITION), [{**heartbeat, "resource_version": "1"}])
    bills = records.bills([record, other])
    assert {job: (bill.gpu_seconds, bill.cost) for job, bill in bills.items()} == {
        record.id: (3600, "3.00"),
        other.id: (0, "0.00"),
    }


def test_the_identity_stays(engine: Engine) -> None:
    records = JobRecords(engine)
    assert records.identity() == JobRecords(engine).identity()
    assert len(records.identity()) == 16


def test_each_schema_is_reached_from_the_one_before(url: str) -> None:
    engine = db.make_engine(url)
    assert db.upgrade(engine, "0001") == "0001"
    assert db.upgrade(engine, "0002") == "0002"
    created(JobRecords(engine))
    assert db.upgrade(engine) == db.head()
    assert len(JobRecords(engine).page()[0]) == 1
    engine.dispose()
