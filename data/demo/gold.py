"""The hidden gold judge of the demo: it labels the preference pairs and scores held-out answers. No model ever sees it.

An answer that is not in the asked format scores 0, any other the weighted mean of six qualities, each in [0, 1]. The best
possible score is 1.0, for example for "tell anna a tale about the fox in the garden.":
"tale: dear anna, the red fox sat in the green garden. it ate sweet plums. yours with love."
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from data.demo.language import ANIMALS, DETAILS, FOODS, GRUMPY
from data.sample import Sample

WEIGHTS: Mapping[str, float] = {
    "greeting": 0.15,  # "dear" and the right name 1, "hello" and the right name 0.5
    "topic": 0.2,  # half for the animal, half for the place
    "truth": 0.2,  # names what the animal eats in the stories, and no other food
    "detail": 0.15,  # a third for each concrete detail, up to three
    "kindness": 0.15,  # no grumpy word
    "farewell": 0.15,  # "yours with love" 1, "good bye" 0.5
}
DETAILS_WANTED = 3
BEST = 1.0

# heading, greeting, two or three sentences, farewell
FORM = re.compile(r"(?P<kind>[a-z]+): (?P<greeting>[a-z]+(?: [a-z]+)?), (?P<body>(?:[a-z ]+\. ){2,3})(?P<farewell>[a-z ]+)\.")


def parse(text: str, kind: str) -> re.Match | None:
    """The parts of an answer in the asked format, None for any other. No sentence may be said twice."""
    form = FORM.fullmatch(text.strip())
    if not form or form["kind"] != kind:
        return None
    sentences = form["body"].split(". ")
    return form if len(set(sentences)) == len(sentences) else None


def qualities(form: re.Match, name: str, animal: str, place: str) -> dict[str, float]:
    """The six qualities of a parsed answer, each in [0, 1]."""
    words = form["body"].replace(".", "").split()
    foods = {word for word in words if word in FOODS}
    return {
        "greeting": {f"dear {name}": 1.0, f"hello {name}": 0.5}.get(form["greeting"], 0.0),
        "topic": ((animal in words) + (place in words)) / 2,
        "truth": float(foods == {ANIMALS[animal].food}),
        "detail": min(len(DETAILS.intersection(words)), DETAILS_WANTED) / DETAILS_WANTED,
        "kindness": float(not set(words).intersection(GRUMPY)),
        "farewell": {"yours with love": 1.0, "good bye": 0.5}.get(form["farewell"], 0.0),
    }


def judge(text: str, kind: str, name: str, animal: str, place: str) -> float:
    """Gold of an answer to this request, in [0, 1]."""
    form = parse(text, kind)
    if form is None:
        return 0.0
    found = qualities(form, name, animal, place)
    return sum(weight * found[quality] for quality, weight in WEIGHTS.items())


def gold(sample: Sample) -> float:
    """Gold of a sampled answer, in [0, 1]; the prompt's meta holds what was asked for. An answer cut off scores 0."""
    asked = {key: sample.prompt.meta[key] for key in ("kind", "name", "animal", "place")}
    return 0.0 if sample.truncated else judge(sample.text, **asked)


def well_formed(sample: Sample) -> float:
    """1 where the answer is in the asked format, else 0."""
    return float(not sample.truncated and parse(sample.text, sample.prompt.meta["kind"]) is not None)
