"""Tables, numbers and charts of `%gpucloud`, in words and as HTML.

Colours come from the page (`currentColor`) or are seen on white and on black; there are no styles
outside of the elements, and no scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# 4.2 : 1 on white and 4.5 : 1 on JupyterLab's dark ground
BAR = "#3c82c4"
_CELL = "padding: 2px 12px 2px 0; text-align: {}; border: none; vertical-align: top"
_RULE = "1px solid rgba(127, 127, 127, 0.5)"


def text_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns that stand below each other; ``right`` are the numbers of right-aligned ones."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def html_facts(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    lines = "".join(
        f'<tr style="background: none"><th scope="row" style="{_CELL.format("left")}; '
        f'font-weight: 600">{escape(name)}</th>'
        f'<td style="{_CELL.format("left")}">{escape(value)}</td></tr>'
        for name, value in facts
    )
    return f'<table style="border-collapse: collapse; color: inherit; margin: 0">{lines}</table>'


def html_table(
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    *,
    caption: str = "",
    total: bool = False,
) -> str:
    """A table whose first row is its head and, with ``total``, its last one the sum."""
    head, *body = rows
    parts: list[str] = ['<table style="border-collapse: collapse; color: inherit; margin: 4px 0">']
    if caption:
        parts.append(
            f'<caption style="caption-side: top; text-align: left; color: inherit">'
            f"{escape(caption)}</caption>"
        )
    parts.append(f"<thead>{_row(head, right, 'th', 'bottom')}</thead><tbody>")
    for number, row in enumerate(body):
        is_sum = total and number == len(body) - 1
        parts.append(_row(row, right, "td", "top" if is_sum else ""))
    return "".join([*parts, "</tbody></table>"])


def _row(cells: Sequence[str], right: Sequence[int], tag: str, rule: str) -> str:
    line = f"; border-{rule}: {_RULE}" if rule else ""
    weight = "; font-weight: 600" if rule else ""
    scope = ' scope="col"' if tag == "th" else ""
    whole = "".join(
        f'<{tag}{scope} style="{_CELL.format("right" if i in right else "left")}{line}{weight}">'
        f"{escape(cell)}</{tag}>"
        for i, cell in enumerate(cells)
    )
    return f'<tr style="background: none">{whole}</tr>'


def meter(label: str, percent: float, words: str) -> str:
    """A bar that is filled so far, with its value in words beside it."""
    filled = min(max(percent, 0.0), 100.0)
    return (
        f'<span role="meter" aria-label="{escape(label)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{filled:.0f}" aria-valuetext="{escape(words)}" style="display: '
        "inline-block; width: 120px; height: 9px; border: 1px solid currentColor; border-radius: "
        f'2px; margin-right: 8px"><span style="display: block; height: 100%; width: {filled:.1f}%; '
        f'background: {BAR}"></span></span>{escape(words)}'
    )


def duration(seconds: float) -> str:
    """In the two biggest units: 2 d 3 h, 5 min 10 s."""
    left = int(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def size(count: int | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB" if value < 1024 else f"{value / 1024:.1f} TiB"


def hours(seconds: int) -> str:
    """GPU-seconds as hours: at least two digits of what is small."""
    value = seconds / 3600
    return f"{value:.2f}" if value >= 1 or not seconds else f"{value:.2g}"
