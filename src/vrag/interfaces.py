"""Every seam on one page.

A backend needs no base class: any object with these members fits. Ours inherit the protocol and mark `@override`.
Each sentence of a docstring below is a clause of the seam's contract suite in `vrag.testing.contracts`.

Common to all: synchronous and safe to call from many threads; ready-made clients come in as constructor arguments; no
seam loops, sleeps or retries (paging through a list is allowed); media come in by `MediaRef` with a function that opens
them, and never as paths or URLs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

from vrag.media.ref import MediaRef, OpenMedia
from vrag.values.canonical import JSON
from vrag.values.jobs import Handle, JobStatus, Output, Recovery
from vrag.values.requests import (
    CaptionResult,
    EditCapabilities,
    EditRequest,
    EditResult,
    Estimate,
    ModelRef,
    Problem,
    VideoCapabilities,
    VideoRequest,
)
from vrag.values.vectors import EmbeddingSpace, Filter, Item, Match, Purpose, Receipt, VectorQuery, VectorRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
else:
    Vectors = Any

__all__ = [
    "Captioner",
    "Embedder",
    "Inpainter",
    "Signer",
    "Storage",
    "VectorStore",
    "VideoGenerator",
    "VideoRenderer",
]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts and pictures into vectors of one space."""

    __slots__ = ()

    @property
    def model(self) -> ModelRef:
        """Which model answers."""
        ...

    @property
    def space(self) -> EmbeddingSpace:
        """The space of every vector that `embed` returns; it never changes."""
        ...

    @property
    def modalities(self) -> frozenset[str]:
        """The kinds of `Item` that `embed` takes, such as `text` and `image`."""
        ...

    def estimate(self, items: Sequence[Item]) -> Estimate:
        """What `embed(items)` would cost; nothing is sent."""
        ...

    def embed(self, items: Sequence[Item], purpose: Purpose, media: OpenMedia | None = None) -> Vectors:
        """Embed `items`, in order.

        One row an item, in order; `[]` gives an array of shape (0, space.dimension).
        Each row is float32, finite and of unit length, for odd text (empty, one emoji, 100 000 characters) too.
        The same item gives the same row, alone or among others, to 1e-5.
        A kind outside `modalities` is refused with `UnsupportedRequestError`, and nothing is sent.
        """
        ...


