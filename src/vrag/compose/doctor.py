"""Is everything there that the configuration names? Each check is one line, with what to do next; nothing is bought.

Buckets get one small object, which is deleted again; an OpenSearch endpoint gets small indexes that are deleted again.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import frozen

from vrag.clock import Clock, SystemClock
from vrag.compose.configuration import Configuration
from vrag.compose.models import configured_models
from vrag.errors import UnsupportedRequestError, UsageError, VRAGError
from vrag.media.ref import MediaRef
from vrag.values.requests import EditRequest, Estimate, Input, Shot, VideoRequest
from vrag.values.vectors import Item
from vrag.workspace.db import use_safest_journal

if TYPE_CHECKING:
    from vrag.compose.assembly import Assembly
    from vrag.interfaces import VideoGenerator

__all__ = ["Check", "Price", "examine", "price_job", "read_or_explain"]

_LOCAL_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "local:wordllama": ("wordllama", "tokenizers"),
    "local:camera-moves": ("av", "cv2"),
    "local:opencv": ("cv2",),
}
_ONNX_USES: Final = frozenset({"local:sentence-model", "local:clip-model"})
_ONNX_MODULES: Final = ("onnxruntime", "tokenizers")
_SPARE_BYTES: Final = 1 << 30
_FREE_CODECS: Final = ("libsvtav1", "libaom-av1")


@frozen(kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "FAIL", "-"]
    """`-`: not looked at, or not there and not needed."""
    message: str
    next_step: str | None = None
    """What to do where it is not well."""


@frozen(kw_only=True)
class Price:
    """What one thing of a job costs."""

    what: str
    estimate: Estimate


def examine(assembly: Assembly, *, environ: Mapping[str, str], clock: Clock | None = None) -> Iterator[Check]:
    """Look at everything that is configured, one thing after the other; it never raises for one of them.

    Args:
        assembly: Of the configuration.
        environ: Named where credentials are missing.
        clock: Says which models have been retired.
    """
    configuration, clock = assembly.configuration, clock or SystemClock()
    yield _file(configuration)
    yield from _workspace(configuration)
    yield _sqlite(configuration)
    yield from _extras(configuration)
    yield _codec()
    for model in configured_models(configuration, clock.now()):
        if model.problem is not None:
            yield Check(name=f"model {model.id}", state="FAIL", message=f"{model.key}: {model.problem}")
    used = {part.use.partition(":")[0] for part in configuration.parts.values()}
    if "aws" in used or _knowledge_base_uses(configuration, "aws"):
        from vrag.compose.doctor_aws import examine_aws  # noqa: PLC0415  # boto3

        yield from examine_aws(assembly, environ=environ, clock=clock)
    for name in assembly.generator_names():
        yield _made(assembly, name)


def _knowledge_base_uses(configuration: Configuration, package: str) -> bool:
    return any(part.use.startswith(f"{package}:") for part in configuration.parts.values())


def _file(configuration: Configuration) -> Check:
    if configuration.path is None:
        return Check(name="configuration", state="-", message="no vrag.toml: everything is embedded, with the defaults")
    return Check(name="configuration", state="ok", message=str(configuration.path))


def _workspace(configuration: Configuration) -> Iterator[Check]:
    folder = configuration.folder
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"vrag")
    except OSError as error:
        yield Check(
            name="workspace",
            state="FAIL",
            message=f"'{folder}' cannot be written: {error.strerror}",
            next_step="--workspace DIR, or [workspace] folder = … in vrag.toml",
        )
        return
    made = "" if there == folder else ", which the first command makes"
    yield Check(name="workspace", state="ok", message=f"{folder}{made}")
    free = shutil.disk_usage(there).free
    enough = free >= _SPARE_BYTES
    yield Check(
        name="disk",
        state="ok" if enough else "FAIL",
        message=f"{free / (1 << 30):.1f} GiB free at '{there}'",
        next_step=None if enough else "make room, or choose another workspace: a video and its pictures take some MiB",
    )


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _sqlite(configuration: Configuration) -> Check:
    """The journal mode on the disk of the workspace: some network disks refuse one."""
    version = sqlite3.sqlite_version
    try:
        with tempfile.TemporaryDirectory(dir=_existing(configuration.folder), prefix=".vrag-doctor-") as folder:
            path = Path(folder) / "probe.db"
            with closing(sqlite3.connect(path)) as connection:
                use_safest_journal(connection, path)
                # The file format tells: byte 18 is 2 for WAL (sqlite.org/fileformat2.html).
                header = path.read_bytes()[:20]
    except (OSError, sqlite3.Error, VRAGError) as error:
        return Check(
            name="sqlite",
            state="FAIL",
            message=f"SQLite {version}: {error}",
            next_step="put the workspace on a local disk",
        )
    if len(header) > 18 and header[18] == 2:
        return Check(name="sqlite", state="ok", message=f"SQLite {version}, journal mode WAL")
    said = f"SQLite {version}, rollback journal: its WAL is not safe before 3.51.3"
    return Check(name="sqlite", state="ok", message=said)


def _extras(configuration: Configuration) -> Iterator[Check]:
    wanted = {part.use: part.is_default for part in configuration.parts.values() if part.use in _LOCAL_MODULES}
    if configuration.knowledge_bases is None:
        wanted.setdefault("local:wordllama", True)
    missing = sorted({name for use in wanted for name in _LOCAL_MODULES[use] if find_spec(name) is None})
    if not wanted:
        yield Check(name="extra local", state="-", message="nothing embedded is configured")
    elif not missing:
        yield Check(name="extra local", state="ok", message="installed")
    else:
        asked = [use for use, default in wanted.items() if set(_LOCAL_MODULES[use]) & set(missing) and not default]
        needed = bool(asked) or "local:camera-moves" in wanted
        yield Check(
            name="extra local",
            state="FAIL" if needed else "-",
            message=f"missing: {', '.join(missing)}" + (f" (for {', '.join(asked)})" if asked else ""),
            next_step="pip install 'vrag[local]'",
        )
    models = sorted({part.use for part in configuration.parts.values()} & _ONNX_USES)
    if models:
        missing = [name for name in _ONNX_MODULES if find_spec(name) is None]
        yield Check(
            name="extra onnx",
            state="FAIL" if missing else "ok",
            message=f"missing: {', '.join(missing)} (for {', '.join(models)})" if missing else "installed",
            next_step="pip install 'vrag[onnx]'" if missing else None,
        )
    heic = find_spec("pillow_heif") is not None
    yield Check(
        name="extra heic",
        state="ok" if heic else "-",
        message="installed" if heic else "phone pictures (HEIC) are rejected",
        next_step=None if heic else "pip install 'vrag[heic]'",
    )


def _codec() -> Check:
    """AV1 is the codec without a licence to pay; H.264 encoders of PyAV are under the GPL."""
    if find_spec("av") is None:
        return Check(
            name="free codec", state="-", message="PyAV is not installed", next_step="pip install 'vrag[local]'"
        )
    import av  # noqa: PLC0415  # an extra

    found = [name for name in _FREE_CODECS if name in av.codecs_available]
    if found:
        return Check(name="free codec", state="ok", message=f"av1 by {found[0]}")
    return Check(
        name="free codec", state="-", message="this PyAV has no AV1 encoder", next_step="pip install --upgrade av"
    )


def _made(assembly: Assembly, name: str) -> Check:
    try:
        generator = assembly.generator(name)
    except VRAGError as error:
        return Check(name=f"generator {name}", state="FAIL", message=error.message, next_step=error.hint)
    try:
        return Check(name=f"generator {name}", state="ok", message=str(generator.model))
    finally:
        generator.close()


# -- prices


def price_job(
    assembly: Assembly,
    *,
    generator: str | None,
    knowledge_base: str | None,
    width_px: int,
    height_px: int,
    fps: float,
    duration_s: float,
    codec: str,
) -> list[Price]:
    """What one video and what belongs to it cost; nothing is sent, not even a query.

    Args:
        assembly: Of the configuration.
        generator: Its name; None where there is one.
        knowledge_base: Whose captioner and embedder are asked too; None asks none.
        width_px: Of the video.
        height_px: As above.
        fps: Frames a second.
        duration_s: Its length.
        codec: As for `vrag generate`.

    Raises:
        UsageError: There is a choice of generators.
        UnsupportedRequestError: The generator refuses such a video.
    """
    names = assembly.generator_names()
    name = generator or (names[0] if len(names) == 1 else None)
    if name not in names or name is None:
        raise UsageError(f"Name a generator; there are: {', '.join(names) or 'none'}.", hint=f"--model {names[0]}")
    picture = MediaRef(
        sha256="0" * 64, media_type="image/png", size_bytes=1 << 20, width_px=width_px, height_px=height_px
    )
    made: VideoGenerator = assembly.generator(name)
    try:
        takes = "start_frame" in made.capabilities.roles
        shot = Shot(
            prompt="a lake at dawn",
            inputs=(Input(role="start_frame", media=picture),) if takes else (),
            duration_s=duration_s,
        )
        request = VideoRequest(shots=(shot,), width_px=width_px, height_px=height_px, fps=fps, codec=codec)
        refused = [problem for problem in made.validate(request) if problem.kind == "refused"]
        if refused:
            raise UnsupportedRequestError(
                f"'{name}' ({made.model}) refuses such a video: " + " ".join(one.message for one in refused),
                problems=refused,
                hint="vrag models",
            )
        prices = [Price(what=f"a video of {duration_s:g} s by {name}", estimate=made.estimate(request))]
    finally:
        made.close()
    if (inpainter := assembly.inpainter) is not None:
        for operation in sorted(inpainter.capabilities.operations):
            edit = EditRequest(operation=operation, image=picture, mask=picture, prompt="a lake", mask_prompt="a boat")
            prices.append(Price(what=f"an edit ({operation})", estimate=inpainter.estimate(edit)))
    if knowledge_base is not None:
        prices += _prices_of_a_base(assembly, knowledge_base, picture)
    return prices


def _prices_of_a_base(assembly: Assembly, name: str, picture: MediaRef) -> Iterator[Price]:
    captioner, embedder = assembly.captioner(name), assembly.embedder(name)
    if captioner is not None:
        yield Price(what="a caption", estimate=captioner.estimate([picture]))
    if embedder is not None:
        sees = "image" in embedder.modalities
        item: Any = Item(kind="image", media=picture) if sees else Item(kind="text", text="a lake at dawn " * 5)
        yield Price(what="a picture's vector", estimate=embedder.estimate([item]))
        yield Price(what="a search", estimate=embedder.estimate([Item(kind="text", text="a lake at dawn")]))


def read_or_explain(error: VRAGError) -> Check:
    """The one line where the configuration cannot be read: nothing else can be looked at."""
    return Check(name="configuration", state="FAIL", message=error.message, next_step=error.hint)
