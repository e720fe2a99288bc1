"""Data of one's own: what kind of values they hold, and data to evaluate on."""

import logging

import numpy as np
import pytest
from own_data import grey, real, sizes

from pyrovae.data import DataError, load, load_to_evaluate

KINDS = {
    "bool": (real(40, 3) > 0, "binary"),
    "zero-one": ((real(40, 3) > 0).astype(np.int64), "binary"),
    "zero-one bytes": ((real(40, 3) > 0).astype(np.uint8), "binary"),
    "zero-one float": ((real(40, 3) > 0).astype(np.float32), "binary"),
    "bytes": (grey(40, 3), "8-bit"),
    "divided bytes": (grey(40, 3) / 255, "8-bit"),
    "divided bytes in float32": (grey(40, 3).astype(np.float32) / np.float32(255), "8-bit"),
    "few levels": (np.random.default_rng(0).integers(0, 6, (40, 3)) / 5, "unit"),
    "unit": (np.random.default_rng(0).random((40, 3)), "unit"),
    "symmetric": (np.clip(real(40, 3), -1, 1), "symmetric"),
    "small": (real(40, 3) / 10, "real"),
    "normal": (real(40, 3), "real"),
    "grey values as floats": (grey(40, 3).astype(float), "real"),
}


class TestKinds:
    @pytest.mark.parametrize("case", KINDS)
    def test_found(self, case, folder, caplog):
        values, kind = KINDS[case]
        np.save("rows.npy", values)
        with caplog.at_level(logging.INFO, "pyrovae"):
            dataset = load("rows.npy", validation=0, test=0)
            assert dataset.kind == kind
            (record,) = caplog.records
            load(**dataset.options)
        assert len(caplog.records) == 1, "told once"
        assert f"rows.npy: values of kind {kind} (" in record.message
        assert "\n" not in record.message
        assert ("give kind 8-bit" in record.message) == (case == "grey values as floats")
        np.testing.assert_allclose(dataset.train.x.numpy() * (255 if case == "bytes" else 1), values, rtol=1e-5)

    def test_given(self, folder):
        values = grey(40, 3)
        np.save("bytes.npy", values)
        np.save("floats.npy", values.astype(float))
        np.save("unit.npy", values / 255)
        for name in ("bytes.npy", "floats.npy", "unit.npy"):
            dataset = load(name, kind="8-bit", validation=0, test=0)
            assert dataset.kind == "8-bit"
            np.testing.assert_allclose(dataset.train.x.numpy() * 255, values, atol=1e-4)
        assert load("bytes.npy", kind="unit").train.x.max() <= 1
        assert load("bytes.npy", kind="real").train.x.max() > 1
        assert load("unit.npy", kind="unit").kind == "unit"
        assert load("unit.npy", kind="real").kind == "real"

    def test_hidden_values_do_not_count(self, folder):
        x, mask = (real(40, 3) > 0).astype(float), np.ones((40, 3), bool)
        x[2, 1], mask[2, 1] = 999, False
        np.savez("rows.npz", x=x, mask=mask)
        assert load("rows.npz").kind == "binary"

    def test_all_splits_count(self, folder):
        np.savez("rows.npz", train=real(9, 2) > 0, test=real(9, 2))
        assert load("rows.npz", validation=0).kind == "real"


class TestToEvaluate:
    def test_prepared_as_the_training_data(self, folder):
        np.savez("rows.npz", x=grey(60, 1, 4, 4), y=np.arange(60) % 3)
        np.savez("new.npz", x=grey(20, 1, 4, 4, seed=5), y=np.arange(20) % 3)
        trained = load("rows.npz", binarize="dynamic", labels=0.5)
        new = load_to_evaluate("new.npz", trained.options, trained.kind)
        assert (sizes(new), new.kind) == ([0, 0, 20], "binary")
        assert set(new.test.x.unique().tolist()) == {0, 1}
        assert new.test.y.tolist() == [row % 3 for row in range(20)]

    def test_splits_of_the_file_are_kept(self, folder):
        np.savez("split.npz", train=real(9, 2), test=real(4, 2))
        assert sizes(load_to_evaluate("split.npz", {}, "real")) == [9, 0, 4]

    def test_of_a_named_set(self, folder):
        np.save("new.npy", np.random.default_rng(0).random((20, 1, 8, 8)))
        digits = load("digits", binarize="static")
        new = load_to_evaluate("new.npy", digits.options, digits.kind)
        assert (new.kind, len(new.test)) == ("binary", 20)
        assert load_to_evaluate("digits", {"binarize": "static", "kind": "8-bit"}, "binary").kind == "binary"

    def test_components_are_refused(self, folder):
        np.save("rows.npy", real(60, 5))
        options = load("rows.npy", pca=2).options
        with pytest.raises(ValueError, match="principal components of its training rows"):
            load_to_evaluate("rows.npy", options, "real")


def test_values_of_another_kind_than_the_run_was_trained_on_are_not_to_be_declared(tmp_path):
    np.save(tmp_path / "real.npy", np.array([[0.5, -3.0]]))
    with pytest.raises(DataError, match=r"-3, and kind 'unit' .*; the run was trained on values of that kind$"):
        load_to_evaluate(tmp_path / "real.npy", {"name": "digits"}, "unit")
