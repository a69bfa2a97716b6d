"""The Hugging Face hub: a name becomes a local folder, a local folder becomes a repository."""

import re
from pathlib import Path

from timesformer.errors import InputError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ADDRESS = "https://huggingface.co"


def download(name: str) -> Path:
    """The local snapshot of a model's repository: settings, and weights as safetensors where there are any.

    Files that were downloaded before are found without a network.

    Raises:
        InputError: no such repository, or it cannot be reached; says what to download and where to put it.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "scheme*.py"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.bin"]))
    except Exception as error:  # of the client's HTTP library, which differs between its versions
        raise InputError(_unreachable(name, error)) from error
    if not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise InputError(_unreachable(name, "no weights there"))
    return folder


def upload(folder: Path, name: str, *, private: bool = False, message: str = "Upload model") -> str:
    """Upload a folder's files unchanged; create the repository if it does not exist.  Return its address.

    Raises:
        InputError: not a repository's name, or the hub refused or cannot be reached (no token, no network).
    """
    from huggingface_hub import HfApi

    if not HUB_NAME.fullmatch(name):
        raise InputError(f"push_to_hub: expected a name like user/model, got {name!r}")
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except Exception as error:  # as above
        raise InputError(f"push_to_hub {name}: {_first_line(error)} (`hf auth login` stores a token)") from error
    return f"{ADDRESS}/{name}"


def _unreachable(name: str, reason: object) -> str:
    return (
        f"{name}: no such file or folder here, and nothing usable from the Hugging Face hub ({_first_line(reason)}). "
        f"Without a connection: download config.json, preprocessor_config.json and model.safetensors (or "
        f"pytorch_model.bin, or the files that model.safetensors.index.json lists) from {ADDRESS}/{name}/tree/main, "
        f"put them into the folder {name} below the current one, and the same name works; or give the path of any "
        "other folder that holds them"
    )


def _first_line(reason: object) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]
