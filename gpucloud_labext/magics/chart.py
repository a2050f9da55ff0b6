"""One bar chart as inline SVG: axis, bars, words for who does not see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import count

from .show import BAR

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 12, 34
MAX_LABEL = 12
_numbers = count(1)  # ids must differ within a page


def bars(values: Sequence[tuple[str, float]], title: str, unit: str) -> str:
    """A bar for each name and value; ``unit`` stands at the axis."""
    number = next(_numbers)
    top = nice_top(max((value for _, value in values), default=0.0))
    names = f"gpucloud-title-{number} gpucloud-desc-{number}"
    said = ", ".join(f"{name}: {value:.3g}" for name, value in values if value) or "nothing"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{names}" style="width: 100%; max-width: {WIDTH}px; height: auto; '
        'color: inherit" font-family="inherit" font-size="11" fill="currentColor">',
        f'<title id="gpucloud-title-{number}">{escape(title)}</title>',
        f'<desc id="gpucloud-desc-{number}">{escape(f"{unit}. {said}")}</desc>',
        *_axis(top, unit),
        *_bars(values, top),
    ]
    return "".join([*parts, "</svg>"])


def nice_top(highest: float) -> float:
    """The end of an axis that ends in a round number: 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return 1.0
    power: float = 10 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= highest * 0.999999)


def _axis(top: float, unit: str) -> list[str]:
    parts = [f'<text x="0" y="{TOP - 2}">{escape(unit)}</text>']
    for part in (0.0, 0.5, 1.0):
        y = HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM - 10)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity="0.3"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * part:.3g}</text>'
        )
    return parts


def _bars(values: Sequence[tuple[str, float]], top: float) -> list[str]:
    step = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    width = min(step * 0.7, 48.0)
    # as many names as there is room for
    every = max(1, math.ceil(len(values) * (MAX_LABEL if len(values) <= 12 else 3) * 6.5 / WIDTH))
    parts = []
    for number, (name, value) in enumerate(values):
        middle = LEFT + step * (number + 0.5)
        high = value / top * (HEIGHT - TOP - BOTTOM - 10)
        if value > 0:
            high = max(high, 1.0)  # what is there is seen
            parts.append(
                f'<rect x="{middle - width / 2:.1f}" y="{HEIGHT - BOTTOM - high:.1f}" '
                f'width="{width:.1f}" height="{high:.1f}" fill="{BAR}">'
                f"<title>{escape(name)}: {value:.3g}</title></rect>"
            )
        if number % every == 0:
            short = name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"
            parts.append(
                f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
                f"{escape(short)}</text>"
            )
    return parts
