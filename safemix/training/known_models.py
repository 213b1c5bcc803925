"""From a model's name to something `from_pretrained` can load.

A name is one of the models that safemix brings along (`smollm2`, `tiny`), a folder with a
`config.json`, or a Hugging Face Hub id. A model that safemix brings along is built once into a
cache folder: in a temporary folder beside its place, under a file lock, then renamed. So it is
either whole or absent, whichever process dies, and many ranks may ask at once.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from safemix.errors import ModelError

# The folder name changes whenever a builder's output would, so a stale copy is never used.
_SMOLLM2_FOLDER = "smollm2-135m-instruct-0.1.2-r1"
_TINY_FOLDER = "tiny-r1"
KNOWN_MODELS = ("smollm2", "tiny")


def default_cache_dir() -> Path:
    """The cache folder: `SAFEMIX_CACHE`, else `safemix` in the XDG cache folder."""
    given = os.environ.get("SAFEMIX_CACHE")
    if given:
        return Path(given).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "safemix"


def resolve_model(name: str, cache_dir: Path | None = None, revision: str | None = None) -> str:
    """Find the model that `name` means, and build it first if safemix brings it along.

    Args:
        name: `smollm2`, `tiny`, a folder with a `config.json`, or a Hub id.
        cache_dir: where built models are kept; `default_cache_dir()` if not given.
        revision: commit, tag or branch of a Hub model; ignored for the others.

    Returns:
        A folder or a Hub id for `from_pretrained`.

    Raises:
        ModelError: if there is no such model, or it cannot be built or reached.
    """
    if name in KNOWN_MODELS:
        return str(_known_model(name, (cache_dir or default_cache_dir()) / "models"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(name, folder)
        return str(folder)
    if folder.exists() or _is_path_like(name):
        what = "is a file, not a folder" if folder.exists() else "is not a folder"
        raise ModelError(f"model {name!r} {what}: {_legal()}")
    _check_hub_id(name, revision)
    return name


def _legal() -> str:
    names = ", ".join(KNOWN_MODELS)
    return f"give {names}, a folder with config.json, or a Hugging Face Hub id (owner/name)"


def _is_path_like(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


def _check_folder(name: str, folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model {name!r} is a folder with an adapter only: give the folder or Hub id of its "
            "base model (base_model_name_or_path in its adapter_config.json)"
        )
    raise ModelError(f"model {name!r} is a folder without config.json: {_legal()}")


def _check_hub_id(name: str, revision: str | None) -> None:
    """Ask the cache, then the Hub. One request without retries: a typing error shows at once."""
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    near = difflib.get_close_matches(name.lower(), KNOWN_MODELS, n=1)
    hint = f"did you mean {near[0]!r}? Else " if near else ""
    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return
        HfApi().model_info(name, revision=revision, timeout=15)
        hf_hub_download(name, "config.json", revision=revision)
    except GatedRepoError:
        raise ModelError(
            f"model {name!r} is gated on the Hub: accept its licence there and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"model {name!r} has no revision {revision!r} on the Hub: set model_revision to one "
            "of its commits, tags or branches"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"model {name!r} is neither a folder here nor a model on the Hub: {hint}{_legal()}"
        ) from None
    except Exception as error:
        # No narrower class: the Hub client has changed its HTTP library, and its errors, twice.
        raise ModelError(
            f"model {name!r} is not a folder here, not in the Hub cache, and the Hub cannot be "
            f"reached ({type(error).__name__}): {hint}{_legal()}"
        ) from None


def _known_model(name: str, root: Path) -> Path:
    if name == "tiny":
        from safemix.training.tiny import build_tiny as build

        folder = root / _TINY_FOLDER
    else:
        from safemix.training.smollm2 import build_smollm2 as build

        folder = root / _SMOLLM2_FOLDER
    try:
        return build_once(folder, build)
    except OSError as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ModelError(
            f"model {name!r} cannot be written to {root}: {reason}: free some space or set "
            "SAFEMIX_CACHE to another folder"
        ) from None


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Run `build` on an empty folder that then becomes `folder`, unless `folder` is there.

    Args:
        folder: where the result shall lie.
        build: fills the empty folder that it is given.

    Returns:
        `folder`, complete.

    Raises:
        OSError: if the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if folder.is_dir():
            return folder
        # The lock is ours, so any temporary folder was left by a process that was killed.
        for stale in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(
            tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp")
        )
        try:
            build(temporary)
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder
