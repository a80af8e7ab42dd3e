"""The demo's task: people of the village ask for a note or a tale about an animal in a place, and get one.

Each function yields rows and serves as a data source `data.demo.tasks:<name>`. `split` is "train" or "heldout": a request
(kind, name, animal, place) belongs to one of them, so that no held-out prompt is ever trained on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random

from data.demo.gold import judge
from data.demo.language import ANIMALS, EATING, FOODS, GRUMPY, PEOPLE, PLACES, RESTING, STORIES, TASTES

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
HELDOUT_SHARE = 8  # one request of so many
MARGIN = 0.1  # of gold between the two answers of a pair
BROKEN = 0.1  # share of pairs whose rejected answer breaks the asked format


@dataclass(frozen=True)
class Request:
    kind: str  # note: told in the present; tale: told in the past
    name: str  # whom it is for
    animal: str
    place: str

    @property
    def split(self) -> str:
        fingerprint = zlib.crc32(f"{self.kind} {self.name} {self.animal} {self.place}".encode())
        return "train" if fingerprint % HELDOUT_SHARE else "heldout"

    def prompt(self, rng: Random) -> str:
        return rng.choice(PHRASES[self.kind]).format(**asdict(self))


def request(rng: Random, split: str) -> Request:
    while True:
        drawn = Request(*(rng.choice(list(words)) for words in (PHRASES, PEOPLE, ANIMALS, PLACES)))
        if drawn.split == split:
            return drawn


def letter(rng: Random, asked: Request) -> str:
    """An answer without its heading, of mixed quality: each choice that the gold judge looks at is made by chance."""
    tense = 0 if asked.kind == "note" else 1
    animal = ANIMALS[asked.animal]

    def maybe(word: str, share: float) -> str:
        return f" {word}" if rng.random() < share else ""

    greeting = rng.choices((f"dear {asked.name}", f"hello {asked.name}", "listen"), (0.3, 0.35, 0.35))[0]
    look = rng.choices((rng.choice(animal.looks), rng.choice(GRUMPY), ""), (0.35, 0.2, 0.45))[0]
    who = asked.animal if rng.random() < 0.6 else "animal"
    setting = maybe(rng.choice(PLACES[asked.place]), 0.35)
    where = f"in the{setting} {asked.place}" if rng.random() < 0.5 else rng.choice(("at home", "over there"))
    food = animal.food if rng.random() < 0.45 else rng.choice(FOODS)
    body = [
        " ".join(f"the {look} {who} {rng.choice(RESTING)[tense]} {where}.".split()),
        f"it {rng.choice(EATING)[tense]}{maybe(rng.choice(TASTES), 0.35)} {food}.",
    ]
    remark = rng.choices(("grumpy", "friendly", "none"), (0.35, 0.3, 0.35))[0]
    if remark == "grumpy":
        body.append(f"it {('is', 'was')[tense]} a {rng.choice(GRUMPY[:-1])} day.")
    elif remark == "friendly":
        body.append(f"the {rng.choice(('sun', 'air'))} {('is', 'was')[tense]} {rng.choice(('mild', 'good'))}.")
    farewell = rng.choices(("yours with love", "good bye", "now go away"), (0.3, 0.35, 0.35))[0]
    return f"{greeting}, {' '.join(body)} {farewell}."


def answer(rng: Random, asked: Request) -> str:
    return f"{asked.kind}: {letter(rng, asked)}"


def corpus(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """`text`: stories of the village, one in four a letter between two of its people."""
    rng = Random(f"corpus {split} {seed}")
    for _ in range(rows):
        if rng.random() < 0.25:
            asked = request(rng, split)
            text = f"{rng.choice(list(PEOPLE))} sends {asked.name} a {asked.kind} about the {asked.animal} in the {asked.place}. {letter(rng, asked)}"
        else:
            text = rng.choice(STORIES)(rng)
        yield {"text": text}


def instructions(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """`prompt` and `response`: answers in the asked format, their other qualities left to chance."""
    rng = Random(f"instructions {split} {seed}")
    for _ in range(rows):
        asked = request(rng, split)
        yield {"prompt": asked.prompt(rng), "response": answer(rng, asked)}


def pairs(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """`prompt`, `chosen` and `rejected`: two answers whose gold differs by MARGIN at least, the better one chosen."""
    rng = Random(f"pairs {split} {seed}")
    for _ in range(rows):
        asked = request(rng, split)
        one, other = answer(rng, asked), answer(rng, asked)
        if rng.random() < BROKEN:
            other = broken(rng, other)
        while abs(judge(one, **asdict(asked)) - judge(other, **asdict(asked))) < MARGIN:
            one = answer(rng, asked)
        rejected, chosen = sorted((one, other), key=lambda text: judge(text, **asdict(asked)))
        yield {"prompt": asked.prompt(rng), "chosen": chosen, "rejected": rejected}


def broken(rng: Random, text: str) -> str:
    """The answer with one fault of form: cut short, without its heading, or a sentence said twice."""
    sentences = text.split(". ")
    fault = rng.choice(("cut", "heading", "twice"))
    if fault == "cut":
        words = text.split()
        return " ".join(words[: rng.randrange(2, len(words) - 1)])
    if fault == "heading":
        return text.split(": ")[1]
    repeated = rng.randrange(1, len(sentences) - 1)
    return ". ".join(sentences[: repeated + 1] + sentences[repeated:])


def prompts(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """`prompt`, and what the judge must know of it: `kind`, `name`, `animal`, `place`."""
    rng = Random(f"prompts {split} {seed}")
    for _ in range(rows):
        asked = request(rng, split)
        yield {"prompt": asked.prompt(rng), **asdict(asked)}
