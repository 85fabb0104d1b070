"""How well a library is searched by words, by vectors and by both, and how well a query that it cannot answer is told.

    python benchmarks/retrieval.py                                        # the small CC0 set of this repository, seconds
    python benchmarks/retrieval.py --captions captions_val2017.json       # and a public set, two to three minutes
    python benchmarks/retrieval.py --embedder-folder all-MiniLM-L6-v2     # with a sentence model in a folder, slower

`data/README.md` says how to get the public set. One caption of each picture is indexed, the others are used as queries:

- A *sentence* is another caption of the same picture; only that picture is right.
- A *phrase* is a noun phrase of 1-3 words from captions that are not indexed: the words between an article or a number
  and the next preposition, conjunction or word in -ing, ending with a noun (a word that often stands alone in that
  place). It is kept if 3 pictures have it and at most 2 % do; right are the pictures with it in a caption that is not
  indexed. The label is made of words, which favours the word index a little.

Refusal: things (the last word of a phrase, with its synonyms of `FAMILIES`) are held out until half of the pictures show
one in any caption; those pictures are outside. A query is *out of library* if no caption of any picture inside, indexed or
not, has its subject or a synonym; it is *in library* if it has a right picture inside. That rule is lexical as well: an
"out" query may have a near answer by another name, and a compound such as "red shoes" with only brown shoes inside is
asked by neither. Half of the things choose weights and thresholds, the other half are measured, so that no subject is in
both. Smaller libraries are drawn from the pictures inside. The hand-made labels of the CC0 set have none of these limits.

Seeded throughout: the same input prints the same tables.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from attrs import frozen

from vrag.backends.local.sentence_model import SentenceModelEmbedder
from vrag.backends.local.text_embedder import WordLlamaEmbedder
from vrag.backends.local.vector_store import LocalVectorStore
from vrag.interfaces import Embedder
from vrag.knowledge.calibration import Thresholds, bank, calibrate
from vrag.knowledge.retrieval import RetrievalSettings
from vrag.knowledge.words import content_words, matched_words, stem, subject, words_of
from vrag.values.vectors import Item, VectorQuery, VectorRecord

HERE = Path(__file__).parent
SHIPPED = RetrievalSettings()
RRF_K, DENSE_WEIGHT, POOL = SHIPPED.rrf_k, SHIPPED.dense_weight, SHIPPED.pool
REFUSAL = 0.95
SENTENCES = 1500
"""At most this many sentence queries; more change no figure by a point."""
SIZES = (50, 200, 1000)
DRAWN = {120: 20, 500: 4}
"""Small libraries whose ranking is measured: so many pictures, so many of them."""
SMALL_LIBRARIES = 3
"""How many of each size up to 200; one of the larger ones."""

DETERMINERS = frozenset("a an the two three four several some his her their its".split())  # noqa: SIM905  # a list of words reads better as words
BREAKS = DETERMINERS | frozenset(
    """
    about above across after against along among and are around as at be before behind below beneath beside between beyond
    but by down during each for from has have in inside into is it near next of off on onto or out outside over past that
    this through to toward towards under up upon was were while who which with within without
    """.split()  # noqa: SIM905  # as above
)
NOT_THINGS = frozenset(
    stem(word)
    for word in """
    area arms assortment back backs background base big bite blue body bottom break brown can case center closeup
    collection concrete corner couple course cross curve cut dark day desert dirt display distance doll edge empty enclosure
    end event face female fenced field foreground friend friends front game gray green grey ground group habitat hand handle
    hands head heads home image individual item items jump kind lap large legs leg light lights line log lot male match meal
    modern nap neck no nose number object obstacle old open orange other others pack pair pan part party photo photograph
    picture pictures piece pieces pile pink pitch plain portrait post race rest ride right rim row scene serve set shade side
    sky skies small sort stack stop stunt t tall tasty time top trick trunk trunks type variety view walk way white wild
    yellow adult adults body player players animal animals food people person rider gentleman image clear red black
    """.split()  # noqa: SIM905  # as above
)
"""Last words of phrases that name nothing a picture could be looked for by; no thing to hold out."""
FAMILIES = [
    "airplane plane planes airplanes jet jets aircraft airliner", "airport runway tarmac terminal",
    "baby infant toddler child children kid kids boy boys girl girls teenager",
    "bag bags backpack purse handbag luggage suitcase suitcases baggage", "bathroom restroom toilet toilets urinal urinals",
    "bathtub tub bath", "beach shore shoreline coast sand", "sea ocean wave waves water surf",
    "bicycle bicycles bike bikes bicyclist cyclist", "motorcycle motorcycles motorbike moped scooter",
    "bird birds duck ducks goose geese seagull seagulls pigeon parrot owl flock", "boat boats ship ships canoe ferry sailboat",
    "book books notebook bookshelf", "bread bun buns toast sandwich sandwiches bagel burger hamburger", "bus buses",
    "cabinet cabinets cupboard shelf shelves ledge rack", "cake cakes cupcake cupcakes dessert pastry pastries bakery pie",
    "car cars vehicle vehicles truck trucks van vans suv", "cat cats kitten kittens", "dog dogs puppy puppies",
    "cellphone cellphones phone phones iphone smartphone mobile", "chair chairs seat seats stool bench benches",
    "church chapel cathedral steeple", "city town street streets road roadway highway downtown intersection crosswalk",
    "couch sofa", "counter countertop table tables desk desks desktop", "cow cows calf cattle bull bulls",
    "computer computers laptop laptops monitor monitors screen keyboard mouse", "cup cups mug mugs glass beverage drink",
    "curtain curtains drape drapes blind blinds", "donut donuts doughnut doughnuts", "door doors doorway garage",
    "elephant elephants", "faucet sink sinks", "flower flowers bouquet", "forest woods wilderness jungle tree trees branch bush",
    "fridge refrigerator freezer", "garden yard backyard lawn patio park grass pasture", "guy guys man men",
    "harbor harbour dock pier marina", "hill hills mountain mountains mound slope cliff", "hotdog hotdogs",
    "house houses building buildings tower skyscraper home barn", "lady woman women", "lake pond river stream bay",
    "oven stove microwave grill toaster", "picture painting portrait sculpture statue", "plate plates dish dishes platter tray",
    "pitcher catcher batter umpire baseball ball bat", "pool pond", "racket racquet rackets racquets tennis",
    "restaurant cafe diner bar", "sheep lamb lambs herd", "skier skiers ski skis", "skateboard skateboarder skateboards",
    "snowboard snowboarder snowboarders", "surfboard surfboards surfer surfers wetsuit", "store shop market mall",
    "train trains railroad rail railway locomotive track tracks", "tv television televisions tvs", "horse horses pony carriage",
    "stairs steps staircase", "stoplight", "sidewalk pavement path trail walkway curb", "bed beds bedroom blanket pillow",
    "banana bananas", "apple apples", "wine beer bottle bottles", "kitchen", "umbrella umbrellas", "zebra zebras",
    "giraffe giraffes", "bear bears teddy", "kite kites", "frisbee disc", "pizza pizzas", "clock clocks", "remote remotes",
    "wii controller", "sign signs", "window windows windshield", "vase pot", "broccoli vegetable vegetables carrot carrots salad",
    "fruit fruits oranges", "bride groom wedding", "stone rock rocks", "newspaper paper magazine", "tie necktie suit",
    "hat cap helmet", "shirt jacket", "canopy tent", "airfield", "crowd audience", "plaza square", "room office classroom",
]  # fmt: skip
"""Words for nearly the same thing: if the library has one of them, none counts as absent."""
FAMILY_OF = {stem(word): line.split()[0] for line in reversed(FAMILIES) for word in line.split()}
FEATURES = (
    "cosine", "background z", "words", "subject word", "subject meaning", "word meaning", "worst word", "subject cosine", "known words", "length",
    "size",
)  # fmt: skip
"""What is known of a query and one picture; `Library.features` says how."""


@frozen(kw_only=True)
class Query:
    text: str
    right: frozenset[int] = frozenset()
    """Positions of the right pictures in the library; empty for a query that is out of it."""
    thing: str = ""
    """By which queries are halved: those about one thing are on one side."""


@frozen(kw_only=True)
class Task:
    """A library with queries that it can answer and queries that it cannot."""

    name: str
    captions: list[str]
    inside: list[Query]
    outside: list[Query]


# ---------------------------------------------------------------- data


def read_pictures(path: Path) -> list[list[str]]:
    """Captions of each picture, from COCO's JSON, Flickr8k's `picture.jpg#0<tab>caption`, or our JSON lines."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text, pictures = raw.decode(), defaultdict(list)
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        for line in text.splitlines():
            row = json.loads(line)
            if "picture" in row:
                pictures[str(row["picture"])] += row["captions"]
    elif text.startswith("{"):
        for row in sorted(json.loads(text)["annotations"], key=lambda row: row["id"]):
            pictures[row["image_id"]].append(" ".join(row["caption"].split()))
    else:
        for line in text.splitlines():
            name, _, caption = line.partition("\t")
            pictures[name.partition("#")[0]].append(caption.strip())
    worded = ([caption for caption in captions if content_words(caption)] for captions in pictures.values())
    return [captions for captions in worded if len(captions) > 1]


def runs(caption: str) -> list[tuple[str, ...]]:
    """The words between a determiner and what ends its phrase, where they are 1-3."""
    found = []
    for clause in re.split(r'[.,;:!?()"]', caption):
        words, start = [*words_of(clause), "and"], None
        for position, word in enumerate(words):
            if start is not None and (word in BREAKS or word.endswith("ing")):
                if 1 <= position - start <= 3:
                    found.append(tuple(words[start:position]))
                start = None
            if word in DETERMINERS:
                start = position + 1
    return found


def phrases_of(pictures: list[list[str]]) -> dict[str, frozenset[int]]:
    """Phrases and the pictures that have them in a caption that is not indexed."""
    found = [{run for caption in captions[1:] for run in runs(caption)} for captions in pictures]
    alone = Counter(run[0] for each in found for run in each if len(run) == 1)
    having = defaultdict(set)
    for number, each in enumerate(found):
        for run in each:
            if alone[run[-1]] >= 5:
                having[" ".join(run)].add(number)
    return {text: frozenset(those) for text, those in sorted(having.items()) if 3 <= len(those) <= 0.02 * len(pictures)}


def thing_of(text: str) -> str:
    named = stem(subject(text) or content_words(text)[-1])
    return FAMILY_OF.get(named, named)


def things_in(captions: list[str]) -> set[str]:
    stems = {stem(word) for caption in captions for word in words_of(caption)}
    return stems | {FAMILY_OF[one] for one in stems if one in FAMILY_OF}


