"""Weights as functions of the training time."""

import pytest

from pyrovae.training.schedules import Constant, Cyclic, Decay, WarmUp, parse_schedule


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.5), {0: 0.5, 7.3: 0.5}),
        (WarmUp(10), {0: 0.0, 5: 0.5, 9.99: 0.999, 10: 1.0, 1000: 1.0}),
        (WarmUp(4, start=1.0, end=3.0), {0: 1.0, 1: 1.5, 4: 3.0, 9: 3.0}),
        (Decay(), {0: 1.0, 0.99: 1.0, 1: 1 / 2, 2.5: 1 / 3, 9: 1 / 10}),
        (Decay(2.0, floor=0.25), {0: 2.0, 1: 1.0, 100: 0.25}),
        (Cyclic(10), {0: 0.0, 2.5: 0.5, 5: 1.0, 9.9: 1.0, 10: 0.0, 12.5: 0.5, 20: 0.0}),
        (Cyclic(4, rise=1.0, start=0.2, end=1.0), {0: 0.2, 2: 0.6, 3: 0.8, 4: 0.2}),
    ],
    ids=str,
)
def test_values(schedule, values):
    assert {epoch: schedule(epoch) for epoch in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        (1, Constant(1.0)),
        ("0.25", Constant(0.25)),
        ("constant:2", Constant(2.0)),
        ("warm-up:100", WarmUp(100.0)),
        ("warm_up:100:0.5", WarmUp(100.0, start=0.5)),
        ("decay", Decay()),
        ("cyclic:20:0.3", Cyclic(20.0, rise=0.3)),
        (WarmUp(3), WarmUp(3)),
    ],
    ids=str,
)
def test_text(text, schedule):
    assert parse_schedule(text) == schedule


@pytest.mark.parametrize("text", ["linear", "warm-up", "warm-up:x", "warm-up:0", "cyclic:10:2", "decay:1:2:3", ""])
def test_bad_text_lists_the_known_schedules(text):
    message = r"unknown schedule .*; give a number, warm-up:EPOCHS, decay or cyclic:EPOCHS"
    with pytest.raises(ValueError, match=message):
        parse_schedule(text)


@pytest.mark.parametrize(
    "make", [lambda: WarmUp(0), lambda: WarmUp(float("nan")), lambda: Cyclic(0), lambda: Cyclic(5, 0)]
)
def test_bad_lengths(make):
    with pytest.raises(ValueError, match=r"positive number of epochs|epochs > 0 and 0 < rise <= 1"):
        make()
