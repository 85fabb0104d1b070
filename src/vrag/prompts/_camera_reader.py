"""How `read_camera` reads: words are looked up in the tables of `_camera_words`, and what is around them decides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

from vrag.prompts._camera_words import (
    ADJECTIVES,
    ARTICLES,
    BEFORE_AFTER,
    DETERMINERS,
    FILLERS,
    FORMS,
    JOINING,
    NAMED,
    NEGATIONS,
    NOUNS,
    SEQUENCE,
    SPEEDS,
    SUBJECTS,
    TAILS,
    VERBS,
    VESSELS,
)
from vrag.prompts.camera import CameraMove, CameraPhrase, CameraReading, contradictory

_TOKEN = re.compile(
    r"(?P<round>\b360(?:\s?[°º]|[\s-]?degrees?\b|\b))"
    r"|(?P<counter>\b(?:counter|anti)[ \u2010\u2011-]clockwise\b)"
    r"|(?P<arrow>[-=]>|→)|(?P<plus>[&+])|(?P<slash>/)"
    r"|(?P<word>[^\s,.;:!?…()\[\]{}\"“”„«»<>/\\|&+*=#@~^_→\u2010\u2011\u2012\u2013\u2014\u2212、。，；：！？-]+)"  # noqa: RUF001 - the marks themselves
    r"|(?P<end>[.;!?…\n。；！？])|(?P<break>[,:()\[\]{}\"“”„«»\u2013\u2014、，：])",  # noqa: RUF001
    re.IGNORECASE,
)
_WHOLE = {"round": "360", "counter": "counterclockwise", "arrow": "then", "plus": "and", "slash": "or"}
_IGNORED = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_REACH = 24  # words that a look back or ahead may pass: keeps reading linear


def _folded(word: str) -> str:
    folded = unicodedata.normalize("NFKC", word.translate(_IGNORED)).casefold()
    return folded.replace("\u2019", "'").strip("'\u2018`")


class _Word(NamedTuple):
    lemma: str
    """The word as the tables have it."""
    raw: str
    """The word as it stands, case folded."""
    start: int
    end: int
    silent: bool = False


class _Hit(NamedTuple):
    phrase: CameraPhrase
    start: int
    end: int
    camera: bool
    """A camera is its subject."""


class Reader:
    """One reading of one text; use `vrag.prompts.camera.read_camera`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[_Word] = []
        self.breaks: dict[int, str] = {}  # index of a word to the strongest mark before it
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup
            if kind in {"end", "break"}:
                index = len(self.words)
                self.breaks[index] = "end" if kind == "end" else self.breaks.get(index, "break")
                continue
            folded = _WHOLE.get(kind or "") or _folded(match[0])
            if folded:
                self.words.append(_Word(FORMS.get(folded, folded), folded, match.start(), match.end()))
        self.used: dict[int, CameraPhrase] = {}
        self.hits: list[_Hit] = []

    def read(self) -> CameraReading:
        index = 0
        while index < len(self.words):
            index = self._named(index) or self._verb(index) or self._direction_first(index) or index + 1
        hits = [hit for hit in self.hits if hit.phrase.moves and not hit.phrase.negated]
        moves: list[CameraMove] = []
        clashes: list[tuple[CameraMove, CameraMove]] = []
        ordered = list(hits)
        together: list[CameraMove] = []
        for position, hit in enumerate(hits):
            joint = self._joint(hits[position - 1], hit) if position else "at once"
            if joint == "reversed":
                ordered[position - 1 : position + 1] = reversed(ordered[position - 1 : position + 1])
            if joint != "at once":
                clashes += contradictory(together)
                together = []
            together.append(hit.phrase.moves[0])
        clashes += contradictory(together)
        for hit in ordered:
            if moves[-1:] != [hit.phrase.moves[0]]:
                moves.append(hit.phrase.moves[0])
        phrases = tuple(hit.phrase for hit in self.hits)
        return CameraReading(
            moves=tuple(moves),
            phrases=phrases,
            contradictions=tuple(dict.fromkeys(clashes)),
            rest=self._rest(),
            speed=next((phrase.speed for phrase in phrases if phrase.speed and not phrase.negated), None),
        )

    def _named(self, start: int) -> int | None:
        for count in range(min(5, len(self.words) - start), 0, -1):
            end = start + count
            entry = NAMED.get(tuple(word.lemma for word in self.words[start:end]))
            if entry is None or any(index in self.breaks for index in range(start + 1, end)):
                continue
            need, move = entry
            says_yet = self.words[end - 1].lemma == "still" and self._lemma(end) in VERBS  # "is still moving"
            if says_yet or (need == "clause" and not self._stands_alone(start, end)):
                continue
            return self._take(start, end, (move,))
        return None

    def _verb(self, start: int) -> int | None:
        two = f"{self._lemma(start)} {self._lemma(start + 1)}"
        count = 2 if two in VERBS and start + 1 not in self.breaks else 1
        need, table = VERBS.get(two if count == 2 else self._lemma(start), ("", {}))
        if not need:
            return None
        after = start + count
        direction, end, camera = self._direction(after, table, need)
        camera = camera or self._lemma(end) in NOUNS or self._camera_before(start)
        if not camera and not self._plausible(start, end, need, directed=direction is not None):
            return None
        if direction is not None:
            return self._take_directed(start, direction, end, table)
        if "" not in table:
            return None
        later = self._direction_later(after, table)
        if later is not None:
            return self._take(start, after, table[self._lemma(later)].split("|"), also=later)
        return self._take(start, end, table[""].split("|") if table[""] else ())

    def _direction(self, index: int, table: dict[str, str], need: str) -> tuple[int | None, int, bool]:
        """The word for the direction, the end of the phrase, and whether a camera was passed ("tilt the camera up")."""
        camera, end = False, index
        while index < len(self.words) and index not in self.breaks and index - end <= 6:
            word = self.words[index]
            following = [self._lemma(index + 1), self._lemma(index + 2)]
            sideways = any(lemma in table for lemma in following if lemma in {"left", "right"})
            vague = (word.lemma == "toward" and sideways) or (word.raw == "back" and following[0] in table)
            # "moves in slow motion", "moves in a circle"
            place = word.raw == "in" and need == "camera" and self._raw(index + 1) not in {"", "on", "to", "slowly"}
            if word.lemma in table and not vague and not place:
                return self._last_of_range(index, table), index + 1, camera
            camera = camera or word.lemma == "camera"
            if not (vague or word.lemma == "camera" or word.raw in SPEEDS or word.raw in FILLERS - JOINING):
                break
            index += 1
        return None, end, camera

    def _last_of_range(self, index: int, table: dict[str, str]) -> int:
        """Where a range ends: "from left to right" goes right."""
        if self._raw(index + 1) == "to" and self._raw(index - 1) != "to":
            other = index + 3 if self._raw(index + 2) == "the" else index + 2
            if self._lemma(other) in table and self._lemma(other) != self._lemma(index):
                return other
        return index

    def _direction_later(self, index: int, table: dict[str, str]) -> int | None:
        """A direction behind the object: "pans across the room to the left"."""
        for later in range(index, min(index + 10, len(self.words))):
            word = self.words[later]
            if later in self.breaks or word.lemma in VERBS or word.raw in JOINING:
                return None
            ward = word.raw.endswith(("ward", "wards", "clockwise"))
            to_side = word.lemma in {"left", "right"} and self._raw(later - 1) in {"the", "to"}
            upright = word.lemma in {"up", "down"} and self._raw(later + 1) in {"to", "toward", "towards"}
            if word.lemma in table and (ward or to_side or upright):
                return later
        return None

    def _take_directed(self, start: int, direction: int, end: int, table: dict[str, str]) -> int:
        end = max(end, direction + 1)
        self._take(start, end, table[self._lemma(direction)].split("|"))
        while self._raw(end) in {"and", "then", "or"} and end not in self.breaks:  # "zooms in and then out"
            index = end + 1
            while self._raw(index) in {"then", "back", "to", "the"} | SPEEDS.keys() and index not in self.breaks:
                index += 1
            if self._lemma(index) not in table.keys() - {"", "toward"} or index in self.breaks:
                break
            end = self._take(index, index + 1, table[self._lemma(index)].split("|"))
        return end

    def _direction_first(self, start: int) -> int | None:
        """A direction before its move: "an upward tilt", "a slow forward camera move"."""
        first = self.words[start]
        if first.raw not in ADJECTIVES:
            return None
        index, camera = start + 1, self._camera_before(start)
        while self._lemma(index) in {"camera", "smooth", "whip"} or self._raw(index) in SPEEDS:
            camera = camera or self._lemma(index) == "camera"
            index += 1
        whip = "whip " if self._lemma(index - 1) == "whip" else ""
        need, table = VERBS.get(whip + self._lemma(index), ("", {}))
        if first.lemma not in table or any(i in self.breaks for i in range(start + 1, index + 1)):
            return None
        camera = camera or self._lemma(index + 1) in NOUNS
        plain = first.raw in {"left", "right"} and need != "any"  # "the right track"
        if camera or (not plain and self._plausible(start, index + 1, need, directed=True)):
            return self._take(start, index + 1, table[first.lemma].split("|"))
        return None

    def _plausible(self, start: int, end: int, need: str, *, directed: bool) -> bool:
        """Whether words without a camera beside them are camera words."""
        word = self.words[start]
        article = self._raw(start - 1) if start not in self.breaks else ""
        bare_noun = article in ARTICLES and word.raw == word.lemma and word.lemma not in {"zoom", "whip"}
        following = self._raw(end) if end not in self.breaks else ""
        if need == "camera" or word.raw in {"trucks", "cranes", "booms"}:
            return False
        if bare_noun and (article == "the" or following not in TAILS | {"", "to"} or not (directed or following)):
            return False
        if word.lemma == "pan" and self._raw(start - 1) in VESSELS:
            return False
        if directed and need == "any":
            return word.lemma != "dolly" or following not in DETERMINERS  # "Dolly in a red dress"
        if not directed and need == "clause" and word.lemma not in {"orbit", "arc"}:
            return False
        if following in DETERMINERS and (word.lemma == "orbit" or self._lemma(end - 1) == "toward"):
            return self._fresh(start)
        return self._stands_alone(start, end, tails=None if directed else TAILS | JOINING)

    def _stands_alone(self, start: int, end: int, *, tails: frozenset[str] | None = None) -> bool:
        """Begins its clause, and what follows is not its object."""
        tails = FILLERS - DETERMINERS if tails is None else tails
        ended = end in self.breaks or end >= len(self.words)
        following = self._raw(end)
        return self._fresh(start) and (
            ended or following in tails or following in SPEEDS or self._lemma(end) in VERBS.keys() | {"camera"}
        )

    def _fresh(self, start: int) -> bool:
        for index in range(start - 1, max(-1, start - _REACH), -1):
            raw = self.words[index].raw
            if index + 1 in self.breaks or index in self.used:
                return True
            if raw not in FILLERS and raw not in SPEEDS and raw not in NEGATIONS:
                return False
        return start < _REACH

    def _camera_before(self, start: int) -> bool:
        """Whether a camera is the subject: "camera slowly", "camera pans left and", "camera follows the dog and"."""
        before = start - 1
        while self._raw(before) in SPEEDS or self._raw(before) == "then":
            before -= 1
        joined = start in self.breaks or self._raw(before) in JOINING
        if joined and self.hits and self.hits[-1].camera and not self._ends(self.hits[-1].end, start):
            return True
        for index in range(start - 1, max(-1, start - _REACH), -1):
            word = self.words[index]
            if self.breaks.get(index + 1) == "end" or word.raw == "of":  # "a shot of a crane"
                return False
            if word.lemma in SUBJECTS:
                return not self._is_thing(index)
            passed = word.raw in FILLERS or word.raw in SPEEDS or word.raw in NEGATIONS or word.lemma == "is"
            if index not in self.used and not passed:
                return False
        return False

    def _is_thing(self, camera: int) -> bool:
        """Whether a camera is in the picture: "a man with a camera moves", "a vintage camera rolls"."""
        index = camera - 1
        while index >= 0 and index + 1 not in self.breaks and camera - index < 4:
            raw = self.words[index].raw
            if index in self.used or raw in SPEEDS:
                return False
            if raw in FILLERS | DETERMINERS:
                described = index < camera - 1
                inside = index > 0 and index not in self.breaks and self._raw(index - 1) not in JOINING
                return raw in DETERMINERS and (described or (raw != "the" and inside))
            index -= 1
        return False

    def _ends(self, start: int, end: int) -> bool:
        return any(self.breaks.get(index) == "end" for index in range(start, end + 1))

    def _take(self, start: int, end: int, moves: Iterable[str], *, also: int | None = None) -> int:
        camera = self._camera_before(start) or any(word.lemma == "camera" for word in self.words[start:end])
        verb = {self._lemma(start), self._lemma(end - 1)}
        taken = {*range(start, end), *([] if also is None else [also])}
        negated = False
        speeds: list[Literal["slow", "fast"]] = [
            SPEEDS[self.words[index].raw] for index in taken if self.words[index].raw in SPEEDS
        ]
        for index in range(start - 1, max(-1, start - 7), -1):
            raw = self.words[index].raw
            if index + 1 in self.breaks:
                break
            if raw in NEGATIONS:
                negated = True
                taken.add(index)
                break
            if index in self.used:
                joined = {"or", "nor"} if end > start + 1 else {"or", "nor", "and"}
                negated = self._raw(start - 1) in joined and self.used[index].negated
                break
            if raw in SPEEDS:
                speeds.append(SPEEDS[raw])
                taken.add(index)
            elif raw not in (FILLERS - JOINING) | {"and", "or", "nor"} and self.words[index].lemma != "camera":
                break
        if end < len(self.words) and end not in self.breaks and self.words[end].raw in SPEEDS:
            speeds.append(SPEEDS[self.words[end].raw])
            taken.add(end)
        resolved = tuple(CameraMove(move) for move in moves)
        if negated and not resolved and verb & {"move", "motion"}:
            resolved, negated = (CameraMove.STATIC_SHOT,), False  # "no camera movement"
        first, last = self.words[start], self.words[max(end - 1, also or 0)]
        phrase = CameraPhrase(
            text=self.text[first.start : last.end],
            start=first.start,
            end=last.end,
            moves=resolved,
            speed=speeds[0] if speeds and CameraMove.SLOW_MOTION not in resolved else None,
            negated=negated,
        )
        self.used |= dict.fromkeys(taken, phrase)
        self.hits.append(_Hit(phrase, start, end, camera))
        return end

    def _joint(self, one: _Hit, other: _Hit) -> Literal["at once", "in turn", "reversed"]:
        """How two moves that stand one after the other follow in time."""
        between = [word.raw for word in self.words[one.end : other.start]]
        ended = self._ends(one.end, other.start)
        if "after" in between and not ended and between[-1] not in {"that", "this", "which"}:
            return "reversed"
        leading = ""
        for index in range(one.start - 1, max(-1, one.start - _REACH), -1):
            if self.breaks.get(index + 1) == "end" or index in self.used:
                break
            leading = self.words[index].raw if self.words[index].raw in BEFORE_AFTER else leading
        if leading == "before" and not ended:
            return "reversed"
        return "in turn" if ended or leading or SEQUENCE.intersection(between) else "at once"

    def _rest(self) -> str:
        runs: list[list[_Word]] = [[]]
        for index, word in enumerate(self.words):
            read = index in self.used and bool(self.used[index].moves or self.used[index].negated)
            if index in self.breaks or read:
                runs.append([])
            adverb = word.raw in SPEEDS and word.raw.endswith("ly")
            silent = word.raw in FILLERS or word.lemma in NOUNS or adverb
            if not read and (runs[-1] or not silent):
                runs[-1].append(word._replace(silent=silent))
        texts = []
        for run in runs:
            while run and run[-1].silent:
                run.pop()
            if run:
                texts.append(self.text[run[0].start : run[-1].end])
        return ", ".join(texts)

    def _lemma(self, index: int) -> str:
        return self.words[index].lemma if 0 <= index < len(self.words) else ""

    def _raw(self, index: int) -> str:
        return self.words[index].raw if 0 <= index < len(self.words) else ""
