"""Small plots as SVG: one panel for each quantity, over a size, both logarithmic."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT, GAP, LEFT, TOP = 300, 210, 30, 60, 76
COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .muted { fill: #59636e }
  .paper { fill: #ffffff } .grid { stroke: #d1d9e0 } .linear { stroke: #59636e; stroke-dasharray: 3 3 } .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .muted { fill: #9198a1 } .paper { fill: #0d1117 } .grid { stroke: #30363d } .linear { stroke: #9198a1 }
  }
"""


def draw(title, below, panels):
    """Each panel is (heading, unit of the size, {series: [(size, value)]}); dashed is what grows with the size."""
    width = LEFT + len(panels) * (WIDTH + LEFT + GAP)
    height = TOP + HEIGHT + 60
    drawn = "".join(_panel(LEFT + at * (WIDTH + LEFT + GAP), *panel) for at, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="{width}" height="{height}"/>\n'
        + _text(16, 26, title, "title") + _text(16, 46, below, "muted") + drawn + "</svg>\n"
    )


def _panel(left, heading, unit, series):
    points = [point for values in series.values() for point in values]
    x, (low, high) = _scale([size for size, _ in points], left, WIDTH)
    y, (floor, ceiling) = _scale([value for _, value in points], TOP + HEIGHT, -HEIGHT)
    parts = [_text(left, TOP - 8, heading)]
    for size in _decades(low, high):
        parts.append(f'<line class="grid" x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{TOP}" y2="{TOP + HEIGHT}"/>')
        parts.append(_text(x(size), TOP + HEIGHT + 16, f"{size:,.0f}".replace(",", " "), "muted", "middle"))
    for value in _decades(floor, ceiling):
        parts.append(f'<line class="grid" x1="{left}" x2="{left + WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(_text(left - 6, y(value) + 4, f"{value:g}", "muted", "end"))
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + 34, unit, "muted", "middle"))
    end = min(high, low * ceiling / floor)
    parts.append(
        f'<line class="linear" x1="{x(low):.1f}" y1="{y(floor):.1f}" x2="{x(end):.1f}" y2="{y(floor * end / low):.1f}"/>'
    )
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in values)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{line}"/>')
        parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>' for s, v in values]
        parts.append(_text(left + number * 110, TOP + HEIGHT + 52, name).replace("<text", f'<text style="fill: {colour}"'))
    return "".join(part + "\n" for part in parts)


def _scale(values, start, length):
    """From a value to its place, and the whole decades between which all are."""
    positive = [value for value in values if value > 0]
    low, high = 10 ** math.floor(math.log10(min(positive))), 10 ** math.ceil(math.log10(max(positive)))
    high = max(high, low * 10)
    return (lambda value: start + length * math.log10(max(value, low) / low) / math.log10(high / low)), (low, high)


def _decades(low, high):
    return [10**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]


def _text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>\n'
