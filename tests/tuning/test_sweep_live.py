"""The table in the terminal, its lines in a log, and the summary at the end."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from sweep_records import front_of, renamed, sweep, trial

from safemix.tuning.records import TrialRecord
from safemix.tuning.report.live import LiveTable, count_words, left_words, safety_words, summary

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def terminal(width=100, height=30):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height,
                   color_system=None, legacy_windows=False)  # fmt: skip


def log():
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def shown(console):
    """The last picture of the table, without what steers the terminal."""
    text = console.file.getvalue().replace("\r", "")
    last = text[text.rindex("trial ") :]
    return [line.rstrip() for line in ESCAPES.sub("", last).splitlines()]


def going():
    """Three running, two waiting, and the others ended."""
    states = {8: "running", 9: "running", 10: "waiting", 11: "running"}
    ended = [one for one in sweep(8) if one.kind == "trial"]
    return ended + [trial(number, status=state) for number, state in states.items()]


@pytest.mark.parametrize("width", [60, 76, 100, 200])
def test_the_table_fits_and_cuts_no_number(width):
    console = terminal(width)
    with LiveTable(13, 60, console=console) as table:
        table.update(going())
        lines = shown(console)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert text.count("running") == 4  # three trials, and the line of the counts
    assert "…" not in text or width >= 76  # a reason may be cut
    for words in ("trial-11", "margin +0", "30/60", "ASR 0.0 %", "69.8 %", "5 of 13 done"):
        assert words in text, words
    assert ("CUDA out" in text) == (width >= 76)
    assert "time left: unknown" in text


def test_running_trials_stand_first_and_then_those_that_ended_last():
    console, records = terminal(height=12), going()
    with LiveTable(12, 60, console=console) as table:
        table.update(records)
        done = replace(trial(8), number=8)
        records[8] = done
        table.update(records)
        lines = shown(console)
    names = [line.split()[0] for line in lines if line.startswith("trial-")]
    assert names[:3] == ["trial-09", "trial-11", "trial-08"]
    assert len(names) == 5  # a low terminal
    assert any("6 more that began" in line for line in lines)


def test_a_log_has_one_plain_line_a_change():
    console, clock = log(), Clock()
    start, waiting = trial(0, status="running"), trial(1, status="waiting")
    start = replace(start, step=0, rows=0)
    with LiveTable(2, 60, console=console, clock=clock) as table:
        table.update([start, waiting])
        table.update([start, waiting])
        clock.now = 60.0
        table.update([replace(start, step=30, rows=960, restarts=1), waiting])
        changed = replace(start, step=30, rows=960, restarts=1, ratios=((0, 0.1), (30, 0.05)))
        table.update([changed, waiting])
        clock.now = 120.0
        table.update([trial(0), replace(trial(1, status="failed"), reason="a\nb [red]c[/red]")])
    lines = console.file.getvalue().splitlines()
    assert "\x1b" not in console.file.getvalue()
    assert lines[0] == (
        "safemix: trial-00 running, ratio 17.7 %; 0 of 2 done, 1 running, 1 waiting, 0 failed; "
        "time left: unknown"
    )
    assert lines[1].startswith("safemix: trial-00 lost a worker and goes on from its checkpoint; ")
    assert lines[1].endswith("time left: about 3 min")
    assert "trial-00 ratio 17.7 % to 5 % at step 30; " in lines[2]
    assert "trial-00 done, ratio 17.7 %, step 60/60, ASR 0.0 %, utility 69.8 %, 4 min; " in lines[3]
    assert "a b [red]c[/red]; " in lines[4]
    assert lines[4].endswith("1 of 2 done, 0 running, 0 waiting, 1 failed; all ended")
    assert len(lines) == 5


def test_hostile_names_steer_no_terminal():
    records = [renamed(one, "\x1b[2J[bold]x[/bold]\u202e") for one in going()]
    console = terminal(120)
    with LiveTable(12, 60, console=console) as table:
        table.update(records)
    out = console.file.getvalue()
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "\\u001b[2J[bold]x[/bold]" in out


def test_the_table_survives_an_error_and_leaves_the_cursor():
    console = terminal()
    with pytest.raises(KeyboardInterrupt), LiveTable(3, 60, console=console) as table:
        table.update([trial(0)])
        raise KeyboardInterrupt
    assert console.file.getvalue().rstrip("\n").endswith("\x1b[?25h")


def test_words_of_the_last_lines():
    assert count_words([trial(2, status="stopped")], 4) == (
        "0 of 4 done, 0 running, 3 waiting, 1 stopped, 0 failed"
    )
    running = [trial(0, status="running")]
    assert left_words(running, 2, None) == "time left: unknown"
    assert left_words(running, 2, 700.0) == "time left: about 12 min"
    assert left_words(running, 2, 0.0) == "time left: evaluation alone"
    assert left_words([trial(0)], 1, 0.0) == "all ended"
    assert safety_words(TrialRecord(0, "trial")) == ""


@pytest.mark.parametrize("width", [60, 100])
def test_the_summary_has_all_four_sides_with_counts_and_intervals(width):
    console, records = log(), sweep(8)
    console = Console(file=io.StringIO(), width=width)
    best = front_of(records)[0]
    console.print(summary(records, best, "It has the highest utility of those within the bound."))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    flat = " ".join(text.split())
    assert "Use a ratio of 17.7 % with mitigation base (trial-00). It has" in flat
    for words in ("over-refusal", "incoherent", "0/120", "0.0 %", "279/400", "untouched", "14.9 %"):
        assert words in text, words
    assert ("0.0 to 3.1" if width == 100 else "0.0-3.1") in text
    assert "trial-07 (" in text
    assert "CUDA out of memory" in flat


def test_the_summary_of_nothing_says_so():
    console = Console(file=io.StringIO(), width=80)
    console.print(summary([], None, "No trial has ended."))
    assert console.file.getvalue().strip() == "No trial is recommended. No trial has ended."
