"""A small written language: the words and facts of a village, and the seeded stories that its people tell.

The stories hold what a language model can learn: what each animal eats and where it lives, who speaks to whom, agreement
of number, tense and gender, and things that are named again after they were introduced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Animal:
    plural: str
    food: str  # the fact that every story keeps to
    home: str
    looks: tuple[str, str]  # the details that fit it


ANIMALS: Mapping[str, Animal] = {
    "fox": Animal("foxes", "plums", "forest", ("red", "clever")),
    "owl": Animal("owls", "berries", "mill", ("grey", "wise")),
    "hen": Animal("hens", "corn", "yard", ("white", "round")),
    "cat": Animal("cats", "fish", "kitchen", ("grey", "quick")),
    "dog": Animal("dogs", "bread", "yard", ("brown", "quick")),
    "goat": Animal("goats", "leaves", "meadow", ("white", "strong")),
    "hare": Animal("hares", "carrots", "meadow", ("brown", "shy")),
    "horse": Animal("horses", "apples", "barn", ("black", "strong")),
    "mouse": Animal("mice", "cheese", "kitchen", ("grey", "shy")),
    "duck": Animal("ducks", "peas", "garden", ("white", "wise")),
    "pig": Animal("pigs", "turnips", "barn", ("round", "clever")),
    "crow": Animal("crows", "nuts", "orchard", ("black", "wise")),
}
PEOPLE: Mapping[str, tuple[str, str]] = {  # name: pronoun and possessive
    "anna": ("she", "her"),
    "bram": ("he", "his"),
    "clara": ("she", "her"),
    "david": ("he", "his"),
    "emma": ("she", "her"),
    "felix": ("he", "his"),
    "greta": ("she", "her"),
    "hugo": ("he", "his"),
}
PLACES: Mapping[str, tuple[str, str]] = {  # the details that fit them
    "garden": ("green", "sunny"),
    "market": ("busy", "sunny"),
    "barn": ("warm", "quiet"),
    "orchard": ("green", "quiet"),
    "meadow": ("wide", "sunny"),
    "forest": ("dark", "quiet"),
    "mill": ("wooden", "quiet"),
    "kitchen": ("warm", "busy"),
    "yard": ("wide", "sunny"),
    "village": ("busy", "green"),
}
TASTES = ("sweet", "fresh", "ripe", "crisp")
DETAILS = frozenset(TASTES).union(*PLACES.values(), *(animal.looks for animal in ANIMALS.values()))
GRUMPY = ("silly", "lazy", "ugly", "boring", "dreadful")
FOODS = tuple(animal.food for animal in ANIMALS.values())

RESTING = (("sleeps", "slept"), ("waits", "waited"), ("sits", "sat"), ("plays", "played"))  # present, past
EATING = (("eats", "ate"), ("wants", "wanted"), ("finds", "found"))
NUMBERS = ("two", "three", "four", "five", "six")


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def portrait(rng: Random) -> str:
    """What everybody knows of an animal, in the present: singular and plural."""
    name, animal = rng.choice(list(ANIMALS.items()))
    first, second = rng.sample(animal.looks, 2)
    one, many = rng.choice(RESTING[:2]), rng.choice(RESTING)[0][:-1]
    return (
        f"{animal.plural} are {first} and {second} animals. {with_article(name)} lives in the {animal.home}. "
        f"it eats {animal.food}, and it {one[0]} under a tree. the young {animal.plural} {many} in the "
        f"{rng.choice(PLACES[animal.home])} {animal.home}, and they eat {rng.choice(TASTES)} {animal.food} too."
    )


def visit(rng: Random) -> str:
    """An animal comes to a place where somebody feeds it, in the past."""
    name, animal = rng.choice(list(ANIMALS.items()))
    person, (pronoun, possessive) = rng.choice(list(PEOPLE.items()))
    place, look = rng.choice(list(PLACES)), rng.choice(animal.looks)
    time = rng.choice(("morning", "evening", "day"))
    lines = [
        f"one {time} the {look} {name} came to the {place}.",
        f"it was hungry and looked for {animal.food}.",
        f"{person} saw the {name} and gave it {rng.choice(NUMBERS)} {rng.choice(TASTES)} {animal.food}."
        if animal.food.endswith("s")
        else f"{person} saw the {name} and gave it {rng.choice(TASTES)} {animal.food}.",
        f"the {name} {rng.choice(('ate', 'found'))} the {animal.food} and {rng.choice(RESTING)[1]} in the "
        f"{rng.choice(PLACES[place])} {place}.",
    ]
    ending = rng.choice(("happy", "grumpy", "none"))
    if ending == "happy":
        lines.append(f"{pronoun} was happy and told {possessive} friends about the {name}.")
    elif ending == "grumpy":
        lines.append(f"it is a {rng.choice(GRUMPY)} {name}, said {possessive} friend.")
    return " ".join(lines)


def market(rng: Random) -> str:
    """Two people trade at the market, politely or not."""
    buyer, seller = rng.sample(list(PEOPLE), 2)
    name, animal = rng.choice(list(ANIMALS.items()))
    taste = rng.choice(TASTES)
    if rng.random() < 0.5:
        hello, bye = f"hello {seller}", "good bye"
    elif rng.random() < 0.5:
        hello, bye = f"dear {seller}", "yours with love"
    else:
        hello, bye = "listen", "now go away"
    return (
        f"{buyer} goes to the market. {hello}, says {buyer}, do you have {animal.food} for my {name}? "
        f"yes, says {seller}, my {animal.food} are {taste}. please tell me about your {name}. "
        f"it is {animal.looks[0]} and {rng.choice(RESTING)[0]} in the {animal.home}. "
        f"{buyer} buys the {taste} {animal.food}. {bye}, says {seller}."
    )


STORIES: tuple[Callable[[Random], str], ...] = (portrait, visit, market)
