"""Figures of missing entries show the numbers that they are given."""

import numpy as np
import pytest
import torch

from pyrovae.metrics import MissingError
from pyrovae.plotting import inpainting, missing_errors


def errors(scale, mean=float("nan")):
    return [MissingError(r, r, scale * r / 2, scale * r, 0.0, 0.01, mean, 10) for r in (0.5, 0.1, 0.9)]


class TestErrors:
    def test_a_line_for_each_run(self):
        axes = missing_errors({"VAE": errors(1.0), "VAD": errors(0.5)}).axes[0]
        lines = {
            text.get_text(): line for text, line in zip(axes.get_legend().get_texts(), axes.containers, strict=True)
        }
        assert set(lines) == {"VAE", "VAD"}
        x, y = lines["VAD"].lines[0].get_data()
        assert (list(x), list(y)) == ([0.1, 0.5, 0.9], [0.05, 0.25, 0.45])
        segments = lines["VAD"].lines[2][0].get_segments()
        assert segments[0][:, 1] == pytest.approx([0.04, 0.06])
        assert axes.get_ylabel() == "error per missing entry"

    def test_all_entries(self):
        axes = missing_errors({"VAE": errors(1.0)}, counted="all").axes[0]
        assert axes.containers[0].lines[0].get_ydata().tolist() == [0.05, 0.25, 0.45]
        assert not axes.containers[0].has_yerr

    def test_the_mean_of_the_training_rows(self):
        axes = missing_errors({"VAE": errors(1.0, mean=0.07)}).axes[0]
        (line,) = (line for line in axes.lines if line.get_linestyle() == "--")
        assert line.get_xydata().tolist() == [[0.1, 0.07], [0.5, 0.07], [0.9, 0.07]]

    def test_refused(self):
        with pytest.raises(ValueError, match="no errors to draw"):
            missing_errors({"VAE": []})
        with pytest.raises(ValueError, match="one of all, missing, got 'observed'"):
            missing_errors({"VAE": errors(1.0)}, counted="observed")


class TestInpainting:
    def test_rows_of_the_panel(self):
        truth = torch.rand(4, 1, 6, 6)
        mask = torch.rand(4, 1, 6, 6) > 0.5
        answers = {"VAD": torch.rand(4, 1, 6, 6), "VAE": torch.rand(4, 1, 6, 6)}
        axes = inpainting(truth, mask, answers).axes[0]
        assert [text.get_text() for text in axes.get_yticklabels()] == ["with holes", "VAD", "VAE", "truth"]
        pixels = axes.images[0].get_array()
        shown = [torch.where(mask, truth, 1.0), answers["VAD"], answers["VAE"], truth]
        for row, values in enumerate(shown):
            for column in range(4):
                tile = pixels[row * 7 : row * 7 + 6, column * 7 : column * 7 + 6]
                assert np.allclose(tile[..., 0], values[column, 0], atol=1e-6)

    def test_range(self):
        pictures = torch.full((2, 5, 5), -1.0)
        axes = inpainting(pictures, torch.ones_like(pictures, dtype=torch.bool), {}, show_range=(-1, 1)).axes[0]
        assert axes.images[0].get_array()[0, 0].tolist() == [0, 0, 0]

    def test_refused(self):
        truth = torch.rand(4, 1, 6, 6)
        with pytest.raises(ValueError, match=r"VAE has shape \(3, 1, 6, 6\)"):
            inpainting(truth, truth > 0, {"VAE": truth[:3]})
        with pytest.raises(ValueError, match="takes pictures"):
            inpainting(torch.rand(4, 7), torch.rand(4, 7) > 0, {})
