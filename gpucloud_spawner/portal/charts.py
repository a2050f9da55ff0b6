"""Small charts as SVG, without scripts and without inline styles: classes of `static/portal.css`.

All text goes through `html.escape`; numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 720, 170
_LEFT, _BOTTOM, _TOP = 44, 22, 8


@dataclass(frozen=True)
class Bar:
    """One bar: what stands below it, how high it is, and the words of its tooltip."""

    label: str
    value: float
    title: str


def bar_chart(bars: Sequence[Bar], title: str) -> Markup:
    """A bar chart with a scale from 0 to a round number."""
    top = nice_top(max((bar.value for bar in bars), default=0.0))
    plot_height, plot_width = HEIGHT - _TOP - _BOTTOM, WIDTH - _LEFT
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" preserveAspectRatio="xMidYMid meet">'
    ]
    for fraction in (0.0, 0.5, 1.0):
        y = _TOP + plot_height * (1 - fraction)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="scale" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{top * fraction:g}</text>"
        )
    step = plot_width / max(1, len(bars))
    for index, bar in enumerate(bars):
        parts.append(_bar(bar, _LEFT + index * step, step, plot_height, top))
    parts.append("</svg>")
    return Markup("".join(parts))


def _bar(bar: Bar, x: float, step: float, plot_height: float, top: float) -> str:
    height = plot_height * bar.value / top
    y = _TOP + plot_height - height
    return (
        f"<g><title>{escape(bar.title)}</title>"
        f'<rect class="touch" x="{x:.1f}" y="{_TOP}" width="{step:.1f}" height="{plot_height}"/>'
        f'<rect class="bar" x="{x + step * 0.15:.1f}" y="{y:.2f}" '
        f'width="{step * 0.7:.1f}" height="{height:.2f}" rx="1.5"/>'
        f'<text class="scale" x="{x + step / 2:.1f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(bar.label)}</text></g>"
    )


def nice_top(value: float) -> float:
    """The smallest of 0.001, 0.002, 0.005, 0.01 ... that is not below ``value``; 1 for nothing."""
    if value <= 0:
        return 1.0
    value = max(value, 0.001)
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1, 2, 5, 10):
        if value <= factor * power * (1 + 1e-9):
            return float(factor * power)
    return 10 * power


def gauge(fraction: float, title: str) -> Markup:
    """A horizontal bar that is full at 1."""
    kind = "full" if fraction >= 1 else "near" if fraction >= 0.8 else "fine"
    width = 100 * min(1.0, max(0.0, fraction))
    return Markup(
        f'<svg class="gauge" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'<rect class="track" width="100" height="4"/>'
        f'<rect class="{kind}" width="{width:.2f}" height="4"/></svg>'
    )
