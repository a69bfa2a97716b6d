"""Attention maps, explanations of predictions, their measures and pictures."""

from timesformer.maps.attention import AttentionMap, AttentionMaps, attention_maps
from timesformer.maps.clusters import draw_features
from timesformer.maps.difference import Difference, difference, draw_difference
from timesformer.maps.explorer import explorer_side, write_explorer
from timesformer.maps.gradients import grad_cam, input_gradient, relevance
from timesformer.maps.measures import (
    Curves,
    class_share,
    deletion_insertion,
    distance,
    energy_inside,
    entropy,
    head_table,
    pointing_game,
)
from timesformer.maps.methods import METHODS
from timesformer.maps.neighbourhoods import draw_scheme
from timesformer.maps.pictures import draw_heads, draw_overlays, draw_time
from timesformer.maps.reach import draw_reach
from timesformer.maps.rollout import rollout
from timesformer.maps.seen import Seen, see
from timesformer.maps.timeline import draw_timelines
from timesformer.maps.top_keys import TopKeys, top_keys
from timesformer.maps.walk import Saliency

__all__ = [
    "METHODS",
    "AttentionMap",
    "AttentionMaps",
    "Curves",
    "Difference",
    "Saliency",
    "Seen",
    "TopKeys",
    "attention_maps",
    "class_share",
    "deletion_insertion",
    "difference",
    "distance",
    "draw_difference",
    "draw_features",
    "draw_heads",
    "draw_overlays",
    "draw_reach",
    "draw_scheme",
    "draw_time",
    "draw_timelines",
    "energy_inside",
    "entropy",
    "explorer_side",
    "grad_cam",
    "head_table",
    "input_gradient",
    "pointing_game",
    "relevance",
    "rollout",
    "see",
    "top_keys",
    "write_explorer",
]
