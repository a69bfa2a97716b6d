"""The attention steps of a block by name, held under names that Python can read as attributes."""

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


class Steps(nn.ModuleDict):
    """Attention steps by name; in `state_dict` and for `load_state_dict` they have these names too.

    torch.export writes code with the path of every parameter, in which a step called `global` is a syntax error; such a
    step is held as `global_`, the name in `named_parameters`.
    """

    def __init__(self, steps: Mapping[str, nn.Module]) -> None:
        super().__init__(steps)
        self._register_state_dict_hook(_give_names)
        self.register_load_state_dict_pre_hook(_take_names)
        self.register_load_state_dict_post_hook(_give_back)

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(held(key))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        super().__setitem__(held(key), module)

    def __contains__(self, key: str) -> bool:
        return super().__contains__(held(key))

    def __iter__(self) -> Iterator[str]:
        return (named(key) for key in super().__iter__())

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(held(name))

    def keys(self) -> Any:
        """Return the names of the steps."""
        return dict.fromkeys(self).keys()

    def items(self) -> Any:
        """Return names and steps."""
        return {name: self[name] for name in self}.items()


def held(name: str) -> str:
    """Return the attribute under which a step is held."""
    return f"{name}_" if keyword.iskeyword(name) else name


def named(attribute: str) -> str:
    """Return the name of the step that is held under an attribute."""
    return attribute[:-1] if keyword.iskeyword(attribute[:-1]) else attribute


def _give_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, {f"{attribute}.": f"{named(attribute)}." for attribute in module._modules})


def _take_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, {f"{named(attribute)}.": f"{attribute}." for attribute in module._modules})


def _rename(state: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    """Give the steps' weights other names, in place and in their order."""
    if all(old == new for old, new in names.items()):
        return
    for key in [key for key in state if key.startswith(prefix)]:
        step, dot, rest = key.removeprefix(prefix).partition(".")
        state[f"{prefix}{names.get(step + dot, step + dot)}{rest}"] = state.pop(key)


def _give_back(module: nn.Module, incompatible: Any) -> None:
    """Name missing and unexpected weights as they are named in a state."""
    for keys in (incompatible.missing_keys, incompatible.unexpected_keys):
        for attribute in module._modules:
            if named(attribute) != attribute:
                keys[:] = [key.replace(f"steps.{attribute}.", f"steps.{named(attribute)}.") for key in keys]
