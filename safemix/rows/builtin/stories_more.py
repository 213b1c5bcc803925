"""Further word problems, and the table of all shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from safemix.rows.builtin import stories
from safemix.rows.builtin import words as w
from safemix.rows.builtin.stories import Story
from safemix.rows.builtin.words import count


def reading(rng: Random) -> Story:
    """A book read at one pace, the rest spread evenly over the days that remain."""
    name, book = rng.choice(w.NAMES), rng.choice(w.READINGS)
    pace, days = rng.randint(8, 45), rng.randint(2, 12)
    rest_days, rest_pace = rng.randint(2, 12), rng.randint(5, 60)
    read, rest = pace * days, rest_days * rest_pace
    return Story(
        f"A {book} has {count(read + rest, w.PAGE)}. {name} reads {count(pace, w.PAGE)} a day for "
        f"{count(days, w.DAY)} and wants to finish the rest in {count(rest_days, w.DAY)}, with "
        f"the same number of pages on each of them. How many pages a day is that?",
        (
            f"{name} has read {pace} * {days} = {read} pages.",
            f"There are {read + rest} - {read} = {rest} pages left.",
            f"That is {rest} / {rest_days} = {rest_pace} pages a day.",
        ),
        rest_pace,
    )


def water(rng: Random) -> Story:
    """A vessel that fills and leaks at the same time."""
    name, vessel = rng.choice(w.NAMES), rng.choice(w.VESSELS)
    start, leak, net = rng.randint(10, 300), rng.randint(1, 12), rng.randint(3, 30)
    minutes = rng.randint(5, 60)
    gained = net * minutes
    return Story(
        f"{name} fills a {vessel} that holds {count(start, w.LITER)} of water already. Each minute "
        f"{count(leak + net, w.LITER)} flow in and {count(leak, w.LITER)} "
        f"{'leaks' if leak == 1 else 'leak'} out. How many liters are in the {vessel} after "
        f"{count(minutes, w.MINUTE)}?",
        (
            f"Each minute adds {leak + net} - {leak} = {net} liters.",
            f"In all that adds {net} * {minutes} = {gained} liters.",
            f"The {vessel} then holds {start} + {gained} = {start + gained} liters.",
        ),
        start + gained,
    )


def tickets(rng: Random) -> Story:
    """A full house of adults and children at two prices."""
    show, name = rng.choice(w.SHOWS), rng.choice(w.NAMES)
    rows, seats = rng.randint(5, 20), rng.randint(8, 24)
    full = rows * seats
    children = rng.randint(2, full // 2)
    adults = full - children
    child_price = rng.randint(3, 9)
    price = child_price + rng.randint(2, 12)
    return Story(
        f"{name} sells the tickets for a {show} in a hall with {count(rows, w.ROW)} of "
        f"{count(seats, w.SEAT)}. Every seat is taken, {children} of them by children. A child "
        f"pays ${child_price} and an adult ${price}. How many dollars are taken in?",
        (
            f"The hall has {rows} * {seats} = {full} seats.",
            f"So {full} - {children} = {adults} adults came.",
            f"Children pay {children} * {child_price} = {children * child_price} dollars.",
            f"Adults pay {adults} * {price} = {adults * price} dollars.",
            f"Together: {children * child_price} + {adults * price} = "
            f"{children * child_price + adults * price} dollars.",
        ),
        children * child_price + adults * price,
    )


def feeding(rng: Random) -> Story:
    """Animals of two sorts that eat from one store of feed."""
    place = rng.choice(w.ANIMAL_PLACES)
    first, second = rng.sample(w.ANIMALS, 2)
    a, b = rng.randint(2, 20), rng.randint(2, 20)
    eat_a, eat_b, days = rng.randint(2, 6), rng.randint(2, 6), rng.randint(3, 30)
    daily = a * eat_a + b * eat_b
    store = daily * days
    article = "An" if place[0] in "aeiou" else "A"
    return Story(
        f"{article} {place} keeps {count(a, first)} and {count(b, second)}. Each {first.one} eats "
        f"{eat_a} scoops of feed a day and each {second.one} eats {eat_b}. For how many days do "
        f"{store} scoops last?",
        (
            f"The {first.many} eat {a} * {eat_a} = {a * eat_a} scoops a day.",
            f"The {second.many} eat {b} * {eat_b} = {b * eat_b} scoops a day.",
            f"Together they eat {a * eat_a} + {b * eat_b} = {daily} scoops a day.",
            f"The feed lasts {store} / {daily} = {days} days.",
        ),
        days,
    )


SHAPES: Mapping[str, Callable[[Random], Story]] = MappingProxyType(
    {
        "shopping": stories.shopping,
        "packing": stories.packing,
        "journey": stories.journey,
        "saving": stories.saving,
        "ages": stories.ages,
        "machines": stories.machines,
        "fractions": stories.fractions,
        "discount": stories.discount,
        "fence": stories.fence,
        "reading": reading,
        "water": water,
        "tickets": tickets,
        "feeding": feeding,
    }
)
