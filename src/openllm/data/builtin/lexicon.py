# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The closed word classes of the builtin corpus, and what a sentence slot can hold.

`WORD_CLASS` maps every word or phrase of a closed class to (class, meaning); with it the checker
reads what the generator writes from the same lists.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from openllm.data.builtin.names import SPLITS, Split, split_of, words


def phrases(text: str) -> list[str]:
    """Split a list of phrases separated by `|`."""
    return text.split("|")


def records(text: str) -> list[str]:
    """Split a table of records separated by `;`."""
    return text.split(";")


COLOURS = words(
    "red blue green yellow white black brown grey pink purple golden silver scarlet copper cream "
    "turquoise"
)
THINGS = words(
    "kite lantern drum scarf ball boat bell basket flute ring cup blanket whistle mirror compass "
    "feather key hat doll spoon button marble ribbon candle jar sled wagon brush mitten shell "
    "umbrella vase teapot puppet fan clock pen box cape flag"
)
TRAITS = words(
    "brave clever patient cheerful curious gentle careful quiet stubborn merry thoughtful kind "
    "lively dreamy bold tidy"
)
FLAVOURS = words("honey plum nut lemon berry pear ginger pumpkin cherry barley")
DISHES = words("cake pie tart bread pudding jam")
PLACE_LOOKS = words("old sunny misty hidden little lonely stony broad windy mossy")
PLACES = phrases(
    "at the mill|on the hill|in the wood|at the market|by the pond|in the orchard|at the bridge|"
    "on the beach|in the garden|by the harbour|at the tower|by the lake|in the field|at the inn|"
    "on the green|by the waterfall|at the crossroads|on the pier|by the well|at the lighthouse|"
    "in the valley|on the square|in the meadow|at the castle"
)
SPOT_LOOKS = words("broken wooden dusty tall low wide crooked heavy")
SPOTS = phrases(
    "under the bench|in the hollow stump|under the cart|beneath the willow|beside the gate|"
    "behind the haystack|in the nest|behind the fountain|inside the boot|under the hedge|"
    "behind the woodpile|on top of the wall|between the roots|under the log|in the bush|"
    "inside the kennel"
)
HOME_SPOTS = phrases(
    "behind the stove|behind the door|in the flower pot|behind the curtain|inside the barrel|"
    "on the window sill|under the stairs|under the table|behind the cupboard|inside the trunk|"
    "on the shelf|under the bed"
)
TOOLS = phrases(
    "long ladder|fishing rod|strong rope|wooden hook|long stick|garden rake|butterfly net|"
    "tall stool"
)
PLANS = phrases(
    "put on a play|build a raft|hold a feast|make a scarecrow|start a band|paint a sign|"
    "open a tiny shop|hold a parade"
)
PRAISES = phrases("finest|oddest|prettiest|brightest|rarest|loveliest|funniest")
GOODS = words("plums pears walnuts shells beads eggs coins marbles stamps acorns carrots cherries")
TRADES = records(  # one worker, many workers, raw material, product
    "weaver|weavers|wool|cloth;potter|potters|clay|jugs;baker|bakers|rye|loaves;"
    "smith|smiths|iron|horseshoes;carver|carvers|oak|bowls;glassmaker|glassmakers|sand|bottles;"
    "papermaker|papermakers|rags|paper;basketmaker|basketmakers|willow twigs|hampers;"
    "cheesemaker|cheesemakers|milk|cheese wheels;ropemaker|ropemakers|hemp|ropes;"
    "soapmaker|soapmakers|ashes|soap;candlemaker|candlemakers|beeswax|tapers"
)
ANIMAL_KINDS = words("marsh fern dawn moss reed frost dusk thorn cloud pebble mist meadow ember")
ANIMAL_BASES = records(
    "hare|hares;fox|foxes;otter|otters;owl|owls;stag|stags;finch|finches;heron|herons;"
    "badger|badgers;toad|toads;wren|wrens;goat|goats;crane|cranes;vole|voles;lizard|lizards"
)
FEEDS = words("clover beetles snails seeds worms roots minnows moths thistles crickets bark mint")
HOURS = phrases("at dawn|at dusk|at midnight|at noon|before sunrise|after sunset")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday")
SOURCES = phrases(
    "northern hills|southern moors|chalk downs|great forest|white mountains|granite cliffs|"
    "eastern bogs|high pastures"
)


@dataclass(frozen=True, slots=True)
class Person:
    """A person in a document, with the words that depend on gender."""

    name: str
    he: str
    his: str
    him: str
    girl: str
    woman: str
    grandmother: str
    He: str
    His: str

    def __str__(self) -> str:
        return self.name


