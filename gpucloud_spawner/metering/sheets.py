"""Statements for people: CSV that no spreadsheet executes, and a table for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ..model.usage import rfc3339
from .lines import Line
from .statements import Row, Statement, as_of_text

# A cell that begins so may be run as a formula: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe_cell(text: str) -> str:
    """User-written text as a cell: what might be a formula gets a leading apostrophe."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text


def _write(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def statement_csv(statement: Statement) -> str:
    """A statement as CSV (RFC 4180): one line per row, then rounding, if any, and the total."""
    groups = statement.query.group_by
    header = [*groups, "gpu_seconds", "storage_gib_seconds", "cost", "currency", "running"]

    def line(row: Row, names: Sequence[str]) -> list[object]:
        figures = [row.gpu_seconds, row.storage_gib_seconds, row.cost]
        return [*names, *figures, statement.currency, "yes" if row.running else "no"]

    lines = [line(row, [safe_cell(row.group[g]) for g in groups]) for row in statement.rows]
    if groups:
        filler = [""] * (len(groups) - 1)
        if statement.rounding:
            lines.append(["rounding", *filler, 0, 0, statement.rounding, statement.currency, "no"])
        lines.append(line(statement.total, ["total", *filler]))
    else:
        lines = [line(statement.total, [])]
    return _write(header, lines)


_LINE_NAMES = (
    "user",
    "team",
    "app",
    "job",
    "component",
    "profile",
    "product",
    "resource",
    "node",
    "namespace",
    "name",
)


def lines_csv(lines: Iterable[Line]) -> str:
    """Single lines as CSV."""
    header = ["kind", "uid", *_LINE_NAMES, "gpus", "gib", "start", "end", "running"]
    header += ["start_known_by", "end_known_by", "gpu_seconds", "storage_gib_seconds", "cost"]
    return _write(
        [*header, "note"],
        (
            [
                line.kind,
                line.uid,
                *(safe_cell(line.names[name]) for name in _LINE_NAMES),
                line.gpus,
                line.gib,
                rfc3339(line.start),
                rfc3339(line.end),
                "yes" if line.running else "no",
                safe_cell(line.known_by[0]),
                safe_cell(line.known_by[1]),
                line.gpu_seconds,
                line.storage_gib_seconds,
                line.cost,
                safe_cell(line.note),
            ]
            for line in lines
        ),
    )


def statement_table(statement: Statement) -> str:
    """A statement as aligned text, in hours."""
    header = [*statement.query.group_by, "GPU-hours", "GiB-hours", f"cost {statement.currency}", ""]

    def cells(row: Row, names: Sequence[str]) -> list[str]:
        # control characters in names could rewrite the terminal
        clean = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
        hours = [f"{row.gpu_seconds / 3600:.2f}", f"{row.storage_gib_seconds / 3600:.2f}"]
        return [*clean, *hours, str(row.cost), "running" if row.running else ""]

    groups = statement.query.group_by
    body = [cells(row, [row.group[g] or "-" for g in groups]) for row in statement.rows]
    total = cells(statement.total, ["total", *[""] * (len(groups) - 1)] if groups else [])
    grid = [header, *(body if groups else []), total]
    widths = [max(len(line[i]) for line in grid) for i in range(len(header))]
    texts = []
    for line in grid:
        aligned = [
            cell.ljust(width) if index < len(groups) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join(aligned).rstrip())
    window = statement.query.window
    return "\n".join(
        [
            f"{rfc3339(window.start)} to {rfc3339(window.end)}, running ones up to "
            f"{as_of_text(statement.as_of) or 'now not counted: the service has not reported yet'}",
            *texts,
            "",
        ]
    )
