"""Multiple choice about units, dates, times, letters and order, and the table of all families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from safemix.rows.builtin import choices
from safemix.rows.builtin import words as w
from safemix.rows.builtin.choices import Choice, numeric
from safemix.rows.builtin.words import Noun, count

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


class Unit(NamedTuple):
    """A unit, the smaller one that it is made of, and what is measured in it."""

    large: Noun
    small: Noun
    factor: int
    thing: str


UNITS = (
    Unit(Noun("kilometer", "kilometers"), w.METER, 1000, "path is {} long"),
    Unit(w.METER, Noun("centimeter", "centimeters"), 100, "rope is {} long"),
    Unit(Noun("kilogram", "kilograms"), Noun("gram", "grams"), 1000, "suitcase weighs {}"),
    Unit(w.LITER, Noun("milliliter", "milliliters"), 1000, "bucket holds {}"),
    Unit(w.HOUR, w.MINUTE, 60, "shift lasts {}"),
    Unit(w.MINUTE, Noun("second", "seconds"), 60, "song lasts {}"),
    Unit(w.DAY, w.HOUR, 24, "journey takes {}"),
    Unit(w.WEEK, w.DAY, 7, "course takes {}"),
    Unit(Noun("foot", "feet"), Noun("inch", "inches"), 12, "shelf is {} long"),
    Unit(Noun("yard", "yards"), Noun("foot", "feet"), 3, "ribbon is {} long"),
    Unit(Noun("pound", "pounds"), Noun("ounce", "ounces"), 16, "parcel weighs {}"),
)


def conversion(rng: Random) -> Choice:
    """A measure in two units, told in the smaller one."""
    name, unit = rng.choice(w.NAMES), rng.choice(UNITS)
    large, small = rng.randint(2, 30), rng.randrange(1, unit.factor)
    measure = unit.thing.format(f"{count(large, unit.large)} and {count(small, unit.small)}")
    right = large * unit.factor + small
    slips = (
        large * 10 + small,
        large * 100 + small,
        large * unit.factor,
        (large + 1) * unit.factor + small,
        (large - 1) * unit.factor + small,
        right + 10,
    )
    question = f"{name}'s {measure}. How many {unit.small.many} is that?"
    return numeric(rng, question, right, slips, f"{{}} {unit.small.many}")


def weekday(rng: Random) -> Choice:
    """The weekday some days after or before a date."""
    name, event = rng.choice(w.NAMES), rng.choice(w.EVENTS)
    today = date(2001, 1, 1) + timedelta(days=rng.randrange(20_000))
    days, later = rng.randint(2, 60), rng.random() < 0.7
    other = today + timedelta(days=days if later else -days)
    right = WEEKDAYS[other.weekday()]
    wrong = rng.sample([day for day in WEEKDAYS if day != right], 3)
    told = f"{MONTHS[today.month - 1]} {today.day}, {today.year} is a {WEEKDAYS[today.weekday()]}"
    question = f"{told}. {name}'s {event} is {days} days {'after' if later else 'before'} that."
    return Choice(f"{question} On which weekday is it?", right, (wrong[0], wrong[1], wrong[2]))


def clock(rng: Random) -> Choice:
    """The time at which something ends, within one day."""
    name, event = rng.choice(w.NAMES), rng.choice(w.EVENTS)
    start, length = rng.randint(6 * 60, 18 * 60), rng.randint(62, 299)
    hours, minutes = divmod(length, 60)
    if minutes == 0:
        minutes, length = 5, length + 5
    end = start + length
    slips = sorted({end + 60, end - 60, end + 10, end - 10, end + 100 - 60, start + hours * 60})
    wrong = rng.sample([slip for slip in slips if slip != end], 3)
    question = (
        f"{name}'s {event} starts at {_clock(start)} and lasts {count(hours, w.HOUR)} and "
        f"{count(minutes, w.MINUTE)}. When does it end?"
    )
    return Choice(question, _clock(end), (_clock(wrong[0]), _clock(wrong[1]), _clock(wrong[2])))


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def letters(rng: Random) -> Choice:
    """How often a letter occurs in some words."""
    phrase = " ".join(rng.sample(w.LETTER_WORDS, 4))
    letter = rng.choice(sorted(set(phrase) - {" "}))
    right = phrase.count(letter)
    low = max(0, right - rng.randint(0, 3))
    wrong = [n for n in range(low, low + 4) if n != right][:3]
    question = f'How many times does the letter "{letter}" occur in "{phrase}"?'
    return Choice(question, str(right), (str(wrong[0]), str(wrong[1]), str(wrong[2])))


def order(rng: Random) -> Choice:
    """Who is tallest, told by differences between four people."""
    people = rng.sample(w.NAMES, 4)
    # Four different heights: a tie would leave two right answers.
    heights = rng.sample(range(150, 195), 4)
    told = []
    for i in (1, 2, 3):
        gap = heights[i] - heights[i - 1]
        word = "taller" if gap > 0 else "shorter"
        told.append(f"{people[i]} is {abs(gap)} cm {word} than {people[i - 1]}.")
    rng.shuffle(told)
    ranked = sorted(range(4), key=heights.__getitem__)
    word, place = rng.choice((("tallest", 3), ("second tallest", 2), ("shortest", 0)))
    wrong = [people[i] for i in range(4) if i != ranked[place]]
    question = f"{' '.join(told)} Who of the four is the {word}?"
    return Choice(question, people[ranked[place]], (wrong[0], wrong[1], wrong[2]))


FAMILIES: Mapping[str, Callable[[Random], Choice]] = MappingProxyType(
    {
        "comparison": choices.comparison,
        "sequence": choices.sequence,
        "geometry": choices.geometry,
        "money_back": choices.money_back,
        "mean": choices.mean,
        "digit": choices.digit,
        "remainder": choices.remainder,
        "conversion": conversion,
        "weekday": weekday,
        "clock": clock,
        "letters": letters,
        "order": order,
    }
)
