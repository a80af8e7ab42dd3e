"""The demo's task: villagers ask for a note or a tale about an animal in a place, and get one.

Each public generator yields rows and is a data source `data.demo.tasks:<name>`. `split` is "train" or "heldout". The fingerprint
of a text or a request decides its split, so that held-out ones are never trained on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from random import Random

from data.demo.gold import judge, qualities
from data.demo.language import (
    ANIMALS,
    BEING,
    EATING,
    ELSEWHERE,
    FAREWELLS,
    GREETINGS,
    GRUMPY,
    KINDS,
    PEOPLE,
    PLACES,
    RESTING,
    STORIES,
    TASTES,
)
from data.errors import UserError

PHRASES = {
    "note": (
        "write a note to {name} about the {animal} in the {place}.",
        "please write {name} a note about the {animal} in the {place}.",
        "{name} wants a note about the {animal} in the {place}.",
    ),
    "tale": (
        "tell {name} a tale about the {animal} in the {place}.",
        "please tell {name} a tale about the {animal} in the {place}.",
        "{name} wants a tale about the {animal} in the {place}.",
    ),
}
SPLITS = ("train", "heldout")
HELDOUT_SHARE = 8  # one of so many texts or requests is held out
LETTERS = 0.25  # share of the corpus
MARGIN = 0.1  # least difference of gold between the two answers of a pair
FAULTY = 0.2  # share of pairs with an answer that breaks the asked format


def split_of(text: str) -> str:
    """The split of a text, from the text alone."""
    return SPLITS[zlib.crc32(text.encode()) % HELDOUT_SHARE == 0]


def stream(source: str, split: str, seed: int) -> Random:
    """The random generator of one source of rows."""
    if split not in SPLITS:
        raise UserError(f"data.demo.tasks:{source} got split {split!r}; use one of {', '.join(SPLITS)}")
    return Random(f"{source} {split} {seed}")


@dataclass(frozen=True)
class Request:
    kind: str
    name: str  # whom the letter is for
    animal: str
    place: str

    @classmethod
    def draw(cls, rng: Random, split: str) -> Request:
        while True:
            request = cls(*(rng.choice(list(words)) for words in (KINDS, PEOPLE, ANIMALS, PLACES)))
            if split_of(" ".join(asdict(request).values())) == split:
                return request

    def phrase(self, rng: Random) -> str:
        return rng.choice(PHRASES[self.kind]).format(**asdict(self))

    def gold(self, answer: str) -> float:
        return judge(answer, **asdict(self))

    def qualities(self, answer: str) -> dict[str, float] | None:
        return qualities(answer, **asdict(self))


def write_letter(rng: Random, request: Request) -> str:
    """An answer without its heading, of mixed quality: everything that the gold judge scores is random."""
    animal, tense = ANIMALS[request.animal], KINDS.index(request.kind)

    def sometimes(word: str, share: float) -> str:
        return f"{word} " if rng.random() < share else ""

    greeting = rng.choices(GREETINGS, (0.3, 0.35, 0.35))[0].format(name=request.name)
    look = rng.choices((f"{rng.choice(animal.looks)} ", f"{rng.choice(GRUMPY)} ", ""), (0.35, 0.2, 0.45))[0]
    who = request.animal if rng.random() < 0.6 else "animal"
    setting = sometimes(rng.choice(PLACES[request.place]), 0.4)
    where = f"in the {setting}{request.place}" if rng.random() < 0.5 else rng.choice(ELSEWHERE)
    taste = sometimes(rng.choice(TASTES), 0.35)
    food = animal.food if rng.random() < 0.45 else "food"
    remarks = (f" it {BEING[tense]} a {rng.choice(GRUMPY)} day.", f" the air {BEING[tense]} mild.", "")
    remark = rng.choices(remarks, (0.35, 0.3, 0.35))[0]
    farewell = rng.choices(FAREWELLS, (0.3, 0.35, 0.35))[0]
    return (
        f"{greeting}, the {look}{who} {rng.choice(RESTING)[tense]} {where}. "
        f"it {rng.choice(EATING)[tense]} {taste}{food}.{remark} {farewell}."
    )


def write_answer(rng: Random, request: Request) -> str:
    return f"{request.kind}: {write_letter(rng, request)}"


def spoil(rng: Random, request: Request) -> str:
    """An answer with one formal fault: the other kind, cut short, no heading, or a repeated sentence."""
    fault = rng.choice(("kind", "kind", "cut", "heading", "twice"))
    if fault == "kind":
        (other,) = set(KINDS) - {request.kind}
        return write_answer(rng, replace(request, kind=other))
    answer = write_answer(rng, request)
    if fault == "cut":
        words = answer.split()
        return " ".join(words[: rng.randrange(2, len(words))])
    if fault == "heading":
        return answer.split(": ")[1]
    sentences = answer.split(". ")
    return ". ".join(sentences[:-1] + sentences[-2:])


def corpus(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `text`: stories of the village and letters between its people."""
    rng = stream("corpus", split, seed)
    while rows > 0:
        if rng.random() < LETTERS:
            request = Request.draw(rng, split)
            sender = rng.choice([name for name in PEOPLE if name != request.name])
            told = f"{sender} sends {{name}} a {{kind}} about the {{animal}} in the {{place}}."
            text = f"{told.format(**asdict(request))} {write_letter(rng, request)}"
        else:
            text = rng.choice(STORIES)(rng)
        if split_of(text) == split:
            rows -= 1
            yield {"text": text}


def instructions(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt` and `response`: answers in the asked format, of mixed quality."""
    rng = stream("instructions", split, seed)
    for _ in range(rows):
        request = Request.draw(rng, split)
        yield {"prompt": request.phrase(rng), "response": write_answer(rng, request)}


def pairs(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt`, `chosen` and `rejected`: two answers whose gold differs by at least MARGIN."""
    rng = stream("pairs", split, seed)
    for _ in range(rows):
        request = Request.draw(rng, split)
        first, second = write_answer(rng, request), write_answer(rng, request)
        if rng.random() < FAULTY:
            second = spoil(rng, request)
        while abs(request.gold(first) - request.gold(second)) < MARGIN:
            first = write_answer(rng, request)
        rejected, chosen = sorted((first, second), key=request.gold)
        yield {"prompt": request.phrase(rng), "chosen": chosen, "rejected": rejected}


def prompts(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt` and the request that the judge needs: `kind`, `name`, `animal`, `place`."""
    rng = stream("prompts", split, seed)
    for _ in range(rows):
        request = Request.draw(rng, split)
        yield {"prompt": request.phrase(rng), **asdict(request)}
