"""Multiple choice: every right answer decided a second time, from question and options."""

import re
from collections import Counter
from datetime import datetime, timedelta
from functools import cache

import pytest

from safemix.rows.builtin import generate_task
from safemix.rows.builtin.choices_more import FAMILIES

ROWS = 3000


@cache
def made(seed=0):
    return tuple(generate_task(ROWS, seed, kinds=("multiple_choice",)))


def of_family(family):
    return [row for row in made() if row.family == family]


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def options(row):
    return dict(re.findall(r"^([A-D])\. (.+)$", row.prompt, re.MULTILINE))


def question(row):
    return row.prompt.split("\n")[0]


def value_of(expression):
    a, sign, b = expression.split()
    return {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]


def solve_comparison(row):
    pick = max if "largest" in question(row) else min
    return pick(options(row).values(), key=value_of)


def solve_sequence(row):
    values = numbers(question(row))
    if "same amount" in row.prompt:
        *shown, place = values
        while len(shown) < place:
            shown.append(shown[-1] + shown[1] - shown[0])
        return str(shown[-1])
    for _ in range(2):
        values.append(values[-1] + values[-2])
    return str(values[-1])


def solve_geometry(row):
    text, values = question(row), numbers(question(row))
    if "volume" in text:
        return f"{values[0] * values[1] * values[2]} cubic cm"
    if "angle is" in text or "third angle" in text:
        return f"{180 - sum(values)} degrees"
    if "around" in text:
        return f"{2 * sum(values)} cm"
    area = values[0] * values[1]
    return f"{area // 2 if 'triangle' in text else area} square cm"


def solve_money_back(row):
    pieces, dollars, cents, note = numbers(question(row))
    left = note * 100 - pieces * (dollars * 100 + cents)
    return f"${left // 100}.{left % 100:02d}"


def solve_mean(row):
    four = numbers(question(row))
    assert sum(four) % 4 == 0
    return str(sum(four) // 4)


def solve_digit(row):
    number = re.search(r"[\d,]+", question(row))[0].replace(",", "")
    places = ["ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands"]
    place = re.search(r"in the (.+) place", question(row))[1]
    return number[-1 - places.index(place)]


def solve_remainder(row):
    total, pupils = numbers(question(row))
    return str(total % pupils)


PER_UNIT = {
    ("kilometer", "meters"): 1000,
    ("meter", "centimeters"): 100,
    ("kilogram", "grams"): 1000,
    ("liter", "milliliters"): 1000,
    ("hour", "minutes"): 60,
    ("minute", "seconds"): 60,
    ("day", "hours"): 24,
    ("week", "days"): 7,
    ("foot", "inches"): 12,
    ("feet", "inches"): 12,
    ("yard", "feet"): 3,
    ("pound", "ounces"): 16,
}


def solve_conversion(row):
    large, unit, small, asked = re.search(
        r"(\d+) (\w+) and (\d+) \w+.*How many (\w+)", question(row)
    ).groups()
    factor = PER_UNIT.get((unit, asked)) or PER_UNIT[unit.removesuffix("s"), asked]
    return f"{int(large) * factor + int(small)} {asked}"


def solve_weekday(row):
    told, weekday, days, side = re.search(
        r"^(\w+ \d+, \d+) is a (\w+)\..* is (\d+) days (after|before)", question(row)
    ).groups()
    today = datetime.strptime(told, "%B %d, %Y")
    assert today.strftime("%A") == weekday
    return (today + timedelta(days=int(days) * (1 if side == "after" else -1))).strftime("%A")


def solve_clock(row):
    hour, minute, hours, minutes = numbers(question(row))
    start = datetime(2024, 1, 1, hour, minute)
    end = start + timedelta(hours=hours, minutes=minutes)
    assert end.day == start.day
    return end.strftime("%H:%M")


def solve_letters(row):
    letter, phrase = re.findall(r'"([^"]+)"', question(row))
    return str(sum(sign == letter for sign in phrase))


def solve_order(row):
    told = re.findall(r"(\w+) is (\d+) cm (taller|shorter) than (\w+)", question(row))
    heights = {told[0][3]: 0}
    while len(heights) < 4:
        for one, gap, word, other in told:
            signed = int(gap) if word == "taller" else -int(gap)
            if other in heights:
                heights[one] = heights[other] + signed
            elif one in heights:
                heights[other] = heights[one] - signed
    ranked = sorted(heights, key=heights.get)
    assert len(set(heights.values())) == 4
    asked = re.search(r"the (second tallest|tallest|shortest)\?", question(row))[1]
    return {"tallest": ranked[3], "second tallest": ranked[2], "shortest": ranked[0]}[asked]


@pytest.mark.parametrize("family", FAMILIES)
def test_choice_solved_from_its_text(family):
    rows = of_family(family)
    assert len(rows) > 100
    for row in rows:
        right = globals()[f"solve_{family}"](row)
        assert options(row)[row.answer] == right, row
        assert row.completion == f"{row.answer}. {right}"


def test_four_distinct_options_in_order():
    for row in made():
        assert list(options(row)) == list("ABCD"), row
        assert len(set(options(row).values())) == 4, row
        assert row.prompt.count("\n") == 4


@pytest.mark.parametrize("seed", [0, 1])
def test_right_letter_is_uniform(seed):
    letters = Counter(row.answer for row in made(seed))
    expected = letters.total() / 4
    chi_square = sum((letters[letter] - expected) ** 2 / expected for letter in "ABCD")
    # 16.27 is the 0.1 % point with three degrees of freedom.
    assert chi_square < 16.27, letters


@pytest.mark.parametrize("family", ["sequence", "mean", "conversion", "clock", "money_back"])
def test_right_option_is_not_always_in_the_middle(family):
    ranks = Counter()
    for row in of_family(family):
        ordered = sorted(options(row).values(), key=lambda text: numbers(text.replace(".", "")))
        ranks[ordered.index(options(row)[row.answer])] += 1
    assert max(ranks.values()) < 0.75 * ranks.total(), ranks
