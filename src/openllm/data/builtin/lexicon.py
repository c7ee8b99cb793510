# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The closed word classes of the builtin corpus, and the things a sentence slot can hold.

`WORD_CLASS` maps every word or phrase of a closed class to (class, meaning); the checker reads
with it what the generator writes from the same lists.
"""

from dataclasses import dataclass

from openllm.data.builtin.names import SPLITS, split_of, words


def phrases(text: str) -> list[str]:
    """The phrases of a list written with `|` between them."""
    return text.split("|")


def records(text: str) -> list[str]:
    """The records of a table written with `;` between them."""
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
FOODS = phrases(
    "honey cake|plum tart|warm bread|cherry pie|nut bread|lemon cake|berry jam|goat cheese|"
    "pumpkin soup|ginger cake|roasted corn|barley soup|pear pie|sweet rolls|rice pudding|pancakes"
)
PLACES = records(  # preposition, name
    "at|old mill;on|windy hill;in|pine wood;at|fish market;by|duck pond;in|apple orchard;"
    "at|stone bridge;on|sandy beach;in|castle garden;by|harbour;at|clock tower;by|quiet lake;"
    "in|barley field;at|railway station;on|village green;by|waterfall;at|crossroads;in|rose garden;"
    "on|long pier;by|mossy well;at|old lighthouse;in|deep valley;on|market square;by|sheep meadow"
)
SPOTS = phrases(
    "under the bench|in the hollow tree|under the dry leaves|in the long grass|between two rocks|"
    "on top of the wall|under the cart|beneath the willow|beside the gate|behind the haystack|"
    "in the empty nest|among the reeds|under the old boat house|in the woodpile|"
    "behind the fountain|inside the old boot|under the hedge|on the roof of the shed"
)
HOME_SPOTS = phrases(
    "behind the stove|behind the barn door|in the flower pot|behind the curtain|inside the barrel|"
    "on the window sill|under the stairs|under the ladder|beneath the table|under the pillow|"
    "on the highest shelf|behind the big mirror"
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
TRADES = records(  # one worker, many workers, what they start from, what they make
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
    """Somebody in a document, with the words that depend on the gender."""

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
    """A girl or woman of this name."""
    return Person(name, "she", "her", "her", "girl", "woman", "grandmother", "She", "Her")


def man(name: str) -> Person:
    """A boy or man of this name."""
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
    """A place of a story: `the {p}` or `{p.at}`."""

    name: str
    at: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade of the invented world: `a {e}`, `the {e.all}`, what they turn into what."""

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


ALL_PLACES = [Place(name, f"{at} the {name}") for at, name in (p.split("|") for p in PLACES)]
ALL_TRADES = [Trade(*trade.split("|")) for trade in TRADES]
ALL_ANIMALS = [
    Animal(f"{kind} {one}", f"{kind} {many}")
    for kind in ANIMAL_KINDS
    for one, many in (base.split("|") for base in ANIMAL_BASES)
]
THINGS_OF = {
    split: [Thing(c, t) for t in THINGS for c in COLOURS if split_of(f"{c} {t}") == split]
    for split in SPLITS
}
ANIMALS_OF = {s: [a for a in ALL_ANIMALS if split_of(a.name) == s] for s in SPLITS}


def _word_class() -> dict[str, tuple[str, str]]:
    table: dict[str, tuple[str, str]] = {}
    plain = {
        "colour": COLOURS,
        "thing": THINGS,
        "trait": TRAITS,
        "food": FOODS,
        "spot": SPOTS + HOME_SPOTS,
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
    for place in ALL_PLACES:
        entries += [(place.name, "place", place.name), (place.at, "place.at", place.name)]
    for trade in ALL_TRADES:
        entries += [(trade.name, "trade", trade.name), (trade.all, "trade.all", trade.name)]
        entries += [(trade.raw, "trade.raw", trade.name), (trade.ware, "trade.ware", trade.name)]
    for animal in ALL_ANIMALS:
        entries += [(animal.name, "animal", animal.name), (animal.all, "animal.all", animal.name)]
    for noun, words in {
        "he": "she he She He",
        "his": "her his him Her His",
        "girl": "girl boy",
        "woman": "woman man",
        "grandmother": "grandmother grandfather",
    }.items():
        female = ("she", "She", "her", "Her", "girl", "woman", "grandmother")
        entries += [(w, noun, "female" if w in female else "male") for w in words.split()]
    for word, kind, meaning in entries:
        if word in table:
            raise AssertionError(f"{word!r} is in two word classes: {table[word][0]} and {kind}")
        table[word] = (kind, meaning)
    return table


WORD_CLASS = _word_class()
