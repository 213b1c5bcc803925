"""Multiple choice about numbers: comparison, sequences, shapes, money, means, digits, remainders.

Every family is a function that draws a question, its right answer and three wrong ones that come
from likely mistakes. The right answer follows from the question alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from safemix.rows.builtin import words as w
from safemix.rows.builtin.words import count


@dataclass(frozen=True)
class Choice:
    """A question with one right and three wrong options, all four different.

    Attributes:
        question: the question, without its options.
        right: the right option.
        wrong: the three wrong options.
    """

    question: str
    right: str
    wrong: tuple[str, str, str]


def numeric(
    rng: Random, question: str, right: int, mistakes: Iterable[int], unit: str = "{}"
) -> Choice:
    """Build a choice between positive whole numbers.

    Args:
        rng: the generator.
        question: the question.
        right: the right number.
        mistakes: numbers that likely mistakes give; unusable ones are passed over.
        unit: how an option is written; `{}` stands for the number.
    """
    usable = sorted({value for value in mistakes if value > 0 and value != right})
    wrong = rng.sample(usable, min(3, len(usable)))
    while len(wrong) < 3:
        # Near misses on both sides, so the right number is not always the middle one.
        near = right + rng.choice((-1, 1)) * rng.randint(1, max(4, right // 8))
        if near > 0 and near != right and near not in wrong:
            wrong.append(near)
    first, second, third = (unit.format(value) for value in wrong)
    return Choice(question, unit.format(right), (first, second, third))


def comparison(rng: Random) -> Choice:
    """Which of four expressions is largest or smallest."""
    largest = rng.random() < 0.5
    values: dict[int, str] = {}
    while len(values) < 4:
        a, b = rng.randint(3, 30), rng.randint(3, 30)
        sign = rng.choice("+-*")
        if sign == "-":
            a += 60
        value = {"+": a + b, "-": a - b, "*": a * b}[sign]
        # Two expressions of one value would both be right.
        values.setdefault(value, f"{a} {sign} {b}")
    right = max(values) if largest else min(values)
    first, second, third = (text for value, text in values.items() if value != right)
    word = "largest" if largest else "smallest"
    return Choice(f"Which expression has the {word} value?", values[right], (first, second, third))


def sequence(rng: Random) -> Choice:
    """A later term of a sequence whose rule is told."""
    start = rng.randint(2, 60)
    if rng.random() < 0.5:
        step, place = rng.randint(2, 40), rng.randint(6, 15)
        shown = ", ".join(str(start + step * i) for i in range(4))
        question = (
            f"A sequence grows by the same amount each time and begins {shown}. "
            f"What is its {place}th number?"
        )
        right = start + step * (place - 1)
        slips = (right + step, right - step, start * place, step * place, right + 2 * step)
        return numeric(rng, question, right, slips)
    terms = [start, rng.randint(2, 60)]
    while len(terms) < 7:
        terms.append(terms[-1] + terms[-2])
    shown = ", ".join(map(str, terms[:5]))
    question = (
        f"In the sequence {shown} each number from the third on is the sum of the two before it. "
        "Which number comes next but one?"
    )
    slips = (terms[5], 2 * terms[5], terms[6] + terms[5], terms[6] - terms[0], terms[6] + terms[1])
    return numeric(rng, question, terms[6], slips)


def geometry(rng: Random) -> Choice:
    """Areas, perimeters, volumes and angles."""
    name = rng.choice(w.NAMES)
    a, b, c = rng.randint(3, 40), rng.randint(3, 40), rng.randint(2, 12)
    form = rng.randrange(5)
    if form == 0:
        question = f"{name} draws a rectangle, {a} cm long and {b} cm wide. What is its area?"
        return numeric(rng, question, a * b, (2 * (a + b), a + b, a * b * 2), "{} square cm")
    if form == 1:
        question = f"{name} draws a rectangle, {a} cm long and {b} cm wide. How far is it around?"
        return numeric(rng, question, 2 * (a + b), (a * b, a + b, 2 * a + b, a + 2 * b), "{} cm")
    if form == 2:
        base = 2 * a
        question = (
            f"{name} cuts out a triangle with a base of {base} cm and a height of {b} cm. "
            "What is its area?"
        )
        return numeric(rng, question, a * b, (base * b, base + b, a + b), "{} square cm")
    if form == 3:
        question = f"{name} builds a box, {a} cm by {b} cm by {c} cm. What is its volume?"
        mistakes = (a + b + c, a * b + c, 2 * (a * b + b * c + a * c), a * b * c * 2)
        return numeric(rng, question, a * b * c, mistakes, "{} cubic cm")
    first, second = rng.randint(20, 85), rng.randint(20, 85)
    question = (
        f"{name} measures two angles of a triangle: {first} degrees and {second} degrees. "
        "How large is the third angle?"
    )
    right = 180 - first - second
    slips = (first + second, 180 - first, 180 - second, right + 10, right - 10)
    return numeric(rng, question, right, slips, "{} degrees")


def money_back(rng: Random) -> Choice:
    """Change in dollars and cents."""
    name, thing = rng.choice(w.NAMES), rng.choice(w.GOODS)
    pieces, cents = rng.randint(2, 9), 5 * rng.randint(11, 199)
    cost = pieces * cents
    note = next(n for n in (5, 10, 20, 50, 100) if 100 * n > cost)
    right = 100 * note - cost
    question = (
        f"{name} buys {count(pieces, thing)} at {_dollars(cents)} each and pays with a ${note} "
        "bill. What is the change?"
    )
    slips = {right + 10, right + 100, right - 10, right - 100, cost, 100 * note - cents}
    wrong = rng.sample(sorted(s for s in slips if s > 0 and s != right), 3)
    first, second, third = map(_dollars, wrong)
    return Choice(question, _dollars(right), (first, second, third))


def _dollars(cents: int) -> str:
    return f"${cents // 100}.{cents % 100:02d}"


def mean(rng: Random) -> Choice:
    """The mean of four whole numbers, itself whole."""
    name = rng.choice(w.NAMES)
    values = [rng.randint(3, 60) for _ in range(3)]
    last = rng.randint(3, 60)
    last += -(sum(values) + last) % 4
    values.append(last)
    total = sum(values)
    middle = (sum(values) - max(values) - min(values)) // 2
    question = (
        f"{name} throws four rounds of darts and scores {', '.join(map(str, values[:3]))} and "
        f"{values[3]} points. What is the mean score?"
    )
    slips = (total, total // 2, middle, total // 3, total // 4 + 1, total // 4 - 1)
    return numeric(rng, question, total // 4, slips)


def digit(rng: Random) -> Choice:
    """The digit in one place of a number with six different digits."""
    digits = rng.sample("123456789", 6)
    places = ("ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands")
    spot = rng.randrange(6)
    number = int("".join(reversed(digits)))
    wrong = rng.sample([d for i, d in enumerate(digits) if i != spot], 3)
    question = f"Which digit stands in the {places[spot]} place of {number:,}?"
    return Choice(question, digits[spot], (wrong[0], wrong[1], wrong[2]))


def remainder(rng: Random) -> Choice:
    """What is left over when things are shared out."""
    name, thing = rng.choice(w.NAMES), rng.choice(w.BULK)
    pupils = rng.randint(5, 12)
    total = pupils * rng.randint(3, 20) + rng.randrange(pupils)
    question = (
        f"{name} shares {count(total, thing)} equally among {count(pupils, w.PUPIL)}, as many as "
        "possible to each. How many are left over?"
    )
    right = total % pupils
    wrong = rng.sample([n for n in range(pupils) if n != right], 3)
    return Choice(question, str(right), (str(wrong[0]), str(wrong[1]), str(wrong[2])))
