"""Work of `reproduce gallery`: models from one image checkpoint, their maps of each clip, pictures, provenance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageChops

from timesformer.checkpoints import load_model, locate, settings_of, weight_files
from timesformer.config.transformer import TimeSformerConfig
from timesformer.data import Preprocessing
from timesformer.errors import InputError
from timesformer.files import write_atomic, write_json
from timesformer.maps import attention_maps, rollout
from timesformer.maps.explorer import explorer_side, keys_that_fit, write_explorer
from timesformer.maps.seen import Seen, see
from timesformer.maps.top_keys import top_keys
from timesformer.models.timesformer import TimeSformer
from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.paper.gallery.clips import UNKNOWN, Shown, Still, file_sha256
from timesformer_experiments.paper.gallery.pictures import Row, draw_rows
from timesformer_experiments.records.log import environment, now_utc
from timesformer_experiments.report.browser import find_browser, screenshot
from timesformer_experiments.report.report import require_writable

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of ImageNet, with which DINOv2's kind was trained."""
PAGE = (1180, 1200)
"""Window of the explorer's picture, in CSS pixels; what is blank below the page is cut off."""
MARGIN = 16
JPEG: dict[str, Any] = {"quality": 84, "optimize": True}
DPI = 110
UNTRAINED = "image weights; nothing was trained on video"

Say = Callable[[str], None]


def make(shown: Shown, folder: Path, init_from: str, folders: Folders, say: Say) -> list[Path]:
    """Write the pictures of all clips and `gallery.json`, which says where frames and weights come from.

    folder: of the clips; init_from: an image transformer
    The explorer's pages hold all frames and are written to the folder of the runs.  Without a Chromium there is no
    picture of them, and it is said.

    Raises:
        InputError: a clip or checkpoint that is not there or is another one, or a folder that cannot be written.
    """
    out = folders.out / "gallery"
    require_writable(out)
    clips = {still: still.found_in(folder) for still in shown.clips}
    config, _ = settings_of(init_from)
    if not isinstance(config, TimeSformerConfig) or config.num_frames != 1:
        raise InputError(f"--init-from {init_from}: expected an image transformer")
    depth = 1 + max(max(still.class_layer, still.patch_layer) for still in shown.clips)
    if config.depth < depth:
        raise InputError(f"--init-from {init_from}: expected at least {depth} layers, got {config.depth}")
    files: list[Path] = []
    for still, path in clips.items():
        size = (shown.rows * config.patch_size, still.columns * config.patch_size)
        models = {name: _started(init_from, name, shown.frames, size) for name in ("joint", "divided")}
        record = Preprocessing(num_frames=shown.frames, crop=size, short_side=size[0], mean=MEAN, std=STD)
        seen = see(path, record, start=still.seconds[0], end=still.seconds[1])
        rows = rows_of(models, seen, still)
        title = f"{still.title}. Joint and divided attention with {UNTRAINED}"
        files.append(_drawn(out / f"{still.name}.jpg", seen, rows, title, still))
        if still is shown.clips[0]:
            title = f"What may a patch look at? One patch, three kinds of attention, {UNTRAINED}"
            files.append(_drawn(out / "strip.jpg", seen, rows[-3:], title, still))
        page = _page(models["joint"], seen, still, folders.runs / "gallery" / f"{still.name}.html")
        say(f"{page}: the explorer with {still.title}")
        if find_browser() is not None:
            files.append(_pictured(page, out / f"{still.name}-explorer.jpg", still, seen))
        else:
            say("no Chromium found: no pictures of the explorer")
    files.append(write_json(out / "gallery.json", provenance(shown, init_from, files)))
    return files


def _started(init_from: str, attention: str, frames: int, size: tuple[int, int]) -> TimeSformer:
    """Start a scheme from the image model; the head, which nothing here reads, is new."""
    model = load_model(init_from, attention=attention, num_frames=frames, image_size=size, num_classes=1).model
    return model.eval()


def rows_of(models: dict[str, TimeSformer], seen: Seen, still: Still) -> list[Row]:
    """Compute the rows of a clip's picture; the last three are of one patch in each kind of attention."""
    at, layer = still.query, still.patch_layer
    joint = attention_maps(models["joint"], seen.clip, layers=sorted({still.class_layer, layer}), query=["class", at])
    divided = attention_maps(models["divided"], seen.clip, layers=[layer], query=at)
    of_class = next(one for one in joint if one.layer == still.class_layer).weights[0, :, 0].mean(0)
    of_patch = next(one for one in joint if one.layer == layer).weights[0, :, 1].mean(0)
    time, space = (divided.get(layer, step).weights[0, :, 0].mean(0) for step in ("time", "space"))
    flow = rollout(models["joint"], seen.clip, discard=0.9).weights[0, 0]
    return [
        Row(f"class token\njoint, layer {still.class_layer}", of_class),
        Row("rollout\njoint, all layers", flow),
        Row(f"blue patch\njoint, layer {layer}", of_patch, at),
        Row("blue patch\ndivided: time\n(untrained)", time, at),
        Row("blue patch\ndivided: space", space, at),
    ]


def _page(model: TimeSformer, seen: Seen, still: Still, to: Path) -> Path:
    layers = sorted({still.class_layer, still.patch_layer})
    count, cell = keys_that_fit(model, seen, layers=layers)
    keys = top_keys(model, seen.clip, layers=layers, count=count, coarsen=cell)
    note = f"Joint space-time attention with {UNTRAINED}. {still.credited}."
    side = explorer_side(model, seen, name="ViT with joint attention", note=note, keys=keys)
    return write_explorer(to, [side], title=still.title)


def _pictured(page: Path, to: Path, still: Still, seen: Seen) -> Path:
    """Take a picture of the page with the clip's patch chosen."""
    t, h, w = still.query
    shown = f"query={t},{h},{w}&layer={still.patch_layer}&seconds={seen.seconds[t]}"
    with TemporaryDirectory() as folder:
        taken = Image.open(screenshot(page, Path(folder) / "page.png", size=PAGE, fragment=shown)).convert("RGB")
    blank = Image.new("RGB", taken.size, taken.getpixel((0, 0)))
    *_, below = ImageChops.difference(taken, blank).getbbox() or (0, 0, *taken.size)
    cut = taken.crop((0, 0, taken.width, min(taken.height, below + MARGIN)))
    return write_atomic(to, lambda path: cut.save(path, **JPEG))


def _drawn(to: Path, seen: Seen, rows: list[Row], title: str, still: Still) -> Path:
    figure = draw_rows(seen.frames, seen.seconds, rows, title, still.credited)
    return write_atomic(to, lambda path: figure.savefig(path, dpi=DPI, pil_kwargs=JPEG))


def provenance(shown: Shown, init_from: str, files: list[Path]) -> dict[str, Any]:
    """Say where the frames, the weights and the code of the pictures come from."""
    found = {path.name: file_sha256(path) for path in weight_files(locate(init_from))}
    about = {**UNKNOWN, **next((shown.weights[each] for each in found.values() if each in shown.weights), {})}
    code = environment()
    return {
        "made_utc": now_utc(),
        "git_commit": code["git_commit"],
        "git_dirty": code["git_dirty"],
        "trained": UNTRAINED,
        "weights": {**about, "sha256": found},
        "clips": [asdict(still) for still in shown.clips],
        "files": [path.name for path in files],
    }
