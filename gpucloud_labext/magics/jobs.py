"""`%gpucloud run`, `jobs`, `logs` and `stop`: training outside of the notebook."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import LabError
from ..jobs import tables
from ..jobs.job import Job, find
from ..jobs.job import jobs as own_jobs
from ..jobs.launch import Launch, launch
from ..jobs.watch import watch
from .command import Command, Context, Parser, Result

_COLOURS = (36, 33, 35, 32, 34, 31)  # of ANSI: cyan, yellow, magenta, green, blue, red


def _run_options(parser: Parser) -> None:
    parser.add_argument("script", nargs="?", help="a .py or .ipynb file")
    parser.takes_rest = True
    parser.usage = "%(prog)s [SCRIPT] [options] [-- the script's own arguments]"
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="default: 1")
    parser.add_argument("--ps", type=_count, default=0, metavar="N", help="parameter servers")
    parser.add_argument(
        "--chief",
        action=argparse.BooleanOptionalAction,
        help="a replica that coordinates; default: with parameter servers",
    )
    parser.add_argument("--evaluator", action="store_true", help="one more, that only looks on")
    parser.add_argument("--gpus", type=_count, metavar="N", help="of the chief and each worker")
    parser.add_argument("--ps-gpus", type=_count, default=0, metavar="N")
    parser.add_argument("--profile", help="default: the notebook's")
    parser.add_argument("--image", metavar="KEY", help="one of the profile's images")
    parser.add_argument("--team", help="who pays; default: as for the notebook")
    parser.add_argument("--cpu", metavar="CORES", help="of each replica")
    parser.add_argument("--memory", metavar="SIZE", help="of each replica, e.g. 8G")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--timeout", metavar="TIME", help="ends the job, e.g. 8h or 45m")
    parser.add_argument("--gang-timeout", metavar="TIME", help="for all replicas to be there")
    parser.add_argument("--retries", type=_count, metavar="N", help="of a replica that is lost")
    parser.add_argument("--name", help="default: from the script")
    parser.add_argument("--without-package", action="append", default=[], metavar="PACKAGE")
    parser.add_argument("--no-packages", action="store_true", help="only those of the image")
    parser.add_argument("--watch", action="store_true", help="show how it goes until its end")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def _run(options: argparse.Namespace, context: Context) -> Job:
    cell = context.cell
    if cell is not None and options.script:
        raise LabError(400, "usage", "The cell is the script: its arguments stand after --")
    job = launch(
        Launch(
            script=options.script or "",
            args=options.rest,
            cell=cell,
            directory=Path.cwd(),
            workers=options.workers,
            ps=options.ps,
            chief=options.chief,
            evaluator=options.evaluator,
            gpus=options.gpus,
            ps_gpus=options.ps_gpus,
            profile=options.profile,
            image=options.image,
            team=options.team,
            cpu=options.cpu,
            memory=options.memory,
            env=_variables(options.env),
            timeout=options.timeout,
            gang_timeout=options.gang_timeout,
            retries=options.retries,
            name=options.name,
            packages=not options.no_packages,
            without_packages=options.without_package,
        ),
        say=print,
    )
    return watch(job, context.shell) if options.watch else job


def _variables(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise LabError(400, "usage", f"--env {text}: write NAME=VALUE")
        found[name] = value
    return found


def _jobs_options(parser: Parser) -> None:
    parser.add_argument("job", nargs="?", help="one job, with its replicas")
    parser.add_argument("--last", type=_count, default=20, metavar="N", help="default: 20")
    parser.add_argument("--watch", action="store_true", help="of one job: until its end")


def _jobs(options: argparse.Namespace, context: Context) -> Result | Job:
    if options.job:
        job = find(options.job)
        return watch(job, context.shell) if options.watch else job
    if not 1 <= options.last <= 1000:
        raise LabError(400, "usage", "--last is from 1 to 1000")
    found = own_jobs(limit=options.last)
    if not found:
        return Result("No jobs yet. For example: %gpucloud run train.py --gpus 1 --watch")
    text, html = tables.table(found)
    return Result(text, html, found)


def _logs_options(parser: Parser) -> None:
    parser.add_argument("job", help="its id, or a name: the newest of that name")
    parser.add_argument("replica", nargs="?", help="such as worker-0; default: all")
    parser.add_argument("-f", "--follow", action="store_true", help="until the job is over")


def _logs(options: argparse.Namespace, context: Context) -> None:
    job = find(options.job)
    coloured = context.shell is not None or sys.stdout.isatty()
    colours = {r["name"]: _COLOURS[i % len(_COLOURS)] for i, r in enumerate(job.replicas)}
    try:
        for line in job.logs(options.replica, options.follow):
            if not line.replica or options.replica:
                print(line.text, flush=True)
            elif coloured:
                colour = colours.get(line.replica, _COLOURS[0])
                print(f"\x1b[{colour}m[{line.replica}]\x1b[0m {line.text}", flush=True)
            else:
                print(line, flush=True)
    except KeyboardInterrupt:
        print(f"No longer followed: {job.name} goes on.")
        return
    if options.follow:
        job.wait(30)
        print(job.explain() if job.model["state"] == "failed" else tables.headline(job))


def _stop_options(parser: Parser) -> None:
    parser.add_argument("job", help="its id, or a name: the newest of that name")


def _stop(options: argparse.Namespace, context: Context) -> Job:
    return find(options.job).stop()


def _known(text: str) -> list[str]:
    """For the tab key: the last jobs."""
    try:
        return [job.id for job in own_jobs(limit=20)]
    except LabError:
        return []


RUN = Command(
    "run",
    "Train on machines of their own, with the folder you work in (but for .gpucloudignore)",
    _run,
    _run_options,
    takes_cell=True,
    examples=(
        "%gpucloud run train.py --gpus 1 --watch",
        "%gpucloud run train.py --workers 2 --ps 1 --env LR=0.1 -- --epochs 3",
        "%%gpucloud run --workers 2   # the cell's code",
    ),
)
JOBS = Command(
    "jobs",
    "Your jobs, with what they cost",
    _jobs,
    _jobs_options,
    complete=_known,
    examples=("%gpucloud jobs", "%gpucloud jobs train --watch"),
)
LOGS = Command(
    "logs",
    "What a job's replicas print",
    _logs,
    _logs_options,
    complete=_known,
    examples=("%gpucloud logs train -f", "%gpucloud logs train worker-0"),
)
STOP = Command(
    "stop",
    "End a job",
    _stop,
    _stop_options,
    complete=_known,
    examples=("%gpucloud stop train",),
)
