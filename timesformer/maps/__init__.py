"""Pictures of attention."""

from timesformer.maps.neighbourhoods import draw_scheme

__all__ = ["draw_scheme"]
