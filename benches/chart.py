"""Bars as SVG, drawn by hand: one row for each value, the longest the whole width."""

from html import escape

WIDTH, LABEL, ROW, TOP = 760, 270, 24, 44
OURS, FLOOR, OTHER = "#2a78d6", "#8a8f98", "#d9a03f"


def colour(name):
    if name.startswith("sockscope"):
        return OURS
    return FLOOR if name.startswith("floor") else OTHER


def bars(title, rows, unit, form="{:,.2f}"):
    """rows: (name, value). The bars are linear and begin at 0."""
    longest = max((value for _, value in rows), default=0) or 1
    room = WIDTH - LABEL - 110
    height = TOP + ROW * len(rows) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="24" font-size="15" font-weight="bold" fill="#1f2328">'
        f"{escape(title)}</text>",
    ]
    for at, (name, value) in enumerate(rows):
        y = TOP + at * ROW
        wide = max(value / longest * room, 1)
        out.append(
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end" fill="#1f2328">'
            f"{escape(name)}</text>"
            f'<rect x="{LABEL}" y="{y}" width="{wide:.1f}" height="{ROW - 7}" '
            f'fill="{colour(name)}"/>'
            f'<text x="{LABEL + wide + 6:.1f}" y="{y + 13}" fill="#1f2328">'
            f"{form.format(value)} {escape(unit)}</text>"
        )
    out.append("</svg>\n")
    return "\n".join(out)
