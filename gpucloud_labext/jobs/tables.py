"""Jobs in words and as HTML: one with its replicas, or many in a table. User text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

from ..magics.show import duration, html_table, text_table
from .job import Job

MARKS = {
    "queued": "…",
    "starting": "◔",
    "running": "▶",
    "succeeded": "✔",
    "failed": "✘",
    "stopped": "■",
    "pending": "…",
}
_RIGHT = (4, 5)


def headline(job: Job) -> str:
    """One line: state, time, cost."""
    state = job.model["state"]
    since = duration(job.elapsed)
    return f"{MARKS.get(state, '')} {job.name} ({job.id}): {state}, {since}, {job.cost}"


def as_text(job: Job) -> str:
    lines = [headline(job)]
    if job.is_over and job.model["state"] == "failed":
        lines += job.explain().splitlines()[1:]
    elif job.reason:
        lines.append(f"  {job.reason}")
    return "\n".join([*lines, text_table(_replica_rows(job), (3, 4))])


def as_html(job: Job) -> str:
    parts = [f'<p style="margin: 4px 0"><strong>{escape(headline(job))}</strong></p>']
    failure: dict[str, Any] = job.model.get("failure") or {}
    if job.reason:
        parts.append(f'<p style="margin: 4px 0">{escape(job.reason)}</p>')
    parts.append(html_table(_replica_rows(job), (3, 4)))
    if failure.get("lines"):
        lines = escape("\n".join(failure["lines"]))
        parts.append(f'<pre style="margin: 4px 0; padding-left: 8px">{lines}</pre>')
    if failure.get("hint"):
        parts.append(f'<p style="margin: 4px 0">Hint: {escape(str(failure["hint"]))}</p>')
    return "".join(parts)


def table(jobs: Sequence[Job]) -> tuple[str, str]:
    """Many jobs, in words and as HTML."""
    rows = [["job", "state", "replicas", "created (UTC)", "time", "cost", "why"]]
    rows += [_job_row(job) for job in jobs]
    return text_table(rows, _RIGHT), html_table(rows, _RIGHT)


def _job_row(job: Job) -> list[str]:
    counts: dict[str, int] = {}
    for replica in job.replicas:
        counts[replica["role"]] = counts.get(replica["role"], 0) + 1
    roles = ", ".join(f"{count} {role}" for role, count in counts.items())
    created = datetime.fromisoformat(job.model["created"]).strftime("%d %b %H:%M")
    state = job.model["state"]
    named = job.id if job.id.startswith(job.name) else f"{job.name} ({job.id})"
    why = job.reason if len(job.reason) <= 80 else job.reason[:79] + "…"
    return [
        named,
        f"{MARKS.get(state, '')} {state}",
        roles,
        created,
        duration(job.elapsed),
        job.cost,
        why,
    ]


def _replica_rows(job: Job) -> list[list[str]]:
    rows = [["replica", "state", "node", "GPUs", "restarts", ""]]
    for replica in job.replicas:
        code = replica.get("exit_code")
        ended = f"exit code {code}" if code else ""
        state = replica["state"]
        rows.append(
            [
                replica["name"],
                f"{MARKS.get(state, '')} {state}",
                replica.get("node") or "-",
                str(replica.get("gpus") or 0),
                str(replica.get("restarts") or 0),
                replica.get("reason") or ended,
            ]
        )
    return rows
