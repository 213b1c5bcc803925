"""Reading records of a Hugging Face dataset: by name, or from a folder of this machine.

Datasets that bring code are not run: the library refuses them, and nothing here allows them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow as pa
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from safemix.errors import DataError
from safemix.rows.files import SUFFIXES, Records, local_path
from safemix.rows.text import Numbered, reason
from safemix.settings import SourceSettings

# Seconds until the Hub must have answered one small request. Without this check the library
# itself tries for 23 s on a machine without a network, and longer behind a silent firewall.
_PROBE_SECONDS: Final = 15.0


def open_hub(spec: SourceSettings) -> Records:
    """Load a dataset by name or from a folder, and prepare to read it.

    Raises:
        DataError: naming the dataset and whether it is unknown, gated, or out of reach.
    """
    given = spec.hub or ""
    path = local_path(given)
    if path.is_dir():
        dataset = _from_folder(path, spec)
    elif path.is_file():
        raise DataError(f"{path} is a file, not a dataset: write it as `file:`")
    elif given.count("/") > 1 or given.startswith((".", "~", "/")):
        raise DataError(f"{path}: no such dataset folder")
    elif path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path}: no such file")
    else:
        dataset = _from_hub(given, spec)
    columns = tuple(dataset.column_names)
    return Records(given, "row", columns, lambda needed: _records(dataset, needed, given))


def _records(dataset: Any, needed: Collection[str], where: str) -> Numbered:
    number = 0
    try:
        # Only what is read gets decoded: other columns may hold images or sound.
        for batch in dataset.select_columns(list(needed)).iter(batch_size=1024):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(batch, values, strict=True))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where} row {number + 1}: broken dataset: {reason(error)}") from error


def _from_folder(path: Path, spec: SourceSettings) -> Any:
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if not saved:
        return _load(str(path), spec)
    try:
        dataset = datasets.load_from_disk(str(path))
    except (
        Exception
    ) as error:  # Whatever the library says of a damaged folder is the user's to see.
        raise DataError(f"{path}: cannot load the saved dataset: {reason(error)}") from error
    if isinstance(dataset, datasets.DatasetDict):
        if spec.split not in dataset:
            raise DataError(f"{path}: no split {spec.split!r}, legal are {', '.join(dataset)}")
        return dataset[spec.split]
    return dataset


def _from_hub(name: str, spec: SourceSettings) -> Any:
    if datasets.config.HF_HUB_OFFLINE:
        return _from_cache(name, spec, "HF_HUB_OFFLINE is set")
    problem = _probe(name, spec.revision)
    if problem is None:
        return _load(name, spec)
    if isinstance(problem, HFValidationError):
        raise DataError(f"{name!r} is neither a folder here nor a legal dataset name")
    if isinstance(problem, RevisionNotFoundError):
        raise DataError(f"{name}: no revision {spec.revision!r} on the Hugging Face Hub")
    if isinstance(problem, GatedRepoError):
        raise DataError(_gated(name))
    if isinstance(problem, RepositoryNotFoundError):
        raise DataError(
            f"{name}: neither a folder here nor a dataset on the Hugging Face Hub, or a private "
            "one: check the name, or log in with `hf auth login`"
        )
    if isinstance(problem, HfHubHTTPError) and problem.response.status_code < 500:
        raise DataError(f"{name}: refused by the Hugging Face Hub: {reason(problem)}") from problem
    # Anything else comes from the HTTP library, which differs between versions: no answer.
    why = f"the Hugging Face Hub cannot be reached ({reason(problem)})"
    return _from_cache(name, spec, why)


def _probe(name: str, revision: str | None) -> Exception | None:
    """Ask the Hub for the dataset once, and give the error there was.

    In a thread, because the time to look up the Hub's address has no limit of its own.
    """
    answer: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().dataset_info(name, revision=revision, timeout=_PROBE_SECONDS * 2 / 3)
            answer.append(None)
        except Exception as error:  # It is given to the caller, who tells the kinds apart.
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="safemix-hub-probe")
    thread.start()
    thread.join(_PROBE_SECONDS)
    return answer[0] if answer else TimeoutError(f"no answer in {_PROBE_SECONDS:.0f} s")


def _from_cache(name: str, spec: SourceSettings, why: str) -> Any:
    """Load a dataset that an earlier run has left in the local cache."""
    try:
        with _offline():
            dataset = _load(name, spec)
    except DataError as error:
        if not isinstance(error.__cause__, ConnectionError):
            raise
        raise DataError(
            f"{name}: no such folder here; {why}, and no such dataset is in the local cache: "
            "connect, or download it elsewhere and give its files"
        ) from error
    # The library takes the newest cached copy whatever revision was asked for.
    if spec.revision is not None:
        parts = {part for file in dataset.cache_files for part in Path(file["filename"]).parts}
        if spec.revision not in parts:
            raise DataError(
                f"{name}: {why}, and the cached copy is not known to be revision "
                f"{spec.revision!r}: connect, or leave `revision` out"
            )
    return dataset


@contextmanager
def _offline() -> Iterator[None]:
    """The library's own offline mode, for as long as one call takes."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _load(name: str, spec: SourceSettings) -> Any:
    try:
        return datasets.load_dataset(
            name, name=spec.config, split=spec.split, revision=spec.revision
        )
    except datasets.exceptions.DatasetNotFoundError as error:
        text = _gated(name) if "gated" in str(error) else f"{name}: {reason(error)}"
        raise DataError(text) from error
    # The library raises a dozen kinds for a wrong split, config or file; the cause is kept.
    except Exception as error:
        root: BaseException = error
        while isinstance(root, datasets.exceptions.DatasetGenerationError) and root.__cause__:
            root = root.__cause__
        raise DataError(f"{name}: cannot be loaded: {reason(root)}") from error


def _gated(name: str) -> str:
    return (
        f"{name}: a gated dataset: ask for access at https://huggingface.co/datasets/{name} "
        "and log in with `hf auth login`"
    )
