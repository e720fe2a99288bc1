"""Sweeps over grids: their points, their folders, what is done again and what is not."""

import json

import pytest

from pyrovae.runs import sweep as sweeps
from pyrovae.runs.sweep import POINT, RESULT, collect, points_of, sweep


def squares(options, folder):
    """A training that takes no time; it counts how often it was called."""
    folder.mkdir(parents=True, exist_ok=True)
    calls = folder / "calls"
    calls.write_text(str(int(calls.read_text()) + 1 if calls.exists() else 1))
    if options["x"] == 3 and not (folder / "mended").exists():
        raise ValueError("three is\n too much")
    if options["x"] == 4 and not (folder.parent / "go on").exists():
        raise KeyboardInterrupt
    return {"square": options["x"] ** 2}


def calls(folder):
    return {path.parent.name: int(path.read_text()) for path in folder.glob("*/calls")}


class TestPoints:
    def test_every_combination_has_a_readable_name(self):
        points = points_of({"pair": "gaussian", "hidden": ["200", "200,200"], "lr": [1e-3, 1e-4]})
        assert [point.name for point in points] == [
            "hidden=200_lr=0.001",
            "hidden=200_lr=0.0001",
            "hidden=200-200_lr=0.001",
            "hidden=200-200_lr=0.0001",
        ]
        assert points[0].options == {"pair": "gaussian", "hidden": "200", "lr": 1e-3}

    def test_several_grids_and_equal_points(self):
        points = points_of([{"x": [1, 2]}, {"x": [2], "y": 5}, {"x": 1}])
        assert [dict(point.options) for point in points] == [{"x": 1}, {"x": 2}, {"x": 2, "y": 5}]
        assert len({point.name for point in points}) == 3

    def test_names_differ_where_signs_do_not(self):
        first, second = points_of({"x": ["a b", "a/b"]})
        assert (first.name, second.name) == ("x=a-b", "x=a-b-2")

    @pytest.mark.parametrize(
        ("grid", "message"),
        [("text", "an object of options"), ([1], "an object of options"), ([], "empty"), ({"x": []}, "'x'")],
    )
    def test_what_is_no_grid(self, grid, message):
        with pytest.raises(ValueError, match=message):
            points_of(grid)


class TestSweep:
    def test_failed_points_are_noted_and_tried_again(self, tmp_path):
        points = points_of({"x": [1, 3, 2]})
        results = {result.point.options["x"]: result for result in sweep(points, tmp_path, squares)}
        assert results[3].error == "ValueError: three is too much"
        assert (results[1].figures, results[2].figures) == ({"square": 1}, {"square": 4})
        (tmp_path / "x=3" / "mended").touch()
        again = {result.point.options["x"]: result for result in sweep(points, tmp_path, squares)}
        assert (again[3].error, again[3].figures) == (None, {"square": 9})
        assert calls(tmp_path) == {"x=1": 1, "x=2": 1, "x=3": 2}

    def test_interrupt_keeps_what_is_done(self, tmp_path):
        points = points_of({"x": [1, 4, 2]})
        with pytest.raises(KeyboardInterrupt):
            list(sweep(points, tmp_path, squares))
        assert [row["state"] for row in collect(tmp_path)] == ["finished", "unfinished", "unfinished"]
        (tmp_path / "go on").touch()
        assert [result.figures["square"] for result in sweep(points, tmp_path, squares)] == [1, 16, 4]
        assert calls(tmp_path) == {"x=1": 1, "x=4": 2, "x=2": 1}

    def test_a_point_keeps_its_folder_when_the_grid_grows(self, tmp_path):
        list(sweep(points_of({"x": [1, 2], "y": 1}), tmp_path, squares))
        grown = points_of({"x": [1, 2], "y": [1, 2]})
        folders = [result.folder.name for result in sweep(grown, tmp_path, squares)]
        assert sorted(folders) == ["x=1", "x=1_y=2", "x=2", "x=2_y=2"]
        assert calls(tmp_path) == dict.fromkeys(folders, 1)

    def test_a_folder_of_something_else_is_not_taken(self, tmp_path):
        (tmp_path / "x=1").mkdir()
        (tmp_path / "x=1" / "mine.txt").touch()
        results = list(sweep(points_of({"x": [1, 2]}), tmp_path, squares))
        assert {result.folder.name for result in results} == {"x=1-2", "x=2"}

    def test_threads_take_turns(self, tmp_path):
        results = list(sweep(points_of({"x": [1, 2, 3]}), tmp_path, squares, jobs=3, backend="threading"))
        assert sorted(result.figures.get("square", 0) for result in results) == [0, 1, 4]

    def test_a_killed_process_is_no_error_of_the_sweep(self, tmp_path, monkeypatch):
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        class Killed:
            def __init__(self, **options):
                pass

            def __call__(self, tasks):
                function, arguments, keywords = tasks[0]
                yield function(*arguments, **keywords)
                raise TerminatedWorkerError

        monkeypatch.setattr("joblib.Parallel", Killed)
        first, second = sweep(points_of({"x": [1, 2]}), tmp_path, squares)
        assert (first.error, "was killed" in second.error) == (None, True)
        assert [row["state"] for row in collect(tmp_path)] == ["finished", "unfinished"]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"jobs": 0}, ValueError, "at least 1, got 0"),
            ({"backend": "nonsense"}, ValueError, "nonsense"),
            ({"backend": "ray"}, ImportError, "pip install 'pyrovae.ray"),
            ({"backend_options": {"a": 1}}, ValueError, "need the name"),
        ],
    )
    def test_refused_before_anything_runs(self, options, error, message, tmp_path):
        with pytest.raises(error, match=message):
            list(sweep(points_of({"x": 1}), tmp_path, squares, **options))
        assert not list(tmp_path.iterdir())


class TestCollect:
    def test_a_row_for_each_point(self, tmp_path):
        list(sweep(points_of({"x": [1, 3], "square": "given"}), tmp_path, squares))
        finished, failed = collect(tmp_path)
        assert finished == {"run": "x=1", "state": "finished", "x": 1, "square": "given", "figure.square": 1}
        assert failed["state"] == "failed"
        assert failed["error"].startswith("ValueError")

    def test_half_a_file(self, tmp_path):
        list(sweep(points_of({"x": [1, 2]}), tmp_path, squares))
        (tmp_path / "x=1" / RESULT).write_text('{"fig')
        assert [row["state"] for row in collect(tmp_path)] == ["unfinished", "finished"]
        (tmp_path / "x=1" / POINT).write_text("{")
        with pytest.raises(ValueError, match=r"point\.json is damaged"):
            collect(tmp_path)

    def test_nothing_to_collect(self, tmp_path):
        with pytest.raises(ValueError, match="holds no points"):
            collect(tmp_path)


def test_points_are_json(tmp_path):
    list(sweep(points_of({"x": 1, "names": [["a=real", "b=count"]]}), tmp_path, squares))
    assert json.loads((tmp_path / "run" / POINT).read_text()) == {"x": 1, "names": ["a=real", "b=count"]}
    assert sweeps.read_result(tmp_path / "run") == {"figures": {"square": 1}, "error": None, "weights": None}