@runtime_checkable
class VectorStore(Protocol):
    """Rows with a vector, words, filterable fields and a payload, found by vector, by words or by both."""

    __slots__ = ()

    @property
    def space(self) -> EmbeddingSpace | None:
        """The space of its vectors; None is a store that is searched by words only."""
        ...

    def upsert(self, records: Sequence[VectorRecord]) -> Receipt:
        """Write rows; a key that exists is replaced whole.

        All rows of one call are written or, if it raises `UsageError`, none.
        A key that comes twice in one call ends as the last one.
        A vector of a wrong length, not finite or not of unit length (to 1e-3) is refused with `UsageError`.
        A vector in a store without a space is refused with `SpaceMismatchError`.
        A field outside the allow-list is refused with `UsageError`.
        What `upsert` returned from is not lost when the process is killed.
        """
        ...

    def delete(self, keys: Sequence[str]) -> Receipt:
        """Remove rows; a key that is not there is no error, and `count` is how many were there."""
        ...

    def settled(self, receipt: Receipt) -> bool:
        """Whether searches see that write; it answers at once and never waits."""
        ...

    def search(self, query: VectorQuery) -> Sequence[Match]:
        """Find rows by `query.vector`, by `query.words`, or by each of the two.

        At most `top_k` by vector and at most `top_k` by words; a row found by both comes once, with both.
        Rows found by vector carry their cosine to 1e-4; the best rank by words is 1, and ranks are 1, 2, 3 ….
        Sorted by cosine, best first, then by word rank; equal ones by key.
        The filter is applied exactly: every match fulfils it, and the best `top_k` that fulfil it are found.
        A filter on a field outside the allow-list is refused with `UsageError`.
        A query vector of another space, or any in a store without a space, is refused with `SpaceMismatchError`.
        Words are plain text: no character of theirs is an operator, and words that name nothing match nothing.
        """
        ...

    def get(self, keys: Sequence[str]) -> Sequence[VectorRecord]:
        """The rows with these keys, in the order asked, missing ones left out; vectors, fields and payload unchanged."""
        ...

    def scan(self, filter: Filter | None = None) -> Iterator[VectorRecord]:
        """Every row that fulfils the filter, in order of key, each once."""
        ...

    def count(self, filter: Filter | None = None) -> int:
        """How many rows fulfil the filter."""
        ...

    def close(self) -> None:
        """Let go of files and connections; closing twice is fine."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Bytes by digest, and small documents by name; everything is created once and never changed."""

    __slots__ = ()

    def put(self, stream: BinaryIO, media_type: str) -> MediaRef:
        """Store all bytes of `stream` (from where it stands) under their SHA-256.

        The ref has digest, media type and size in bytes; the caller adds pixels and seconds.
        Putting the same bytes again is no error and stores them once.
        A stream that raises leaves nothing behind that can be opened.
        """
        ...

    def put_named(self, name: str, stream: BinaryIO) -> None:
        """Store all bytes under `name`; a name that exists raises `AlreadyExistsError` and keeps its bytes.

        Of several writers of one name at once exactly one succeeds.
        A name is 1 to 512 characters of `a-z A-Z 0-9 . _ - /`, without empty, `.` or `..` parts; others raise
        `UsageError`, so no name escapes the root.
        """
        ...

    def open(self, key: MediaRef | str, offset: int = 0) -> BinaryIO:
        """Open bytes for reading from `offset`; a missing key raises `NotFoundError`.

        The bytes come back unchanged.
        Bytes of a `MediaRef` that changed in the store raise `VerificationError` by the end of a read from the start.
        """
        ...

    def exists(self, key: MediaRef | str) -> bool:
        """Whether `open` would find it."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that were given to `put_named` and begin with `prefix`, sorted; digests are not listed."""
        ...

    def delete(self, key: MediaRef | str) -> None:
        """Remove it; a missing key is no error."""
        ...

    def uri(self, key: MediaRef | str) -> str:
        """Where it lies, for people and records; it holds no secret and no signature."""
        ...


@runtime_checkable
class VideoGenerator(Protocol):
    """Makes videos in jobs that outlive the process."""

    __slots__ = ()

    @property
    def model(self) -> ModelRef:
        """Which model answers."""
        ...

    @property
    def capabilities(self) -> VideoCapabilities:
        """What it can be asked; it never changes."""
        ...

    @property
    def recovery(self) -> Recovery:
        """How a lost job is found: `token` (start again with the same token), `list` (`find`), or `none`."""
        ...

    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        """What it will not do of `request`; nothing is sent. Empty for a request within `capabilities`."""
        ...

    def estimate(self, request: VideoRequest) -> Estimate:
        """What the request would cost; nothing is sent."""
        ...

    def start(self, request: VideoRequest, media: OpenMedia, token: str) -> Handle:
        """Start a job and return; it never waits for a render.

        A request with a refused problem raises `UnsupportedRequestError` before anything is sent.
        The same token gives the same handle, and one job.
        The same token with another request raises `UsageError` or `BackendError`, and starts nothing.
        """
        ...

    def status(self, handles: Sequence[Handle]) -> Mapping[Handle, JobStatus]:
        """What is known of these jobs; it never waits for a render. A handle left out of the answer means "no news".

        A succeeded job names its outputs; one of them has the role `video`.
        A state that has ended (succeeded, failed, cancelled, lost) never changes again.
        """
        ...

    def find(self, tokens: Sequence[str], since: datetime) -> Mapping[str, Handle]:
        """The jobs started with these tokens at or after `since`; a token left out was not found.

        It raises if it could not look completely: an answer is the whole answer.
        """
        ...

    def fetch(self, handle: Handle, output: Output, offset: int = 0) -> BinaryIO:
        """The bytes of an output, from `offset`; the same on every fetch. A missing one raises `NotFoundError`."""
        ...

    def cancel(self, handle: Handle) -> bool:
        """Ask to stop the job; False where the provider cannot, or it has ended. Cancelling twice is fine."""
        ...

    def close(self) -> None:
        """Let go of connections and workers; running jobs of a provider run on. Closing twice is fine."""
        ...


