"""Names and nouns that the task generator draws from, and the grammar around a count."""

from __future__ import annotations

from random import Random
from typing import NamedTuple


class Noun(NamedTuple):
    """A countable noun in both numbers."""

    one: str
    many: str


def count(number: int, noun: Noun) -> str:
    """Say a number of things: `1 box`, `7 boxes`."""
    return f"{number} {noun.one if number == 1 else noun.many}"


def two_names(rng: Random) -> tuple[str, str]:
    """Draw two different first names."""
    first, second = rng.sample(NAMES, 2)
    return first, second


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _nouns(text: str) -> tuple[Noun, ...]:
    """Build nouns from `one/many`, or from words whose plural only adds an s."""
    pairs = (word.split("/") if "/" in word else (word, word + "s") for word in text.split())
    return tuple(Noun(one, many) for one, many in pairs)


# First names only, and the texts use no pronoun for them: nothing has to agree in gender.
NAMES = _words(
    "Ada Amir Anouk Arun Bao Bela Carla Chidi Dalia Dario Edda Emeka Farah Felix Greta Hana "
    "Hugo Ines Ivan Jonas Juno Kai Keiko Lars Leila Lina Malik Mara Mateo Mina Nadia Nils Noor "
    "Olga Omar Pablo Petra Priya Quinn Rafael Rosa Samir Selma Tariq Tessa Uma Viktor Wanda "
    "Yara Yusuf Zoe Zoran"
)

GOODS = _nouns(
    "notebook pen ruler folder marker mug candle plate towel basket poster plant lamp "
    "scarf/scarves box/boxes brush/brushes sponge jar pillow cap"
)
BAKED = _nouns("cookie muffin roll pretzel biscuit bun pie scone brownie cupcake")
PACKS = _nouns("bag box/boxes tin basket carton jar")
PARTS = _nouns("bolt hinge gear valve spring bracket wheel bearing switch/switches knob")
ANIMALS = _nouns("sheep/sheep goat hen cow duck goose/geese rabbit pony/ponies")
ANIMAL_PLACES = ("farm", "ranch", "animal shelter", "petting zoo", "riding school")
BULK = _nouns("brick tile stamp card book apple orange lemon shell bead coin photo")
MAKERS = ("factory", "workshop", "plant", "foundry", "mill")
SHOWS = ("concert", "play", "film", "circus show", "puppet show", "lecture", "recital", "match")
PLOTS = ("garden", "paddock", "playground", "vegetable patch", "courtyard", "chicken run")
GOALS = ("bicycle", "guitar", "tent", "camera", "telescope", "trip", "skateboard", "violin")
READINGS = ("novel", "biography", "travel book", "history book", "mystery", "textbook")
VESSELS = ("tank", "pond", "barrel", "pool", "cistern", "trough")
VEHICLES = ("car", "bus", "van", "truck", "train", "motorcycle")
EVENTS = ("film", "workshop", "train ride", "hike", "concert", "meeting", "exam", "boat trip")

HOUR = Noun("hour", "hours")
MINUTE = Noun("minute", "minutes")
DAY = Noun("day", "days")
WEEK = Noun("week", "weeks")
YEAR = Noun("year", "years")
PAGE = Noun("page", "pages")
ROW = Noun("row", "rows")
SEAT = Noun("seat", "seats")
CHILD = Noun("child", "children")
ADULT = Noun("adult", "adults")
METER = Noun("meter", "meters")
LITER = Noun("liter", "liters")
PUPIL = Noun("pupil", "pupils")

LETTER_WORDS = _words(
    "silver garden window marble lantern button engine pepper ribbon tunnel meadow kettle "
    "blanket pebble rocket saddle timber velvet walnut yellow basket candle dragon feather "
    "glacier hammer island jigsaw kitten ladder mirror needle orchard puzzle quarry raisin "
    "shelter teapot umbrella village whistle anchor bottle copper dinner emerald forest "
    "giraffe harbor insect jungle kernel lemon magnet noodle oyster parrot rabbit summer"
)
