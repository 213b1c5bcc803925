"""Word problems: stories in several steps whose answer is a whole number.

Every shape is a function that draws its numbers from a generator and works the answer out next
to the text, so text and answer cannot part. Numbers are drawn so that each division is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from safemix.rows.builtin import words as w
from safemix.rows.builtin.words import count


@dataclass(frozen=True)
class Story:
    """A word problem.

    Attributes:
        text: the story, ending in its question.
        steps: the worked solution, one line a step; each holds one equation.
        answer: the exact answer.
    """

    text: str
    steps: tuple[str, ...]
    answer: int


def shopping(rng: Random) -> Story:
    """Two goods at two prices, and the change from a note."""
    name = rng.choice(w.NAMES)
    first, second = rng.sample(w.GOODS, 2)
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    p, q = rng.randint(2, 15), rng.randint(2, 15)
    total = a * p + b * q
    note = next(n for n in (50, 100, 200, 500) if n > total + 1)
    return Story(
        f"{name} buys {count(a, first)} at ${p} each and {count(b, second)} at ${q} each, "
        f"and pays with ${note}. How many dollars does {name} get back?",
        (
            f"The {first.many} cost {a} * {p} = {a * p} dollars.",
            f"The {second.many} cost {b} * {q} = {b * q} dollars.",
            f"Together that is {a * p} + {b * q} = {total} dollars.",
            f"The change is {note} - {total} = {note - total} dollars.",
        ),
        note - total,
    )


def packing(rng: Random) -> Story:
    """Trays of baked things, some kept, the rest packed in equal bags."""
    name, thing, pack = rng.choice(w.NAMES), rng.choice(w.BAKED), rng.choice(w.PACKS)
    trays, per_tray, per_pack = rng.randint(4, 12), rng.randint(8, 24), rng.randint(3, 8)
    made = trays * per_tray
    # At least two are kept, and what is left fills whole packs.
    kept = made % per_pack + per_pack * rng.randint(1, 2)
    left = made - kept
    return Story(
        f"{name} bakes {trays} batches of {count(per_tray, thing)}. {name} keeps "
        f"{count(kept, thing)} and puts the rest into {pack.many} of {per_pack}. "
        f"How many {pack.many} are filled?",
        (
            f"{name} bakes {trays} * {per_tray} = {made} {thing.many}.",
            f"After keeping some, {made} - {kept} = {left} {thing.many} are left.",
            f"They fill {left} / {per_pack} = {left // per_pack} {pack.many}.",
        ),
        left // per_pack,
    )


def journey(rng: Random) -> Story:
    """Two legs at two speeds, and what is left of the way."""
    name, vehicle = rng.choice(w.NAMES), rng.choice(w.VEHICLES)
    v1, v2 = rng.sample(range(40, 125, 5), 2)
    h1, h2 = rng.randint(1, 6), rng.randint(1, 6)
    done = v1 * h1 + v2 * h2
    rest = rng.randint(10, 300)
    return Story(
        f"{name} travels by {vehicle} to a town {done + rest} km away. The {vehicle} goes "
        f"{v1} km/h for {count(h1, w.HOUR)} and then {v2} km/h for {count(h2, w.HOUR)}. "
        "How many kilometers are left?",
        (
            f"The first part is {v1} * {h1} = {v1 * h1} km long.",
            f"The second part is {v2} * {h2} = {v2 * h2} km long.",
            f"Together that makes {v1 * h1} + {v2 * h2} = {done} km.",
            f"The way left is {done + rest} - {done} = {rest} km.",
        ),
        rest,
    )


def saving(rng: Random) -> Story:
    """Weekly saving towards a price, from what is there already."""
    name, goal = rng.choice(w.NAMES), rng.choice(w.GOALS)
    start, gift, weekly = rng.randint(5, 90), rng.randint(10, 60), rng.randint(4, 25)
    weeks = rng.randint(3, 30)
    have = start + gift
    price = have + weekly * weeks
    return Story(
        f"{name} wants a {goal} for ${price}. {name} has ${start}, gets ${gift} as a present and "
        f"saves ${weekly} a week. After how many weeks is there enough money?",
        (
            f"With the present {name} has {start} + {gift} = {have} dollars.",
            f"Still missing are {price} - {have} = {price - have} dollars.",
            f"Saving them takes {price - have} / {weekly} = {weeks} weeks.",
        ),
        weeks,
    )


def ages(rng: Random) -> Story:
    """Three ages tied to each other, and their sum some years from now."""
    first, second, third = rng.sample(w.NAMES, 3)
    age, factor = rng.randint(4, 18), rng.randint(2, 4)
    older = age * factor
    gap, later = rng.randint(1, older - 2), rng.randint(2, 15)
    younger = older - gap
    total = age + older + younger
    times = {2: "twice", 3: "three times", 4: "four times"}[factor]
    return Story(
        f"{first} is {count(age, w.YEAR)} old. {second} is {times} as old as {first}, and {third} "
        f"is {count(gap, w.YEAR)} younger than {second}. What will the sum of their three ages be "
        f"in {count(later, w.YEAR)}?",
        (
            f"{second} is {factor} * {age} = {older} years old.",
            f"{third} is {older} - {gap} = {younger} years old.",
            f"Today the sum is {age} + {older} + {younger} = {total}.",
            f"Three people gain 3 * {later} = {3 * later} years.",
            f"The sum will be {total} + {3 * later} = {total + 3 * later}.",
        ),
        total + 3 * later,
    )


def machines(rng: Random) -> Story:
    """Two machines at two rates, less the faulty parts."""
    part, maker = rng.choice(w.PARTS), rng.choice(w.MAKERS)
    rate, more, hours = rng.randint(12, 90), rng.randint(2, 30), rng.randint(2, 10)
    made = (2 * rate + more) * hours
    faulty = rng.randint(2, made // 10)
    return Story(
        f"In a {maker} one machine makes {count(rate, part)} an hour and a second machine makes "
        f"{more} more than that each hour. Both run for {count(hours, w.HOUR)}, and "
        f"{count(faulty, part)} turn out faulty. How many good {part.many} are there?",
        (
            f"The second machine makes {rate} + {more} = {rate + more} an hour.",
            f"Together they make {rate} + {rate + more} = {2 * rate + more} an hour.",
            f"In all they make {2 * rate + more} * {hours} = {made} {part.many}.",
            f"Good ones are {made} - {faulty} = {made - faulty}.",
        ),
        made - faulty,
    )


def fractions(rng: Random) -> Story:
    """A share given away, then a share of the rest."""
    giver, taker = w.two_names(rng)
    thing = rng.choice(w.BULK)
    k, m = rng.randint(2, 6), rng.randint(2, 6)
    # A multiple of k * m leaves whole numbers after both shares.
    start = k * m * rng.randint(2, 40)
    given = start // k
    rest = start - given
    sold = rest // m
    return Story(
        f"{giver} has {count(start, thing)}. {giver} gives {_share(k)} of them to {taker} and then "
        f"sells {_share(m)} of the rest. How many {thing.many} does {giver} have left?",
        (
            f"{taker} gets {start} / {k} = {given} {thing.many}.",
            f"That leaves {start} - {given} = {rest}.",
            f"{giver} sells {rest} / {m} = {sold} of them.",
            f"Left are {rest} - {sold} = {rest - sold}.",
        ),
        rest - sold,
    )


def _share(parts: int) -> str:
    return {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth"}[parts]


def discount(rng: Random) -> Story:
    """A price cut in percent, several pieces, and delivery on top."""
    name, thing = rng.choice(w.NAMES), rng.choice(w.GOODS)
    # Prices in steps of 20 dollars and cuts in steps of 5 percent give whole dollars.
    price, cut = 20 * rng.randint(2, 20), 5 * rng.randint(1, 12)
    pieces, delivery = rng.randint(2, 9), rng.randint(3, 40)
    off = price * cut // 100
    paid = (price - off) * pieces
    return Story(
        f"A designer {thing.one} costs ${price}. In the sale it is {cut}% cheaper. {name} orders "
        f"{count(pieces, thing)} in the sale and pays ${delivery} for delivery. "
        f"How many dollars does {name} pay in total?",
        (
            f"The price falls by {price} * {cut} / 100 = {off} dollars.",
            f"One piece costs {price} - {off} = {price - off} dollars.",
            f"{pieces} pieces cost {pieces} * {price - off} = {paid} dollars.",
            f"With delivery that is {paid} + {delivery} = {paid + delivery} dollars.",
        ),
        paid + delivery,
    )


def fence(rng: Random) -> Story:
    """A fence around a rectangle with a gap for the gate."""
    name, plot = rng.choice(w.NAMES), rng.choice(w.PLOTS)
    long, wide, gate, cost = (
        rng.randint(12, 60),
        rng.randint(5, 40),
        rng.randint(1, 4),
        rng.randint(3, 25),
    )
    around = 2 * (long + wide)
    return Story(
        f"{name} fences a rectangular {plot}, {long} meters long and {wide} meters wide. A gap of "
        f"{count(gate, w.METER)} stays open for the gate. The fence costs ${cost} a meter. "
        "How many dollars does the fence cost?",
        (
            f"The way around is 2 * ({long} + {wide}) = {around} meters.",
            f"The fence is {around} - {gate} = {around - gate} meters long.",
            f"It costs {around - gate} * {cost} = {(around - gate) * cost} dollars.",
        ),
        (around - gate) * cost,
    )