@runtime_checkable
class VideoRenderer(Protocol):
    """Makes a video in our own process. `vrag.generation.render_queue.RenderQueue` turns it into a `VideoGenerator`."""

    __slots__ = ()

    @property
    def model(self) -> ModelRef:
        """Which renderer, with its version."""
        ...

    @property
    def capabilities(self) -> VideoCapabilities:
        """What it can be asked; it never changes."""
        ...

    def validate(self, request: VideoRequest) -> tuple[Problem, ...]:
        """What it will not do of `request`."""
        ...

    def estimate(self, request: VideoRequest) -> Estimate:
        """What the request would cost; its price is usually 0."""
        ...

    def render(
        self,
        request: VideoRequest,
        media: OpenMedia,
        out: BinaryIO,
        progress: Callable[[float], None],
        stopped: Callable[[], bool],
    ) -> JSON:
        """Write an MP4 to `out` (a seekable file, empty) and return what was done, as JSON, for the record.

        A request with a refused problem raises `UnsupportedRequestError` before anything is written.
        The film has the size, the frame rate and (to one frame) the length that the request asks.
        The same request and the same pictures give the same bytes.
        `progress` is called with numbers that never fall, from 0 to 1, the last of them 1.
        When `stopped()` turns true it soon raises `JobCancelledError`.
        """
        ...


@runtime_checkable
class Inpainter(Protocol):
    """Edits a picture. White in a mask is repainted; adapters convert where their vendor says black."""

    __slots__ = ()

    @property
    def model(self) -> ModelRef:
        """Which model answers."""
        ...

    @property
    def capabilities(self) -> EditCapabilities:
        """What it can be asked; it never changes."""
        ...

    def validate(self, request: EditRequest) -> tuple[Problem, ...]:
        """What it will not do of `request`; nothing is sent."""
        ...

    def estimate(self, request: EditRequest) -> Estimate:
        """What the request would cost; nothing is sent."""
        ...

    def edit(self, request: EditRequest, media: OpenMedia) -> EditResult:
        """Edit one picture in one paid call.

        A request with a refused problem raises `UnsupportedRequestError` before anything is sent.
        A mask that has not the picture's size raises `UsageError`.
        Each picture that comes back has the size of the input, unless the operation is `outpaint`.
        An all-black mask changes nothing; pixels under white change, pixels well away from white do not (PSNR >= 40 dB).
        Pictures that moderation kept back are listed in `rejected`; if it kept all, `ContentRejectedError` is raised.
        """
        ...


@runtime_checkable
class Captioner(Protocol):
    """Describes a picture in a sentence."""

    __slots__ = ()

    @property
    def model(self) -> ModelRef:
        """Which model answers."""
        ...

    def estimate(self, images: Sequence[MediaRef]) -> Estimate:
        """What captions of these pictures would cost; nothing is sent."""
        ...

    def caption(self, image: MediaRef, media: OpenMedia) -> CaptionResult:
        """Describe one picture: a sentence without line breaks, and tags without duplicates.

        A text that was cut off is marked `truncated`.
        A picture that the model refuses raises `ContentRejectedError`.
        """
        ...


@runtime_checkable
class Signer(Protocol):
    """Signs bytes with a key that it keeps."""

    __slots__ = ()

    @property
    def keyid(self) -> str:
        """Names the public key: SHA-256 of its SubjectPublicKeyInfo DER, hexadecimal."""
        ...

    @property
    def algorithm(self) -> str:
        """`ed25519` or `ecdsa-p256-sha256`."""
        ...

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        ...

    def sign(self, message: bytes) -> bytes:
        """A signature over `message` that verifies with `public_key`; hashing happens inside where the algorithm hashes.

        ECDSA signatures are DER.
        """
        ...
