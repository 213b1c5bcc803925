"""Pictures of a sweep: drawn for every size, and no name covers a point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.transforms import Bbox
from PIL import Image
from sweep_records import baselines, front_of, renamed, sweep, trial

from safemix.evaluate.report.figures import inline_svg
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.report.curves_figure import curves_figure, loss_names, ratio_at, series
from safemix.tuning.report.front_figure import front_figure, place_spots
from safemix.tuning.report.front_labels import together
from safemix.tuning.report.measures import margin
from safemix.tuning.report.plots import draw_by_ratio, draw_curves, draw_front
from safemix.tuning.report.ratio_figure import asr_by_dress, ratio_figure
from safemix.tuning.report.scale import RatioScale, ticks

BOUND = {"asr": 0.1}


def inked(path):
    """The picture is there, whole, and not blank; its size in pixels."""
    with Image.open(path) as image:
        image.load()
        assert np.asarray(image.convert("L")).min() < 100
        return image.size


def words_of(axes):
    return [text for text in axes.texts if text.get_text()]


def some_sweeps():
    yield from (sweep(count) for count in (1, 8, 40))
    yield sweep(40, same=True)
    yield [trial(number) for number in range(40)] + baselines(40)
    yield [trial(number) for number in range(200, 214)] + baselines(214, unmixed_asr=0.08)


@pytest.mark.parametrize("place", range(6))
def test_no_name_covers_a_point_or_another_name(place):
    records = list(some_sweeps())[place]
    front = front_of(records)
    figure = front_figure(records, front, front[0], BOUND)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in words_of(axes)]
    assert len(boxes) >= 4  # the bound, two baselines, what is recommended
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
    # The bound's name is the first and stands above the frame.
    assert boxes[0].y0 >= axes.bbox.y1
    spots, *_ = place_spots(records, BOUND["asr"])
    reach = 3.75 * figure.dpi / 72
    for spot in spots:
        x, y = axes.transData.transform((spot.x, spot.y))
        marker = Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)
        assert axes.bbox.padded(1).contains(x, y)
        assert not [box for box in boxes if box.overlaps(marker)], spot.record.name
    for box in boxes[1:]:
        assert axes.bbox.padded(4).contains(*box.min)
        assert axes.bbox.padded(4).contains(*box.max)


def test_numbers_at_one_place_share_a_name():
    spots = np.array([[0.0, 0.0]] * 6 + [[50.0, 0.0]])
    names = [f"{n:02d}" for n in range(7)]
    found = together([*names[:5], "best", names[6]], [True] * 5 + [False, True], spots)
    assert found == ["00, 01, 02, 03 and 1 more", "", "", "", "", "best", "06"]


def test_a_far_baseline_stands_at_the_edge_and_says_so():
    records = [trial(n) for n in (200, 201)]
    records = [TrialRecord(r.number, "trial", ratios=((0, 0.2),), status="done",
                           outcomes=trial(3, same=True).outcomes) for r in records]  # fmt: skip
    records += baselines(2)
    spots, across, _ = place_spots(records, 0.1)
    unmixed = next(spot for spot in spots if spot.record.kind == "unmixed")
    assert unmixed.moved
    assert unmixed.x < across[1] < unmixed.safety.value
    words = [text.get_text() for text in words_of(front_figure(records, [], None, BOUND).axes[0])]
    asr, good = (round(100 * one.value) for one in (unmixed.safety, unmixed.utility))
    assert f"ratio 0: ASR {asr} %, utility {good} %" in words


def test_the_front_counts_what_it_cannot_draw_and_takes_nothing():
    figure = front_figure(sweep(8), [], None, {})
    assert figure.get_supxlabel() == "without both sides, not drawn: 2 stopped, 1 failed"
    figure = front_figure([], [], None, BOUND)
    assert "no trial has both" in words_of(figure.axes[0])[0].get_text()
    half = TrialRecord(0, "trial", status="done", outcomes=trial(0).outcomes[:1])
    assert "1 done" in front_figure([half], [], None, {}).get_supxlabel()


def test_the_worst_set_of_a_dress_is_drawn():
    sets = [Outcome("safety", name, dress, "asr", verdicts)
            for name, dress, verdicts in (("a", "plain", "1000"), ("b", "plain", "1100"),
                                          ("a", "styled", "0000"))]  # fmt: skip
    found = asr_by_dress([TrialRecord(3, "trial", outcomes=tuple(sets))])
    assert {dress: one[3].name for dress, one in found.items()} == {"plain": "b", "styled": "a"}


@pytest.mark.parametrize("count", [0, 1, 8])
def test_ratio_zero_stands_apart_from_the_logarithm(count):
    records = sweep(count) if count else []
    axes = ratio_figure(records, records[0] if records else None, BOUND).axes[1]
    words = [text.get_text() for text in axes.get_xticklabels()]
    assert words[:2] == ["untouched\nmodel", "0"]
    places = list(axes.get_xticks())
    assert places == sorted(places)
    if count == 1:
        assert words[2:] == [f"{100 * records[0].ratio:.3g} %"]


def test_all_pictures_are_written_and_nothing_else(tmp_path):
    records = [*sweep(8), renamed(trial(60), "$x_{$ <b>"), trial(61, status="running"),
               trial(62, status="waiting")]  # fmt: skip
    draw_front(tmp_path / "front.png", records, front_of(records), records[0], BOUND)
    draw_by_ratio(tmp_path / "ratio.png", records, None, BOUND)
    draw_curves(tmp_path / "curves.png", records, records[0])
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "curves.png", "front.png", "ratio.png",
    ]  # fmt: skip
    for found in tmp_path.iterdir():
        assert min(inked(found)) > 800


def test_a_curve_has_finite_readings_and_the_newest_of_a_step():
    readings = (
        {"step": 5, "safety/margin/plain": 0.5, "safety/margin/styled": 0.2},
        {"step": 10, "safety/margin/plain": math.nan},
        {"step": 10, "safety/loss": None, "utility/loss": 2.0},
        {"step": 15, "safety/margin/plain": 0.7},
        {"step": 5, "safety/margin/plain": 0.4},  # again, from a checkpoint
    )
    steps, values = series(TrialRecord(0, "trial", readings=readings), margin, smooth=False)
    assert (steps.tolist(), values.tolist()) == ([5, 15], [0.4, 0.7])
    many = tuple({"step": n, "safety/margin/plain": 1.0} for n in range(5000))
    steps, values = series(TrialRecord(0, "trial", readings=many), margin, smooth=True)
    assert len(steps) <= 400
    assert (steps[0], steps[-1], set(values.tolist())) == (0, 4999, {1.0})
    extra = {"step": 1, "general/loss": 1.0, "train/loss": 1.0}
    names = loss_names([TrialRecord(0, "trial", readings=(*readings, extra))])
    assert names == ["utility/loss", "safety/loss", "general/loss"]


def test_a_line_has_the_ratio_of_each_stretch_and_marks_its_changes():
    record = TrialRecord(0, "trial", status="stopped", ratios=((0, 0.05), (20, 0.1), (40, 0.02)),
                         readings=trial(0).readings)  # fmt: skip
    assert [ratio_at(record, step) for step in (0, 1, 20, 21, 40, 60)] == [
        0.02, 0.05, 0.05, 0.1, 0.1, 0.02,
    ]  # fmt: skip
    figure = curves_figure([record], None)
    marks = [(line.get_marker(), line.get_xdata()[0]) for line in figure.axes[0].lines
             if line.get_marker() in ("^", "v", "x")]  # fmt: skip
    assert marks == [("x", 60.0), ("^", 20), ("v", 40)]
    colours = {tuple(colour) for colour in figure.axes[0].collections[0].get_colors()}
    assert len(colours) == 3


def test_curves_without_readings_say_so():
    axes = curves_figure([TrialRecord(0, "trial")], None).axes
    assert [words_of(one)[0].get_text() for one in axes] == ["not read"]


def test_the_scale_has_round_ticks_and_a_colour_for_nothing():
    assert ticks(0.01, 0.3) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2])
    assert ticks(0.041, 0.063) == pytest.approx([0.05, 0.06])
    assert RatioScale([0.05, 0.05]).marks == [0.05]
    scale = RatioScale([0.01, 0.3, None, 0.0])
    assert scale.colour(0.0) == scale.colour(None)
    assert len({scale.colour(0.01), scale.colour(0.05), scale.colour(0.3), scale.colour(0)}) == 4


def test_names_are_no_markup_in_an_svg():
    records = [renamed(one, "<script>$x$") for one in sweep(2)]
    assert "<script" not in inline_svg(ratio_figure(records, None, BOUND), "ratio", "by ratio")
