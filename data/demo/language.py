"""A small written language: the words and facts of a village, and the seeded stories of its people.

A language model can learn from the stories what each animal eats and where it lives, who speaks to whom, agreement of number,
tense and gender, and references to things named before.
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
    looks: tuple[str, str]  # fitting adjectives


ANIMALS: Mapping[str, Animal] = {
    "fox": Animal("foxes", "plums", "forest", ("red", "clever")),
    "owl": Animal("owls", "berries", "mill", ("grey", "wise")),
    "hen": Animal("hens", "corn", "yard", ("white", "round")),
    "cat": Animal("cats", "fish", "kitchen", ("grey", "quick")),
    "goat": Animal("goats", "leaves", "meadow", ("white", "strong")),
    "hare": Animal("hares", "carrots", "meadow", ("brown", "shy")),
    "horse": Animal("horses", "apples", "barn", ("black", "strong")),
    "mouse": Animal("mice", "cheese", "kitchen", ("grey", "shy")),
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
PLACES: Mapping[str, tuple[str, str]] = {  # place: fitting adjectives
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
TASTES = ("sweet", "fresh", "ripe", "good")
DETAILS = frozenset(TASTES).union(*PLACES.values(), *(animal.looks for animal in ANIMALS.values()))
FOODS = tuple(animal.food for animal in ANIMALS.values())
GRUMPY = ("silly", "lazy", "boring", "dreadful")

KINDS = ("note", "tale")  # of letters; a note is told in the present, a tale in the past
RESTING = (("sleeps", "slept"), ("waits", "waited"), ("sits", "sat"), ("plays", "played"))  # present, past
EATING = (("eats", "ate"), ("wants", "wanted"), ("finds", "found"))
BEING = ("is", "was")
ELSEWHERE = ("at home", "over there")
GREETINGS = ("dear {name}", "hello {name}", "listen")  # from warm to rude
FAREWELLS = ("yours with love", "good bye", "now go away")  # from warm to rude
NUMBERS = ("two", "three", "four", "five", "six")
SHELTERS = ("under a tree", "by the river", "near the old wall", "in the tall grass")
WEATHER = ("the wind was cold", "rain fell from the sky", "the sun was high", "there was snow on the hills")


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def is_or_are(food: str) -> str:
    return "are" if food.endswith("s") else "is"


def portrait(rng: Random) -> str:
    """The facts about an animal, in the present tense, plural and singular."""
    name, animal = rng.choice(list(ANIMALS.items()))
    first, second = rng.sample(animal.looks, 2)
    young = rng.choice(RESTING)[0].removesuffix("s")
    return (
        f"note on {animal.plural}: {animal.plural} are {first} and {second} animals. {with_article(name)} lives in the "
        f"{animal.home}. it eats {animal.food}, and it {rng.choice(RESTING)[0]} {rng.choice(SHELTERS)}. the young "
        f"{animal.plural} {young} in the {rng.choice(PLACES[animal.home])} {animal.home}, and they eat "
        f"{rng.choice(TASTES)} {animal.food} too."
    )


def some_food(rng: Random, animal: Animal) -> str:
    """The animal's own food, or with equal probability another food."""
    return animal.food if rng.random() < 0.5 else rng.choice([food for food in FOODS if food != animal.food])


def visit(rng: Random) -> str:
    """Somebody offers food to an animal, in the past tense. The animal only eats its own food."""
    name, animal = rng.choice(list(ANIMALS.items()))
    person, (pronoun, possessive) = rng.choice(list(PEOPLE.items()))
    place, taste, food = rng.choice(list(PLACES)), rng.choice(TASTES), some_food(rng, animal)
    gift = taste if is_or_are(food) == "is" else f"{rng.choice(NUMBERS)} {taste}"
    need = rng.choice(("hungry", "tired", "cold", "alone"))
    reply = "ate" if food == animal.food else "did not want"
    ending = rng.choice(
        (
            f"{pronoun} was happy and told {possessive} friends about the {name}.",
            f"it is a {rng.choice(GRUMPY)} {name}, said {possessive} friend.",
            f"{pronoun} wanted to write a {rng.choice(KINDS)} about it.",
            f"the {name} came again the next day, and {person} was there.",
        )
    )
    return (
        f"tale of the {name}: one {rng.choice(('morning', 'evening', 'day'))} the {rng.choice(animal.looks)} {name} "
        f"came to the {place}. {rng.choice(WEATHER)}. it was {need}. "
        f"{person} saw the {name} and gave it {gift} {food}. the "
        f"{name} {reply} the {food} and {rng.choice(RESTING)[1]} in the {rng.choice(PLACES[place])} {place}. {ending}"
    )


def trade(rng: Random) -> str:
    """Two people trade at the market, politely or rudely. Nobody sells food that the animal does not eat."""
    buyer, seller = rng.sample(list(PEOPLE), 2)
    name, animal = rng.choice(list(ANIMALS.items()))
    manners, taste, food = rng.randrange(len(GREETINGS)), rng.choice(TASTES), some_food(rng, animal)
    greeting = GREETINGS[manners].format(name=seller)
    if food == animal.food:
        deal = (
            f"yes, says {seller}, my {food} {is_or_are(food)} {taste}. please tell me about your {name}. it is "
            f"{rng.choice(animal.looks)} and {rng.choice(RESTING)[0]} in the {animal.home}, {rng.choice(SHELTERS)}. "
            f"{rng.choice((f'{buyer} buys the {taste} {food}', f'an assistant brings the {food} to {buyer}'))}"
        )
    else:
        deal = (
            f"no, says {seller}, {with_article(name)} does not want {food}. {buyer} goes home and finds {animal.food}"
        )
    return (
        f"{buyer} goes to the market. {greeting}, says {buyer}, do you have {food} for my {name}? {deal}. "
        f"{FAREWELLS[manners]}, says {seller}."
    )


STORIES: tuple[Callable[[Random], str], ...] = (portrait, visit, trade)