def tasks_of(pictures: list[list[str]], rng: np.random.Generator) -> dict[str, list[Task]]:
    """Libraries of pictures without the things held out, with their phrase and sentence queries."""
    phrases = {text: those for text, those in phrases_of(pictures).items() if stem(text.split()[-1]) not in NOT_THINGS}
    shown = [things_in(captions) for captions in pictures]
    having = Counter(one for those in shown for one in those)
    things = sorted({thing_of(text) for text in phrases})
    known = set(things)
    held: set[str] = set()
    outside: set[int] = set()
    for position in rng.permutation(len(things)):
        if having[things[position]] <= 0.06 * len(pictures) and len(outside) < len(pictures) / 2:
            held.add(things[position])
            outside |= {number for number, those in enumerate(shown) if things[position] in those}
    inside = [number for number in range(len(pictures)) if number not in outside]
    plan = [inside]
    for size in SIZES:
        count = (SMALL_LIBRARIES if size <= 200 else 1) if size < len(inside) / 2 else 0
        plan += [sorted(rng.choice(inside, size, replace=False).tolist()) for _ in range(count)]
    tasks: dict[str, list[Task]] = {"phrases": [], "sentences": []}
    for chosen in plan:
        place = {number: position for position, number in enumerate(chosen)}
        there = set().union(*(shown[number] for number in chosen))
        named = f"{len(chosen)} pictures"
        captions = [pictures[number][0] for number in chosen]
        asked = [
            Query(text=text, right=frozenset(place[n] for n in those if n in place), thing=thing_of(text))
            for text, those in phrases.items()
        ]
        own = [
            Query(text=pictures[number][1], right=frozenset([place[number]]), thing=thing_of(pictures[number][1]))
            for number in chosen
        ]
        other = [
            Query(text=pictures[number][1], thing=thing_of(pictures[number][1]))
            for number in sorted(outside if len(chosen) > 1000 else set(range(len(pictures))) - set(chosen))
        ]
        absent = [query for query in other if query.thing in known and query.thing not in there]
        tasks["phrases"].append(
            Task(
                name=named,
                captions=captions,
                inside=[query for query in asked if query.right],
                outside=_some([query for query in asked if query.thing not in there], 250, rng),
            )
        )
        tasks["sentences"].append(
            Task(name=named, captions=captions, inside=_some(own, 250, rng), outside=_some(absent, 250, rng))
        )
    return tasks


