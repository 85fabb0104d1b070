"""Embedded backends: everything in one folder, no account, no network.

`backend` is what `vrag.compose` finds; each module behind it is imported when its part is made, because the extra
`local` is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vrag.backends import Backend, Context, check_options
from vrag.errors import ConfigError
from vrag.interfaces import Embedder, Inpainter, Signer, Storage, VectorStore, VideoGenerator
from vrag.values.canonical import JSON

if TYPE_CHECKING:
    from vrag.knowledge.reindex import Indexes

__all__ = ["backend"]


def _wordllama(options: Mapping[str, JSON], _context: Context) -> Embedder:
    check_options(options)
    from vrag.backends.local.text_embedder import WordLlamaEmbedder  # noqa: PLC0415  # the extra `local`

    return WordLlamaEmbedder()


def _sentence_model(options: Mapping[str, JSON], _context: Context) -> Embedder:
    check_options(options, ("folder", "name"))
    from vrag.backends.local.sentence_model import SentenceModelEmbedder  # noqa: PLC0415  # the extra `onnx`

    folder, name = _model_folder(options)
    return SentenceModelEmbedder(folder, name=name)


def _clip_model(options: Mapping[str, JSON], _context: Context) -> Embedder:
    check_options(options, ("folder", "name"))
    from vrag.backends.local.clip_model import ClipModelEmbedder  # noqa: PLC0415  # the extra `onnx`

    folder, name = _model_folder(options)
    return ClipModelEmbedder(folder, name=name)


def _exact(options: Mapping[str, JSON], context: Context) -> VectorStore:
    check_options(options, ("folder",))
    from vrag.backends.local.index_pointer import active_folder  # noqa: PLC0415  # beside the store
    from vrag.backends.local.vector_store import LocalVectorStore  # noqa: PLC0415  # numpy

    return LocalVectorStore(active_folder(_folder(options, context)), context.space)


def _exact_indexes(options: Mapping[str, JSON], context: Context) -> Indexes:
    check_options(options, ("folder",))
    from vrag.backends.local.indexes import LocalIndexes  # noqa: PLC0415  # numpy

    return LocalIndexes(_folder(options, context))


def _storage(options: Mapping[str, JSON], context: Context) -> Storage:
    check_options(options, ("folder",))
    from vrag.backends.local.storage import FolderStorage  # noqa: PLC0415  # beside the others

    return FolderStorage(_folder(options, context))


def _camera_moves(options: Mapping[str, JSON], context: Context) -> VideoGenerator:
    check_options(options)
    from vrag.backends.local.camera_moves import CameraMoveRenderer  # noqa: PLC0415  # the extra `local`
    from vrag.generation.render_queue import RenderQueue  # noqa: PLC0415  # beside its renderer

    return RenderQueue(CameraMoveRenderer(), context.folder)


def _opencv(options: Mapping[str, JSON], _context: Context) -> Inpainter:
    check_options(options)
    from vrag.backends.local.inpainter import OpenCVInpainter  # noqa: PLC0415  # the extra `local`

    return OpenCVInpainter()


def _key_file(options: Mapping[str, JSON], context: Context) -> Signer:
    check_options(options, ("file",))
    from vrag.provenance.signing import LocalSigner  # noqa: PLC0415  # cryptography

    given = options.get("file")
    if given is not None and not isinstance(given, str):
        raise ConfigError("The option 'file' is the path of a private key in PEM.", hint='write: file = "signing.pem"')
    return LocalSigner.load_or_create(Path(given).expanduser() if given else context.folder / "signing.pem")


def _model_folder(options: Mapping[str, JSON]) -> tuple[Path, str | None]:
    """The folder of a model, and its name if one is given."""
    folder, name = options.get("folder"), options.get("name")
    if not isinstance(folder, str) or not folder:
        raise ConfigError("The option 'folder' is the path of a model.", hint='write: folder = "models/NAME"')
    if name is not None and not isinstance(name, str):
        raise ConfigError("The option 'name' is a text.", hint='write: name = "all-MiniLM-L6-v2"')
    return Path(folder).expanduser(), name


def _folder(options: Mapping[str, JSON], context: Context) -> Path:
    given = options.get("folder")
    if given is None:
        return context.folder
    if not isinstance(given, str) or not given:
        raise ConfigError("The option 'folder' is a path.", hint='write: folder = "index"')
    return Path(given).expanduser()


backend: Backend = {
    "embedder": {"wordllama": _wordllama, "sentence-model": _sentence_model, "clip-model": _clip_model},
    "vector_store": {"exact": _exact},
    "vector_indexes": {"exact": _exact_indexes},
    "storage": {"folder": _storage},
    "video_generator": {"camera-moves": _camera_moves},
    "inpainter": {"opencv": _opencv},
    "captioner": {},
    "signer": {"key-file": _key_file},
}
