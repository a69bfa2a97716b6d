"""Methods that explain a model's prediction for a clip, by name."""

from collections.abc import Callable

from torch import Tensor

from timesformer.maps.attention import attention_maps
from timesformer.maps.capture import sites
from timesformer.maps.gradients import Target, grad_cam, input_gradient, relevance
from timesformer.maps.rollout import rollout
from timesformer.maps.walk import Saliency
from timesformer.models.timesformer import TimeSformer

Method = Callable[[TimeSformer, Tensor, Target], Saliency]
"""Function from a model, clips and the class to explain (None: the predicted one) to a map of each clip's patches."""


def last_attention(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Class token's map, averaged over heads, in the last step of the first encoder in which it takes part.

    Without a class token it is the mean over the patches' rows.  The target is ignored.
    """
    every = [site for site in sites(model) if site.encoder == 0]
    seeing = [site for site in every if site.step.cls != "absent"] or every
    (one,) = attention_maps(model, clip, layers=[seeing[-1].layer], steps=[seeing[-1].step.name])
    return Saliency("last attention", ("class",), one.weights.mean(1), one.on_class.mean(1))


def plain_rollout(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Rollout from the input of the head; the target is ignored."""
    return rollout(model, clip)


def norm_rollout(model: TimeSformer, clip: Tensor, target: Target = None) -> Saliency:
    """Rollout weighted by the norms of the steps' contributions; the target is ignored."""
    return rollout(model, clip, weighting="norm")


METHODS: dict[str, Method] = {
    "attention": last_attention,
    "rollout": plain_rollout,
    "rollout_norm": norm_rollout,
    "relevance": relevance,
    "input_gradient": input_gradient,
    "grad_cam": grad_cam,
}
