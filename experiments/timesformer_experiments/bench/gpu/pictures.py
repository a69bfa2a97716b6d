"""Roofline plot and bar chart of the attention steps.  Needs matplotlib."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

from timesformer_experiments.bench.gpu.record import Row
from timesformer_experiments.bench.gpu.sizes import STEPS

# Okabe and Ito's palette: distinguishable with any colour vision; shapes tell the providers apart without colour too.
STYLES = {
    "ours": ("#D55E00", "o"),
    "sdpa": ("#0072B2", "s"),
    "sdpa_flash": ("#56B4E9", "D"),
    "sdpa_cudnn": ("#009E73", "^"),
    "sdpa_efficient": ("#CC79A7", "v"),
    "sdpa_math": ("#999999", "P"),
    "flex": ("#E69F00", "X"),
    "fair_eager": ("#000000", "*"),
}
TITLES = {"forward": "forward", "forward_backward": "forward and backward"}


def draw(rows: list[Row]) -> dict[str, bytes]:
    """Return PNGs by name, for the largest batch of the steps timed with ceilings; empty if there are none."""
    timed = [row for row in rows if row["slice"] in ("kernels", "flex") and row.get("floor_ms") and row.get("ms")]
    if not timed:
        return {}
    newest = max(timed, key=lambda row: row["finished_utc"])
    timed = [row for row in timed if row["device_name"] == newest["device_name"]]
    batch = max(row["batch"] for row in timed)
    timed = [row for row in timed if row["batch"] == batch]
    title = (
        f"{newest['device_name']}, {newest['dtype']}, {batch} clips, {newest['heads']}x{newest['head_width']} channels"
    )
    return {"roofline": _png(_roofline(timed, title)), "bars": _png(_bars(timed, title))}


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _roofline(rows: list[Row], title: str) -> Figure:
    """Plot operations per second over operations per byte, under the two ceilings."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axis, direction in zip(figure.subplots(1, 2), TITLES, strict=True):
        here = [row for row in rows if row["direction"] == direction]
        for name, (colour, marker) in STYLES.items():
            mine = [row for row in here if row["provider"] == name]
            x = [row["flops_needed"] / row["bytes_needed"] for row in mine]
            y = [row["flops_needed"] / row["ms"] / 1e9 for row in mine]
            axis.scatter(x, y, 22, colour, marker=marker, label=name, zorder=3, linewidths=0) if mine else None
        if here:
            bandwidth, rate = (here[-1][f"ceiling_{name}_per_second"] / 1e12 for name in ("bytes", "flops"))
            corner, xs = rate / bandwidth, [row["flops_needed"] / row["bytes_needed"] for row in here]
            left, right = min(*xs, corner) / 2, max(*xs, corner) * 2
            axis.plot([left, corner, right], [bandwidth * left, rate, rate], color="#555555", linewidth=1)
        axis.set(
            xscale="log", yscale="log", xlabel="needed operations per byte", ylabel="needed 10¹² operations per second"
        )
        axis.set_title(TITLES[direction])
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.legend(fontsize=7)
    figure.suptitle(title)
    return figure


def _bars(rows: list[Row], title: str) -> Figure:
    """Plot times as multiples of the floor, for every step and size."""
    places = sorted(
        {(row["what"], row["shape"]) for row in rows}, key=lambda place: (list(STEPS).index(place[0]), place[1])
    )
    figure = Figure(figsize=(max(8.0, 0.75 * len(places)), 8), layout="constrained")
    for axis, direction in zip(figure.subplots(2, 1), TITLES, strict=True):
        here = {(row["what"], row["shape"], row["provider"]): row for row in rows if row["direction"] == direction}
        width = 0.9 / len(STYLES)
        for number, (name, (colour, _)) in enumerate(STYLES.items()):
            found = [(i, here[*place, name]) for i, place in enumerate(places) if (*place, name) in here]
            x = [i + (number - len(STYLES) / 2 + 0.5) * width for i, _ in found]
            y = [row["ms"] / row["floor_ms"] for _, row in found]
            axis.bar(x, y, width, color=colour, label=name) if found else None
        axis.axhline(1, color="#555555", linewidth=1)
        axis.set_yscale("log")
        axis.set_ylabel("time, multiples of the floor")
        axis.set_xticks(range(len(places)), [f"{kind}\n{shape}" for kind, shape in places], fontsize=7)
        axis.set_title(TITLES[direction])
        axis.legend(fontsize=7, ncols=len(STYLES))
    figure.suptitle(title)
    return figure