def _some(queries: list[Query], count: int, rng: np.random.Generator) -> list[Query]:
    return [queries[n] for n in sorted(rng.permutation(len(queries))[:count])]


def labelled(path: Path) -> dict[str, list[Task]]:
    """The same of a file with labels made by hand."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pictures = [row for row in rows if "picture" in row]
    place = {row["picture"]: number for number, row in enumerate(pictures)}
    captions = [row["captions"][0] for row in pictures]
    named = f"{len(captions)} pictures, labels by hand"
    objects = [
        Query(text=row["query"], right=frozenset(place[key] for key in row["relevant"]), thing=row["query"])
        for row in rows
        if row.get("relevant")
    ]
    absent = [Query(text=row["query"], thing=row["query"]) for row in rows if "query" in row and not row["relevant"]]
    own = [
        Query(text=text, right=frozenset([number]), thing=row["picture"])
        for number, row in enumerate(pictures)
        for text in row["captions"][1:]
    ]
    short = [query for query in absent if len(query.text.split()) <= 3]
    long = [query for query in absent if len(query.text.split()) > 3]
    return {
        "phrases": [Task(name=named, captions=captions, inside=objects, outside=short)],
        "sentences": [Task(name=named, captions=captions, inside=own, outside=long)],
    }


# ---------------------------------------------------------------- one library


class Words:
    """Vectors of texts and of single words, embedded once."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder, self.place, self.stems = embedder, {}, np.empty(0, int)
        self.held: dict[str, np.ndarray] = {}
        self.known: dict[str, int] = {}
        self.vectors = np.empty((0, embedder.space.dimension), np.float32)

    def texts(self, texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self.held]
        self.held |= zip(new, self.embedder.embed([Item(kind="text", text=text) for text in new], "query"), strict=True)
        return np.stack([self.held[text] for text in texts])

    def numbers(self, texts: list[str]) -> list[list[int]]:
        words = [content_words(text) for text in texts]
        new = sorted({word for each in words for word in each} - self.place.keys())
        if new:
            self.place |= {word: len(self.place) + n for n, word in enumerate(new)}
            self.vectors = np.concatenate([self.vectors, self.texts(new)])
            stems = [self.known.setdefault(stem(word), len(self.known)) for word in new]
            self.stems = np.concatenate([self.stems, stems])
        return [[self.place[word] for word in each] for each in words]


