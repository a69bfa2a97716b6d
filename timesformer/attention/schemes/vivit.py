"""ViViT's factorised models 2, 3 and 4 (arXiv 2103.15691, section 3.3).

Model 1 is `joint` with a full table of positions (`position: table`).  No model has an extra linear.  Tokens are
tubelets where `tubelet_size` is above 1.

Where the paper and the released code (scenic) disagree, these schemes follow the paper.  Model 3 attends over space
before time (the code does the reverse by default), and its temporal attention starts as a zero residual (the code
copies the spatial weights).  In model 4 the first half of the heads attends over space (in the code, over time).
"""

from timesformer.attention.scheme import Encoder, Scheme, Step
from timesformer.attention.schemes.divided import TIME
from timesformer.attention.schemes.space import SPACE

space = Step("space", (SPACE,), cls="absent")
time = Step("time", (TIME,), cls="absent", zero_start=True)
both = Step("space_time", (SPACE, TIME), cls="absent")

SCHEMES = [
    Scheme(
        name="factorised_encoder",
        encoders=(
            Encoder(block=((Step("space", (SPACE,)),),), class_tokens="frame"),
            Encoder(block=((Step("time", (TIME,)),),), depth="temporal_depth"),
        ),
        position="table",
        code="FE",
        title="ViViT 2, factorised encoder",
    ),
    Scheme(
        name="factorised_self_attention",
        encoders=(Encoder(block=((space,), (time,)), class_tokens="none", pool="mean"),),
        position="table",
        code="FSA",
        title="ViViT 3, factorised self-attention",
    ),
    Scheme(
        name="factorised_dot_product",
        encoders=(Encoder(block=((both,),), class_tokens="none", pool="mean"),),
        position="table",
        code="FDP",
        title="ViViT 4, factorised dot-product",
    ),
]