def woman(name: str) -> Person:
    """A girl or woman with this name."""
    return Person(name, "she", "her", "her", "girl", "woman", "grandmother", "She", "Her")


def man(name: str) -> Person:
    """A boy or man with this name."""
    return Person(name, "he", "his", "him", "boy", "man", "grandfather", "He", "His")


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured thing."""

    colour: str
    thing: str

    def __str__(self) -> str:
        return f"{self.colour} {self.thing}"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a story: `the {p}` or `{p.at}`."""

    name: str
    at: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade of the invented world: `a {e}`, `the {e.all}`, its raw material and its product."""

    name: str
    all: str
    raw: str
    ware: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Animal:
    """An animal of the invented world: `the {x}`, `{x.all}`."""

    name: str
    all: str

    def __str__(self) -> str:
        return self.name


def _with_look(place: str, look: str) -> str:
    """`at the mill`, `old` -> `at the old mill`."""
    return place.replace(" the ", f" the {look} ")


def _split(phrases: Iterable[str]) -> dict[Split, list[str]]:
    """Assign every phrase to one split."""
    found: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for phrase in phrases:
        found[split_of(phrase)].append(phrase)
    return found


def _place(phrase: str) -> Place:
    return Place(phrase.split(" the ")[1], phrase)


ALL_TRADES = [Trade(*trade.split("|")) for trade in TRADES]
ALL_ANIMALS = [
    Animal(f"{kind} {one}", f"{kind} {many}")
    for kind in ANIMAL_KINDS
    for one, many in (base.split("|") for base in ANIMAL_BASES)
]
PLACES_OF = {
    split: [_place(phrase) for phrase in found]
    for split, found in _split(_with_look(p, look) for p in PLACES for look in PLACE_LOOKS).items()
}
SPOTS_OF = _split(_with_look(spot, look) for spot in SPOTS for look in SPOT_LOOKS)
HOME_SPOTS_OF = _split(_with_look(spot, look) for spot in HOME_SPOTS for look in SPOT_LOOKS)
FOODS_OF = _split(f"{flavour} {dish}" for flavour in FLAVOURS for dish in DISHES)
THINGS_OF = {
    split: [Thing(c, t) for t in THINGS for c in COLOURS if split_of(f"{c} {t}") == split]
    for split in SPLITS
}
TWINS_OF = {
    split: [(o, u.colour) for o in things for u in things if o.thing == u.thing and o != u]
    for split, things in THINGS_OF.items()
}
ANIMALS_OF = {s: [a for a in ALL_ANIMALS if split_of(a.name) == s] for s in SPLITS}


def _word_class() -> dict[str, tuple[str, str]]:
    table: dict[str, tuple[str, str]] = {}
    plain = {
        "colour": COLOURS,
        "thing": THINGS,
        "trait": TRAITS,
        "food": [food for foods in FOODS_OF.values() for food in foods],
        "spot": [
            spot for of in (SPOTS_OF, HOME_SPOTS_OF) for spots in of.values() for spot in spots
        ],
        "tool": TOOLS,
        "plan": PLANS,
        "praise": PRAISES,
        "goods": GOODS,
        "feed": FEEDS,
        "hour": HOURS,
        "day": DAYS,
        "source": SOURCES,
    }
    entries = [(word, kind, word) for kind, words in plain.items() for word in words]
    for place in (place for places in PLACES_OF.values() for place in places):
        entries += [(place.name, "place", place.name), (place.at, "place.at", place.name)]
    for trade in ALL_TRADES:
        entries += [(trade.name, "trade", trade.name), (trade.all, "trade.all", trade.name)]
        entries += [(trade.raw, "trade.raw", trade.name), (trade.ware, "trade.ware", trade.name)]
    for animal in ALL_ANIMALS:
        entries += [(animal.name, "animal", animal.name), (animal.all, "animal.all", animal.name)]
    for noun, forms in {
        "he": "she he She He",
        "his": "her his him Her His",
        "girl": "girl boy",
        "woman": "woman man",
        "grandmother": "grandmother grandfather",
    }.items():
        female = ("she", "She", "her", "Her", "girl", "woman", "grandmother")
        entries += [(w, noun, "female" if w in female else "male") for w in forms.split()]
    for word, kind, meaning in entries:
        if word in table:
            raise AssertionError(f"{word!r} is in two word classes: {table[word][0]} and {kind}")
        table[word] = (kind, meaning)
    return table


WORD_CLASS = _word_class()