class Library:
    """Captions in a store of their own."""

    def __init__(self, captions: list[str], words: Words, background: list[str], folder: Path) -> None:
        self.captions = captions
        self.words, self.vectors = words, words.texts(captions)
        self.store = LocalVectorStore(folder, words.embedder.space)
        rows = enumerate(zip(captions, self.vectors, strict=True))
        self.store.upsert([VectorRecord(key=str(n), text=text, vector=vector) for n, (text, vector) in rows])
        self.numbers = words.numbers(captions)
        self.having = Counter(one for each in self.numbers for one in {int(words.stems[n]) for n in each})
        # What these pictures score with queries that have nothing to do with them. Those that have are left out.
        asked = zip(background, words.numbers(background), strict=True)
        self.background = [text for text, each in asked if not any(self.having[int(words.stems[n])] for n in each)]
        scores = words.texts(self.background or background) @ self.vectors.T
        self.mean, self.deviation = scores.mean(0), scores.std(0) + 1e-3

    def rankings(self, text: str) -> tuple[dict[str, list[int]], float]:
        """Positions best first by each method, and the margin of the best cosine to the second."""
        vector = self.words.texts([text])[0]
        found = self.store.search(VectorQuery(vector=vector, words=text, top_k=POOL, space=self.words.embedder.space))
        cosines = {int(match.key): match.cosine for match in found if match.cosine is not None}
        by_words = {int(match.key): match.word_rank for match in found if match.word_rank is not None}
        dense = sorted(cosines, key=lambda key: (-cosines[key], key))
        fused = dict.fromkeys([*dense, *by_words], 0.0)
        for rank, key in enumerate(dense, start=1):
            fused[key] += DENSE_WEIGHT / (RRF_K + rank)
        asked = content_words(text)
        for key, rank in by_words.items():
            had = matched_words(asked, self.captions[key])
            fused[key] += (len(set(had)) / len(set(asked)) if asked else 1.0) / (RRF_K + rank)
        hybrid = sorted(fused, key=lambda key: (-fused[key], key))
        if len(set(matched_words(asked, self.captions[hybrid[0]]))) < len(set(asked)):
            hybrid.remove(dense[0])
            hybrid.insert(0, dense[0])
        rankings = {
            "words": sorted(by_words, key=lambda key: by_words[key]),
            "vectors": dense,
            "hybrid": hybrid,
        }
        return rankings, cosines[dense[0]] - cosines[dense[1]]

    def features(self, text: str, places: list[int]) -> np.ndarray:
        """A row of `FEATURES` for each of those pictures."""
        words = self.words
        own = words.numbers([text])[0]
        named = subject(text)
        head = content_words(text).index(named) if named in content_words(text) else len(own) - 1
        # Rare words weigh more; one that the library does not have weighs most.
        rarity = np.array([np.log((len(self.numbers) + 1) / (self.having[int(words.stems[n])] + 0.5)) for n in own])
        rarity /= rarity.sum()
        alike = words.vectors[own] @ words.vectors.T
        alike[words.stems[own][:, None] == words.stems[None, :]] = 1.0
        best = np.array(
            [alike[:, self.numbers[place]].max(1) if self.numbers[place] else 0 * rarity for place in places]
        )
        same = best >= 1.0
        cosines = self.vectors[places] @ words.texts([text])[0]
        columns = (
            cosines,
            (cosines - self.mean[places]) / self.deviation[places],
            same @ rarity,
            same[:, head],
            best[:, head],
            best @ rarity,
            best.min(1),
            self.vectors[places] @ words.texts([named or text])[0],
            np.full(len(places), np.mean([self.having[int(words.stems[n])] > 0 for n in own])),
            np.full(len(places), np.log(len(own))),
            np.full(len(places), np.log(len(self.numbers))),
        )
        return np.stack(columns, axis=1)


# ---------------------------------------------------------------- figures


