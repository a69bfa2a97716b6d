"""Type names of jaxtyping, or plain substitutes where it is not installed: the model needs only torch and einops."""

try:
    from jaxtyping import Bool, Float, Int, UInt8
except ImportError:
    from torch import Tensor

    class _Plain:
        """Substitute that makes `Float[Tensor, "b d"]` mean `Tensor`."""

        def __class_getitem__(cls, item: object) -> type[Tensor]:
            return Tensor

    Bool = Float = Int = UInt8 = _Plain  # type: ignore[assignment]

__all__ = ["Bool", "Float", "Int", "UInt8"]
