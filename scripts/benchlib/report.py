"""The table as text, and the ratios as a picture."""

import math
from html import escape

from benchlib.systems import BARE

COLUMNS = (
    "work", "system", "value", "ratio", "CPU s", "CPU s/GiB", "fetched/read", "GET/HEAD/LIST", "in flight", "RSS MiB",
)


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def is_peer(name):
    return name not in ("s3credmount", BARE)


def add_ratios(works, systems, cells):
    """Each value over the best peer's, so that more than 1 is better, whatever the unit."""
    for work in works:
        peers = [cells[work.name, name].get("value") for name, _, _ in systems if is_peer(name)]
        peers = [value for value in peers if value]
        best = (max if work.more_is_better else min)(peers) if peers else None
        for name, _, _ in systems:
            cell = cells[work.name, name]
            if best and cell.get("value"):
                cell["ratio"] = cell["value"] / best if work.more_is_better else best / cell["value"]


def rows(works, systems, cells):
    for work in works:
        for index, (name, _, _) in enumerate(systems):
            cell = cells[work.name, name]
            if "left_out" in cell:
                continue
            title = work.title if index == 0 else ""
            if "fails" in cell:
                yield title, name, f"fails: {cell['fails']}"
                continue
            cut = "*" if cell.get("reader_stopped") else ""
            yield (
                title,
                name,
                f"{number(cell['value'])} {work.unit}{cut}",
                number(cell.get("ratio")),
                number(cell["cpu_seconds"]),
                number(cell["cpu_seconds_per_gib"]),
                "-" if cell["fetched_per_byte"] is None else f"x {number(cell['fetched_per_byte'])}",
                f"{cell['get']:.0f}/{cell['head']:.0f}/{cell['list']:.0f}",
                f"{cell['max_in_flight']:.0f}",
                number(cell["peak_rss"] and cell["peak_rss"] / 2**20),
            )


def table(works, systems, cells):
    """Aligned with blanks, and in the syntax of Markdown at the same time."""
    body = [row for row in rows(works, systems, cells)]
    full = [row for row in body if len(row) == len(COLUMNS)] + [COLUMNS]
    widths = [max(len(row[index]) for row in full) for index in range(len(COLUMNS))]
    # Words of failures may be long: they do not widen their column, but stand over the following ones.
    widths[0] = max(len(row[0]) for row in body + [COLUMNS])
    widths[1] = max(len(row[1]) for row in body + [COLUMNS])

    def line(row):
        cells = [text.ljust(width) if i < 2 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))]
        if len(row) < len(COLUMNS):
            cells[-1] = row[-1].replace("|", "/")
            return "| " + " | ".join(cells) + " |" * (len(COLUMNS) - len(row) + 1)
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(COLUMNS), "| " + " | ".join(rule) + " |"] + [line(row) for row in body])


def fairness(works, systems, cells):
    """Of works with many readers at once: how far the slowest fell behind."""
    for work in works:
        if work.job.get("share") not in ("whole", "parts") or work.job["workers"] == 1:
            continue
        said = [(name, cells[work.name, name].get("reader_slowest_of_mean")) for name, _, _ in systems]
        said = ", ".join(f"{name} {ratio:.2f}" for name, ratio in said if ratio is not None)
        if said:
            yield f"{work.title}: the slowest reader's speed over the mean: {said}"


COLOURS = {
    "s3credmount": "#c2410c",
    "mount-s3": "#1d4ed8",
    "geesefs": "#15803d",
    "goofys": "#7e22ce",
    "rclone": "#0e7490",
    "s3fs": "#6b7280",
    BARE: "#000000",
}


def svg(profiles, works, systems, results):
    """A panel to a profile, a line to a work, a mark to a system, on a logarithmic scale; the best peer is at 1."""
    left, right, step, top = 300, 560, 24, 64
    ratios = [cell["ratio"] for cells in results.values() for cell in cells.values() if cell.get("ratio")]
    low = min([math.floor(math.log10(ratio)) for ratio in ratios] + [-1])
    high = max([math.ceil(math.log10(ratio)) for ratio in ratios] + [1])

    def across(ratio):
        return left + right * (math.log10(ratio) - low) / (high - low)

    panel = step * len(works) + 70
    width, height = left + right + 40, top + panel * len(profiles)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        "<title>Speed over the best peer, by work</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="24" font-size="15">Speed over that of the best peer (right of 1 is faster)</text>',
    ]
    x = 16
    for name, _, _ in systems:
        out.append(f'<circle cx="{x + 5}" cy="44" r="5" fill="{COLOURS[name]}"/>')
        out.append(f'<text x="{x + 15}" y="48">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    for index, profile in enumerate(profiles):
        y = top + panel * index
        out.append(f'<text x="16" y="{y + 24}" font-weight="bold">{escape(profile)}</text>')
        bottom = y + 36 + step * len(works)
        for power in range(low, high + 1):
            place = across(10.0**power)
            colour = "#000000" if power == 0 else "#d4d4d4"
            out.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{y + 32}" y2="{bottom}" stroke="{colour}"/>')
            out.append(f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g}</text>')
        for line, work in enumerate(works):
            middle = y + 36 + step * line + step / 2
            out.append(f'<text x="{left - 10}" y="{middle + 4}" text-anchor="end">{escape(work.title)}</text>')
            out.append(f'<line x1="{left}" x2="{left + right}" y1="{middle}" y2="{middle}" stroke="#eeeeee"/>')
            # s3credmount last, so that it lies on top.
            for name, _, _ in reversed(systems):
                ratio = results[profile][work.name, name].get("ratio")
                if ratio:
                    radius = 6 if name == "s3credmount" else 4
                    mark = f'<circle cx="{across(ratio):.1f}" cy="{middle}" r="{radius}" fill="{COLOURS[name]}">'
                    out.append(f"{mark}<title>{escape(name)}: {ratio:.2f}</title></circle>")
    return "\n".join(out + ["</svg>", ""])