def recall_table(pictures: list[list[str]], words: Words, phrases: dict[str, frozenset[int]], limit: int) -> list[str]:
    """All pictures as one library; and small libraries drawn from them, each asked about what it has."""
    rng = np.random.default_rng(1)
    plan = {"all": [list(range(len(pictures)))]}
    for size, count in DRAWN.items():
        if size < len(pictures) / 4:
            draws = (rng.choice(len(pictures), size, replace=False) for _ in range(count))
            plan[f"{count} x {size}"] = [sorted(draw.tolist()) for draw in draws]
    lines = [
        "| pictures | sentences, phrases | | R@1 | R@5 | R@10 | phrase hit@1 | phrase P@10 of attainable |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for named, draws in plan.items():
        sums: dict[str, np.ndarray] = {name: np.zeros(5) for name in ("words", "vectors", "hybrid")}
        asked = np.zeros(2)
        for chosen in draws:
            asked += recall([pictures[number] for number in chosen], words, _within(phrases, chosen), limit, sums)
        counts = np.repeat(asked, [3, 2])
        for name, each in sums.items():
            shown = " | ".join(f"{x:.1f}" for x in 100 * each / counts)
            lines.append(f"| {named} | {asked[0]:.0f}, {asked[1]:.0f} | {name} | {shown} |")
    return lines


def _within(phrases: dict[str, frozenset[int]], chosen: list[int]) -> dict[str, frozenset[int]]:
    place = {number: position for position, number in enumerate(chosen)}
    inside = {text: frozenset(place[n] for n in those if n in place) for text, those in phrases.items()}
    return {text: those for text, those in inside.items() if those}


def recall(
    pictures: list[list[str]],
    words: Words,
    phrases: dict[str, frozenset[int]],
    limit: int,
    sums: dict[str, np.ndarray],
) -> tuple[int, int]:
    """Add what each method finds in this library to `sums`; how many sentences and phrases were asked."""
    sentences = [Query(text=captions[1], right=frozenset([n])) for n, captions in enumerate(pictures)]
    sentences = _some(sentences, limit, np.random.default_rng(1))
    with tempfile.TemporaryDirectory() as folder:
        library = Library([captions[0] for captions in pictures], words, ["nothing"], Path(folder))
        for query in sentences:
            for name, order in library.rankings(query.text)[0].items():
                hits = [key in query.right for key in order[:10]]
                sums[name][:3] += np.array([any(hits[:1]), any(hits[:5]), any(hits)])
        for text, right in phrases.items():
            for name, order in library.rankings(text)[0].items():
                hits = [key in right for key in order[:10]]
                sums[name][3:] += np.array([hits[:1] == [True], sum(hits) / min(10, len(right))])
    return len(sentences), len(phrases)


@frozen(kw_only=True, eq=False)
class Asked:
    """What was measured of one query."""

    query: Query
    rows: np.ndarray
    margin: float


def measure(task: Task, words: Words, background: list[str]) -> tuple[list[Asked], list[Asked], Thresholds]:
    """Queries in the library, out of it; and what the shipped code learns about this library."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library(task.captions, words, background, Path(folder))

        def one(query: Query) -> Asked:
            rankings, margin = library.rankings(query.text)
            places = rankings["hybrid"]
            return Asked(query=query, rows=library.features(query.text, places), margin=margin)

        learnt = calibrate(library.store, words.embedder, "", len(task.captions))
        assert learnt, "too many queries of the bank are about things of this library"
        return [one(query) for query in task.inside], [one(query) for query in task.outside], learnt.thresholds


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The chance that a query with an answer scores higher than one without; ties count half."""
    ordered = np.sort(outside)
    below, up_to = np.searchsorted(ordered, inside, "left"), np.searchsorted(ordered, inside, "right")
    return float((below + up_to).mean() / 2 / len(outside))


@frozen(kw_only=True, eq=False)
class Model:
    """A logistic score of one picture; that of a query is the highest of its pictures, or all words of it."""

    weights: np.ndarray
    bias: float

    def of(self, asked: Asked) -> float:
        return np.inf if has_all(asked) else float((asked.rows @ self.weights).max() + self.bias)


def has_all(asked: Asked) -> bool:
    """Whether a picture has all words of the query: then it is an answer."""
    return bool((asked.rows[:, FEATURES.index("words")] > 1 - 1e-9).any())


def fit(inside: list[list[Asked]], outside: list[list[Asked]]) -> Model:
    """Logistic regression on the best picture of each query; which one is best is chosen again after each fit.

    Kinds and sizes, given as lists, weigh the same. Queries that are decided by having all words are left out.
    """
    given = [[[one for one in each if not has_all(one)] for each in side] for side in (inside, outside)]
    inside, outside = given
    wanted = np.r_[np.ones(sum(map(len, inside))), np.zeros(sum(map(len, outside)))]
    balance = np.concatenate([np.full(len(each), 1 / len(each)) for each in (*inside, *outside) if each])
    balance /= balance.mean()
    model = Model(weights=np.ones(len(FEATURES)), bias=0.0)
    for _ in range(4):
        best = [one.rows[(one.rows @ model.weights).argmax()] for each in (*inside, *outside) for one in each]
        rows = np.c_[np.stack(best), np.ones(len(best))]
        scale = np.r_[rows[:, :-1].std(0) + 1e-9, 1]
        scaled, beta = rows / scale, np.zeros(rows.shape[1])
        for _ in range(30):
            chance = 1 / (1 + np.exp(-scaled @ beta))
            gradient = scaled.T @ (balance * (chance - wanted)) + np.r_[np.ones(len(beta) - 1), 0] * beta
            curvature = (scaled.T * (balance * chance * (1 - chance))) @ scaled + np.diag(
                np.r_[np.ones(len(beta) - 1), 1e-6]
            )
            beta -= np.linalg.solve(curvature, gradient)
        model = Model(weights=(beta / scale)[:-1], bias=float(beta[-1]))
    return model


def methods(model: Model) -> dict:
    def best(name):
        column = FEATURES.index(name)
        return lambda asked: float(asked.rows[:, column].max())

    subject_column = FEATURES.index("subject meaning")
    return {
        "absolute cosine": best("cosine"),
        "margin to the runner-up": lambda asked: asked.margin,
        "background z-score": best("background z"),
        "word overlap": best("words"),
        "meaning of the subject": best("subject meaning"),
        "meaning word by word": best("word meaning"),
        "cosine + meaning of the subject": lambda asked: float(
            (asked.rows[:, 0] + asked.rows[:, subject_column]).max()
        ),
        "logistic, all of these": model.of,
    }


def halves(asked: list[Asked], chosen: set[str]) -> tuple[list[Asked], list[Asked]]:
    """Those about a thing of the calibration half, and the others."""
    return [one for one in asked if one.query.thing in chosen], [one for one in asked if one.query.thing not in chosen]


def at_refusal(score, calibration: list[Asked], inside: list[Asked], outside: list[Asked]) -> str:
    threshold = np.quantile([score(one) for one in calibration], REFUSAL)
    return rates(lambda one: score(one) > threshold, inside, outside)


def rates(answered, inside: list[Asked], outside: list[Asked]) -> str:
    answers = np.mean([answered(one) for one in inside])
    accepts = np.mean([answered(one) for one in outside])
    return f"{100 * answers:.1f} | {100 * accepts:.1f} | {100 * (1 - answers):.1f}"


def shipped(asked: Asked, thresholds: Thresholds) -> float:
    """The rule of `vrag.knowledge.retrieval`, all words or enough in common: an answer has 0 or more."""
    if has_all(asked):
        return np.inf
    names = ("subject word", "cosine", "subject cosine")
    rows = zip(*(asked.rows[:, FEATURES.index(name)] for name in names), strict=True)
    known = float(asked.rows[0, FEATURES.index("known words")])
    best = max(thresholds.score(cosine, meaning, named=bool(there)) for there, cosine, meaning in rows)
    return best - thresholds.needed_for(len(content_words(asked.query.text)), known)


def refusal_tables(
    tasks: dict[str, list[Task]], words: Words, background: list[str], given: Model | None, *, test: bool = True
) -> tuple[list[str], Model]:
    """A table for each kind of query and size of library, of both halves added up; and the logistic model."""
    things = sorted(
        {query.thing for each in tasks.values() for task in each for query in (*task.inside, *task.outside)}
    )
    order = np.random.default_rng(2).permutation(len(things))
    chosen = {things[n] for n in order[::2]}
    cells: dict[str, list[tuple]] = defaultdict(list)
    for kind, each in tasks.items():
        for task in each:
            inside, outside, learnt = measure(task, words, background)
            cells[f"{kind}, {task.name}"].append((halves(inside, chosen), halves(outside, chosen), learnt))
    model = fit(
        [[a for i, *_ in those for a in i[0]] for those in cells.values()],
        [[a for _, o, _ in those for a in o[0]] for those in cells.values()],
    )
    lines: list[str] = []
    for name, those in cells.items() if test else ():
        lines += refusal_table(name, those, model, given)
    shown = ", ".join(f"{name} {weight:+.2f}" for name, weight in zip(FEATURES, model.weights, strict=True))
    lines += ["", f"Logistic: {shown}, constant {model.bias:+.2f}.", "", "Shipped, over all of these:", ""]
    lines += ["| half | answered % of | refused % of | least refused in a table |", "|---|---|---|---|"]
    for number, half in enumerate(("calibration", "test")[: 1 + test]):
        answers, refusals = ([] for _ in range(2))
        for those in cells.values():
            answers.append([shipped(a, learnt) >= 0 for i, _, learnt in those for a in i[number]])
            refusals.append([shipped(a, learnt) < 0 for _, o, learnt in those for a in o[number]])
        total = [f"{100 * np.mean(np.concatenate(one)):.1f} of {sum(map(len, one))}" for one in (answers, refusals)]
        lines.append(f"| {half} | {' | '.join(total)} | {100 * min(map(np.mean, refusals)):.1f} |")
    return lines, model


def refusal_table(title: str, libraries: list[tuple], model: Model, given: Model | None) -> list[str]:
    test_in = [a for i, *_ in libraries for a in i[1]]
    test_out = [a for _, o, _ in libraries for a in o[1]]
    fit_out = [a for _, o, _ in libraries for a in o[0]]
    lines = [
        "",
        f"**{title}** ({len(libraries)} x; test half: {len(test_in)} in library, {len(test_out)} out)",
        "",
        "| method | AUC | answered % | false accept % | false refuse % |",
        "|---|---|---|---|---|",
    ]

    def area(score) -> str:
        return f"{auc(np.array([score(a) for a in test_in]), np.array([score(a) for a in test_out])):.3f}"

    compared = methods(model) | ({"logistic of the public set": given.of} if given else {})
    for label, score in compared.items():
        lines.append(f"| {label} | {area(score)} | {at_refusal(score, fit_out, test_in, test_out)} |")
    learnt = {id(a): thresholds for i, o, thresholds in libraries for a in (*i[1], *o[1])}
    figures = rates(lambda a: shipped(a, learnt[id(a)]) >= 0, test_in, test_out)
    lines.append(
        f"| **shipped, threshold learnt by the library** | {area(lambda a: shipped(a, learnt[id(a)]))} | {figures} |"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "data" / "cc0_captions.jsonl", help="captions with labels")
    parser.add_argument("--captions", type=Path, help="a public set: COCO JSON, Flickr8k token file or JSON lines")
    parser.add_argument("--embedder-folder", type=Path, help="a sentence-transformers model with onnx/model.onnx")
    parser.add_argument("--calibration-half", action="store_true", help="show nothing of the test half of queries")
    parser.add_argument("--seed", type=int, default=7, help="of the things held out and the libraries drawn")
    options = parser.parse_args()
    folder, test = options.embedder_folder, not options.calibration_half
    words = Words(SentenceModelEmbedder(folder) if folder else WordLlamaEmbedder())
    background = list(bank())
    print(f"Embedder: {words.embedder.space}; {len(background)} unrelated queries; seed {options.seed}")
    for path in filter(None, (options.data, options.captions)):
        print(f"Data: {path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    given: Model | None = None
    if options.captions:
        pictures = read_pictures(options.captions)
        if test:
            print(f"\n## {options.captions.name}: retrieval\n")
            print("\n".join(recall_table(pictures, words, phrases_of(pictures), SENTENCES)))
        print(f"\n## {options.captions.name}: refusal")
        tasks = tasks_of(pictures, np.random.default_rng(options.seed))
        lines, given = refusal_tables(tasks, words, background, None, test=test)
        print("\n".join(lines))
    own = labelled(options.data)
    phrases = {query.text: query.right for query in own["phrases"][0].inside}
    print(f"\n## {options.data.name}: retrieval\n")
    print("\n".join(recall_table(read_pictures(options.data), words, phrases, SENTENCES)))
    print(f"\n## {options.data.name}: refusal")
    print("\n".join(refusal_tables(own, words, background, given, test=test)[0]))


if __name__ == "__main__":
    main()
