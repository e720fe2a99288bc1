"""Curves of trainings: what they show, where they are cut, and what is said of it."""

import itertools
import math

import pytest

from pyrovae import plotting
from pyrovae.plotting.drawing import BLUE, GREEN, ORANGE, PURPLE, VERMILION

ROWS = [
    {
        "epoch": e,
        "loss": 60 + 100 / e,
        "validation_loss": 50 + (e - 15) ** 2 / 10,
        "kl_weight": min(1.0, (e - 1) / 5),
        "lr": 1e-3,
    }
    for e in range(1, 24)
]


def texts(labels):
    return [label.get_text() for label in labels]


def test_curves_show_losses_and_what_changes():
    losses, weight = plotting.training_curves(ROWS).axes  # the learning rate is constant, so it has no panel
    assert (losses.get_title(), losses.get_ylabel()) == ("Training", "loss (nats per datum)")
    assert (weight.get_ylabel(), weight.get_xlabel()) == ("KL weight", "epoch")
    training, validation, best = losses.lines[:3]
    assert list(training.get_ydata()) == [row["loss"] for row in ROWS]
    assert list(validation.get_ydata()) == [row["validation_loss"] for row in ROWS]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([15], [50])
    assert list(weight.lines[0].get_ydata()) == [row["kl_weight"] for row in ROWS]


def test_a_cut_top_is_marked():
    losses = plotting.training_curves(ROWS).axes[0]
    high = losses.get_ylim()[1]
    beyond = [row["epoch"] for row in ROWS if row["loss"] > high]
    assert beyond == [1, 2]  # the first tenth of the epochs does not set the scale
    (mark,) = (line for line in losses.lines[3:] if len(line.get_xdata()))
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([2], [high])
    assert (mark.get_marker(), mark.get_color(), mark.get_clip_on()) == ("^", BLUE, False)
    assert texts(losses.get_legend().texts)[-1] == "goes on above, to 160"
    level = [{"epoch": e, "loss": 3.0 + e / 100} for e in range(1, 6)]
    assert len(plotting.training_curves(level).axes[0].lines) == 1  # nothing is cut


def test_the_warm_up_is_shaded_in_every_panel():
    figure = plotting.training_curves(ROWS)
    for axes in figure.axes:
        (shade,) = axes.patches
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == (1, 6)  # the weight is 1 from the sixth epoch on
    assert texts(figure.axes[0].get_legend().texts).count("KL warm-up") == 1
    cyclic = [{"epoch": e, "loss": 1.0, "kl_weight": (0.0, 0.5, 1.0)[e % 3]} for e in range(9)]
    shades = plotting.training_curves(cyclic).axes[0].patches
    assert [(s.get_x(), s.get_x() + s.get_width()) for s in shades] == [(0, 2), (3, 5), (6, 8)]
    decay = [{"epoch": e, "loss": 1.0, "kl_weight": 5.0 - e} for e in range(1, 4)]
    assert not plotting.training_curves(decay).axes[0].patches


def test_one_colour_is_one_thing():
    rows = [row | {"lr": 1 / row["epoch"], "validation_error": 0.5 / row["epoch"]} for row in ROWS]
    losses, *lower = plotting.training_curves(rows).axes
    assert [line.get_color() for line in losses.lines[:3]] == [BLUE, ORANGE, ORANGE]
    colours = {axes.get_ylabel().replace("\n", " "): axes.lines[0].get_color() for axes in lower}
    assert colours == {"validation error": PURPLE, "KL weight": GREEN, "learning rate": VERMILION}


@pytest.mark.parametrize("last", [1, 2, 7, 23, 100, 117, 1000])
def test_ticks_end_on_the_last_epoch(last):
    rows = [{"epoch": e, "loss": 1.0 + 1 / e} for e in range(1, last + 1)]
    axes = plotting.training_curves(rows).axes[0]
    ticks = axes.get_xticks()
    assert ticks[-1] == last
    assert ticks[0] == 1
    assert all(tick == int(tick) for tick in ticks)
    assert all(b - a >= last / 17 for a, b in itertools.pairwise(ticks))  # labels have room


def test_a_single_epoch_without_validation():
    (losses,) = plotting.training_curves([{"epoch": 1.0, "loss": 3.0}]).axes
    assert (losses.get_xlabel(), len(losses.lines)) == ("epoch", 1)
    with pytest.raises(ValueError, match="no metrics to draw"):
        plotting.training_curves([])


def test_several_runs_in_one_plot():
    short = [{"epoch": e, "loss": 70.0 - e} for e in range(1, 6)]
    nans = [{"epoch": 1, "loss": math.nan}]
    figure = plotting.compared_curves({"a": ROWS, "b": short, "none": [], "broken": nans})
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [(line.get_color(), line.get_linestyle()) for line in drawn] == [(BLUE, "-"), (BLUE, ":"), (ORANGE, ":")]
    assert list(drawn[0].get_ydata()) == [row["validation_loss"] for row in ROWS]
    assert list(drawn[2].get_ydata()) == [row["loss"] for row in short]
    assert texts(axes.get_legend().texts) == ["a", "b", "goes on above, to 160"]
    assert axes.get_xticks()[-1] == 23
    with pytest.raises(ValueError, match="no epoch of any run"):
        plotting.compared_curves({"a": []})
