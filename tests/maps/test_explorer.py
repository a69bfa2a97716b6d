"""The explorer page: what it packs, what fits, and that nothing from outside breaks out of it."""

import json
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from tests.maps.pointing import GRID, PATCH, pointing_model
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.errors import InputError
from timesformer.maps import Saliency, top_keys
from timesformer.maps.capture import sites
from timesformer.maps.explorer import PAGE_BYTES, explorer_page, explorer_side, write_explorer
from timesformer.maps.overlay import shares
from timesformer.maps.packing import COUNTS, pack_keys, pack_map, what_fits
from timesformer.maps.seen import Seen
from timesformer.maps.top_keys import TopKeys

NASTY = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&amp;\"'\u2028{{ 7 * 7 }}{% raw %}\x1b[31m"


def seen_of(clip: torch.Tensor, path: str = "v.mp4") -> Seen:
    """A clip as if it came from a video with three frames a second; the film has a frame between each two."""
    frames = (clip[0].permute(0, 2, 3, 1).numpy() * 60 + 80).clip(0, 255).astype(np.uint8)
    seconds = np.arange(len(frames)) / 3
    film = frames.repeat(2, 0)[: 2 * len(frames) - 1]
    return Seen(path, clip, frames, seconds, film, np.arange(len(film)) / 6)


