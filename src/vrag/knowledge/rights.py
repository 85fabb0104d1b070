"""Rights: until when a picture may be used, in whose time zone, and for what."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from attrs import evolve, field, frozen

from vrag.clock import rfc3339
from vrag.errors import UsageError
from vrag.values.assets import Asset, Review, ReviewState, Rights

__all__ = ["NOT_PERMITTED", "UsePolicy", "rights_end", "time_zone_of", "with_expiry"]

NOT_PERMITTED: Final = "not permitted"
"""Stands for the state of an approved picture whose rights do not allow this use."""
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONE = re.compile(r"[A-Za-z0-9+_-]{1,40}(?:/[A-Za-z0-9+_-]{1,40}){0,2}")
_EVERYWHERE: Final = frozenset({"worldwide", "world", "global", "international"})


def time_zone_of(name: str) -> tzinfo:
    """The IANA time zone of this name, such as `Europe/Berlin`; `UTC` needs no database.

    Raises:
        UsageError: There is none of that name on this machine.
    """
    if name == "UTC":
        return UTC
    if isinstance(name, str) and _ZONE.fullmatch(name):
        with suppress(KeyError, ValueError, OSError):  # OSError: the name of a folder of the database
            return ZoneInfo(name)
    shown = f"'{name[:80]}'" if isinstance(name, str) else f"a {type(name).__name__}"
    raise UsageError(
        f"No time zone {shown} on this machine; one looks like 'Europe/Berlin' or 'UTC'.",
        hint="pip install tzdata, if the system has no time zones",
    )


def rights_end(expires_on: str, zone: tzinfo = UTC) -> datetime:
    """The first moment after the last day of use in `zone`, as UTC.

    Where summer time begins or ends at midnight the day is 23 or 25 hours long, and all of them count.

    Raises:
        UsageError: `expires_on` is no day of the calendar written as YYYY-MM-DD.
    """
    day: date | None = None
    if _DAY.fullmatch(expires_on):
        with suppress(ValueError):
            day = date.fromisoformat(expires_on)
    # The first and the last day of the calendar have no neighbours in every zone.
    if day is None or not date.min < day < date.max - timedelta(days=1):
        shown = "".join(char for char in expires_on[:40] if char.isprintable())
        raise UsageError(f"'{shown}' is no day to expire on; write it as YYYY-MM-DD, such as 2027-12-31.")
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=zone).astimezone(UTC)


def with_expiry(asset: Asset, review: Review, now: datetime, zone: tzinfo = UTC) -> Review:
    """`review`, or what has become of it: an approval ends with the rights of the picture.

    Nothing is written down, so a clock that was wrong and is put right leaves no trace. A clock that stands before the
    review itself is not believed: it is at least as late as that.

    Raises:
        UsageError: The day of expiry of the asset cannot be read.
    """
    if review.state is not ReviewState.APPROVED or asset.rights.expires_on is None:
        return review
    end = rights_end(asset.rights.expires_on, zone)
    with suppress(ValueError):
        now = max(now, datetime.fromisoformat(review.at))
    if now < end:
        return review
    name = zone.key if isinstance(zone, ZoneInfo) else "UTC"
    reason = f"its rights ended with {asset.rights.expires_on} ({name}); approved by {review.by}"
    return evolve(review, state=ReviewState.EXPIRED, by="rights", at=rfc3339(end), reason=reason)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _all_folded(texts: Iterable[str] | None) -> frozenset[str] | None:
    if texts is None:
        return None
    if isinstance(texts, str):
        raise UsageError("Licences and territories are a set of texts, not one text.", hint='licences={"CC0-1.0"}')
    return frozenset(map(_folded, texts))


@frozen(kw_only=True)
class UsePolicy:
    """What may be used of what was approved; the default is all of it until its rights end.

    Texts are compared without regard to case, width and spaces.
    """

    licences: frozenset[str] | None = field(default=None, converter=_all_folded)
    """Only pictures that state one of these licences; None is any, and none stated."""
    territories: frozenset[str] | None = field(default=None, converter=_all_folded)
    """Where the videos are shown: a picture must state each of these (`DE; AT; CH`), or `worldwide`; None asks nothing."""

    def refusal(self, rights: Rights) -> str | None:
        """Why a picture with these rights is not used; None for one that may be."""
        if self.licences is not None:
            if rights.licence is None:
                return f"it states no licence, and only {_listed(self.licences)} may be used"
            if _folded(rights.licence) not in self.licences:
                return f"its licence is '{rights.licence[:80]}', and only {_listed(self.licences)} may be used"
        if self.territories:
            stated = {_folded(part) for part in re.split("[,;/]", rights.territory or "")} - {""}
            missing = set() if stated & _EVERYWHERE else self.territories - stated
            if missing:
                return f"its rights are not stated for {_listed(missing)}"
        return None


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts)[:10]) or "nothing"
