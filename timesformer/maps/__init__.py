"""Pictures of attention, and of what a model sees over time."""

from timesformer.maps.attention import AttentionMap, AttentionMaps, attention_maps
from timesformer.maps.neighbourhoods import draw_scheme
from timesformer.maps.timeline import draw_timelines
from timesformer.maps.top_keys import TopKeys, top_keys

__all__ = ["AttentionMap", "AttentionMaps", "TopKeys", "attention_maps", "draw_scheme", "draw_timelines", "top_keys"]
