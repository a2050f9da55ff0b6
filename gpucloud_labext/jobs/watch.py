"""The live display of a job: one picture that is renewed until the job is over.

Interrupting it (Ctrl-C, the stop button) ends the watching, never the job.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ..errors import LabError
from .job import Job
from .tables import as_html, as_text, headline

EVERY = 1.0  # seconds


def watch(job: Job, shell: Any = None) -> Job:
    """Show ``job`` until it is over or the user has seen enough."""
    view = _Notebook() if shell is not None else _Terminal()
    job.shown = shell is not None
    try:
        while True:
            view.show(job, "")
            if job.is_over:
                return job
            time.sleep(EVERY)
            try:
                job.refresh()
            except LabError as error:
                if error.status < 500:
                    raise
                view.show(job, "The service does not answer; the job goes on.")
    except KeyboardInterrupt:
        view.show(
            job,
            f"No longer watched: the job goes on. %gpucloud logs {job.id} -f, "
            f"%gpucloud stop {job.id}",
        )
        return job


class _Notebook:
    """One output of the cell, renewed in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, job: Job, note: str) -> None:
        from html import escape

        from IPython.display import display

        html = as_html(job) + (f'<p style="margin: 4px 0">{escape(note)}</p>' if note else "")
        data = {"text/html": html, "text/plain": "\n".join([as_text(job), note]).rstrip()}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


class _Terminal:
    """A line whenever something has changed."""

    def __init__(self) -> None:
        self._said = ""

    def show(self, job: Job, note: str) -> None:
        states = ", ".join(f"{r['name']} {r['state']}" for r in job.replicas)
        said = f"{job.model['state']}: {job.reason or states} {note}".rstrip()
        if said != self._said:
            self._said = said
            print(as_text(job) if job.is_over else f"{headline(job)} {said}", file=sys.stderr)