def random_keys(heads: int, grid: tuple[int, int, int], count: int, seed: int = 0) -> TopKeys:
    """Keys as `top_keys` gives them: the largest first, some places unused."""
    rng = np.random.default_rng(seed)
    cells = int(np.prod(grid))
    keys = np.stack([[rng.permutation(cells)[:count] for _ in range(cells)] for _ in range(heads)]).astype(np.int32)
    weights = -np.sort(-(rng.random((heads, cells, count)) ** 6), -1).astype(np.float32)
    weights[:, ::2, count // 2 :] = 0
    keys[weights == 0] = 0
    weights /= 1.3 * weights.sum(-1, keepdims=True)
    row = rng.random((heads, *grid)).astype(np.float32)
    row /= 2 * row.sum((1, 2, 3), keepdims=True)
    on_class = (1 - weights.sum(-1)).astype(np.float32)
    half = np.full(heads, 0.5, np.float32)
    return TopKeys(1, 0, "space", tuple(range(heads - 1)), grid, (1, 1, 1), keys, weights, on_class, row, half)


def unpack(content: bytes, shape: tuple[int, int, int], cells: int) -> tuple[np.ndarray, ...]:
    """What the page's script does, written again: dense weights, on_class, class rows and their tops."""
    heads, queries, count = shape
    data, slots, rows = zlib.decompress(content), heads * queries * count, heads * queries
    part = np.frombuffer(data, np.uint8).astype(int)
    steps = part[:slots] + 256 * part[slots : 2 * slots]
    keys = steps.reshape(shape).cumsum(-1)
    low, high, class_low, class_high = part[3 * slots : 3 * slots + 4 * rows].reshape(4, heads, queries)
    top = ((low + 256 * high) / 65535) ** 2
    weights = top[..., None] * (part[2 * slots : 3 * slots].reshape(shape) / 255) ** 2
    dense = np.zeros((heads, queries, cells))
    for head, query, place in np.ndindex(shape):
        dense[head, query, keys[head, query, place]] += weights[head, query, place]
    at = 3 * slots + 4 * rows
    row = part[at : at + heads * cells].reshape(heads, cells)
    tail = struct.unpack(f"<{2 * heads}f", data[at + heads * cells :])
    return dense, (class_low + 256 * class_high) / 65535, (row / 255) ** 2, np.array(tail).reshape(heads, 2)


@pytest.mark.parametrize("grid", [(3, 2, 5), (8, 14, 14)])
def test_what_is_packed_comes_out_within_rounding(grid: tuple[int, int, int]) -> None:
    """The larger grid has more than 256 cells: keys need both bytes."""
    found, cells = random_keys(2, grid, 6), int(np.prod(grid))
    dense, on_class, row, tail = unpack(pack_keys(found), found.keys.shape, cells)
    expected = np.zeros_like(dense)
    for at in np.ndindex(found.keys.shape):
        expected[at[0], at[1], found.keys[at]] += found.weights[at]
    error = np.abs(dense - expected) / found.weights.max(-1, keepdims=True)
    assert error.max() < 0.0045
    assert np.abs(on_class - found.on_class).max() < 1e-5
    flat = found.class_row.reshape(2, -1)
    np.testing.assert_allclose(row * tail[:, :1], flat, atol=0.0045 * flat.max())
    np.testing.assert_allclose(tail[:, 1], 0.5)


def test_a_map_of_nothing_and_shares() -> None:
    assert set(zlib.decompress(pack_map(np.zeros((2, 2, 2))))) == {0}
    np.testing.assert_allclose(shares(np.array([3.0, -1.0, 1.0])), [0.75, 0, 0.25])
    np.testing.assert_array_equal(shares(np.array([0.5, 0.3])), [0.5, 0.3])  # the rest is on class tokens


def test_what_fits() -> None:
    """As for ViT-B on the meta device; what is too much for eight keys of each query becomes coarse."""
    with torch.device("meta"):
        model = TimeSformer(TimeSformerConfig(attention="divided"))
    every = sites(model)
    count, cell = what_fits(every, (8, 14, 14), 13, PAGE_BYTES)
    assert cell == (1, 1, 1)
    assert count >= 16
    assert what_fits(every[:2], (8, 14, 14), 13, PAGE_BYTES)[0] == COUNTS[0]
    count, cell = what_fits(every, (96, 14, 14), 13, PAGE_BYTES)
    assert count >= 8
    assert cell == (2, 2, 2) or np.prod(cell) > 8
    with pytest.raises(InputError, match=r"too few for .* maps, even with one cell"):
        what_fits(every, (8, 14, 14), 13, 100)


class Reader(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            key = self.tags[-1][1].get("id") or self.tags[-1][0]
            self.texts[key] = self.texts.get(key, "") + data


def test_hostile_names_are_text() -> None:
    model, clip, _ = pointing_model("joint")
    side = explorer_side(model, seen_of(clip), name=NASTY, note=NASTY, guesses=[(NASTY, 0.5)], methods={})
    page = explorer_page([side], title=NASTY)
    plain = Reader(explorer_page([explorer_side(model, seen_of(clip), name="a", guesses=[("b", 0.5)])], title="t"))
    hostile = Reader(page)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert "\x1b" not in page
    shown = NASTY.replace("\x1b", "\\x1b").replace("\u2028", "\\u2028")
    assert hostile.texts["title"].strip() == shown
    assert shown in hostile.texts["h1"]
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    (about,) = json.loads(data)["models"]
    assert about["name"] == about["top"][0]["label"] == shown
    assert not set(data) & set("<>&")


def test_the_page_is_of_one_or_two_models_and_the_maps_fit(tmp_path) -> None:
    model, clip, _ = pointing_model("divided")
    seen = seen_of(clip)
    weights = np.full((1, 1, *GRID), 1 / 60, np.float32)
    rolled = Saliency("rollout", ("class",), weights, np.full((1, 1), 0.5, np.float32))
    side = explorer_side(model, seen, name="a", methods={"rollout": rolled}, keys=top_keys(model, clip, heads=[1]))
    assert side.about["heads"] == ["head 1", "mean of heads"]
    assert side.about["methods"][0]["onClass"] == 0.5
    path = write_explorer(tmp_path / "page.html", [side, side], title="t")
    assert path.stat().st_size > 2 * side.size
    for number in (0, 3):
        with pytest.raises(InputError, match=f"expected one or two models, got {number}"):
            write_explorer(tmp_path / "x.html", [side] * number, title="t")
    wrong = Saliency("rollout", ("class",), weights[..., :2], None)
    with pytest.raises(InputError, match=r"expected a map of .* for rollout"):
        explorer_side(model, seen, name="a", methods={"rollout": wrong})
    assert GRID[1] * PATCH == seen.frames.shape[1]
    few = explorer_side(model, seen, name="a", keys=top_keys(model, clip, count=2, coarsen=(1, 2, 2)))
    assert "cells of 1 x 2 x 2" in few.about["note"]
