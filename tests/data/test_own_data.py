"""Data of one's own: what every kind of file gives, how its rows are divided, what its values are."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from dataset_checks import assert_equal
from own_data import grey, real, sizes
from PIL import Image

from pyrovae.data import load, load_to_evaluate


class TestFormats:
    def test_npy(self, folder):
        x = real(50, 3)
        np.save("rows.npy", x)
        dataset = load("rows.npy")
        assert (dataset.name, dataset.kind, tuple(dataset.shape)) == ("rows", "real", (3,))
        assert sizes(dataset) == [40, 5, 5]
        assert dataset.train.x.dtype == torch.float32
        together = torch.cat([split.x for split in dataset.splits().values()])
        np.testing.assert_array_equal(np.sort(together.numpy(), 0), np.sort(x.astype(np.float32), 0))

    def test_npz_with_labels_and_mask(self, folder):
        x, y = real(30, 4), np.arange(30) % 3
        mask = real(30, 4, seed=1) > 0
        x[0, 0], mask[0, 0] = np.nan, True
        np.savez("rows.npz", x=x, y=y, mask=mask)
        dataset = load("rows.npz", validation=0, test=0)
        assert dataset.train.y.tolist() == y.tolist()
        mask[0, 0] = False
        assert torch.equal(dataset.train.mask, torch.from_numpy(mask))
        assert (dataset.train.x[~dataset.train.mask] == 0).all()
        np.testing.assert_array_equal(dataset.train.x[dataset.train.mask].numpy(), x[mask].astype(np.float32))
        assert dataset.num_classes == 3

    @pytest.mark.parametrize(
        "names",
        [("x_train", "x_validation", "x_test"), ("train", "valid", "test"), ("train", "x_val", "x_test")],
    )
    def test_npz_with_splits(self, names, folder):
        parts = [real(size, 2, seed=size) for size in (9, 4, 3)]
        np.savez("split.npz", **dict(zip(names, parts, strict=True)))
        dataset = load("split.npz")
        for split, part in zip(dataset.splits().values(), parts, strict=True):
            np.testing.assert_array_equal(split.x.numpy(), part.astype(np.float32))

    def test_splits_that_a_file_lacks_are_drawn_from_its_training_rows(self, folder):
        np.savez(
            "split.npz", x_train=real(40, 2), y_train=np.zeros(40, int), x_test=real(7, 2), y_test=np.zeros(7, int)
        )
        assert sizes(load("split.npz")) == [36, 4, 7]
        assert sizes(load("split.npz", validation=5)) == [35, 5, 7]

    def test_a_single_array_of_any_name(self, folder):
        np.savez("one.npz", images=real(10, 2))
        assert sizes(load("one.npz")) == [8, 1, 1]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
    def test_pt(self, dtype, folder):
        x = torch.arange(40).view(20, 2).to(dtype)
        torch.save(x, "tensor.pt")
        torch.save({"x": x.clone().requires_grad_() if dtype.is_floating_point else x, "y": x[:, 0].long()}, "both.pt")
        for name in ("tensor.pt", "both.pt"):
            dataset = load(name, validation=0, test=0)
            assert torch.equal(dataset.train.x, x.float())
        assert dataset.train.y.tolist() == x[:, 0].long().tolist()

    def test_csv(self, folder):
        frame = pd.DataFrame(real(20, 3), columns=["a", "b", "c"])
        frame.loc[3, "b"] = np.nan
        frame.to_csv("named.csv", index=False)
        frame.to_csv("plain.csv", index=False, header=False)
        frame.set_axis(range(3), axis=1).to_csv("numbered.csv", index=False)
        for name in ("named.csv", "plain.csv", "numbered.csv"):
            dataset = load(name, validation=0, test=0)
            np.testing.assert_array_equal(dataset.train.x.numpy(), frame.fillna(0).to_numpy(np.float32))
            assert (~dataset.train.mask).nonzero().tolist() == [[3, 1]]

    def test_labels_in_a_csv(self, folder):
        (folder / "numbers.csv").write_text("a,label,b\n1.5,0,2\n2,,3\n3,2,4\n")
        dataset = load("numbers.csv", label_column="label", validation=0, test=0)
        assert dataset.train.y.tolist() == [0, -1, 2]
        assert dataset.train.x.tolist() == [[1.5, 2], [2, 3], [3, 4]]
        (folder / "words.csv").write_text(
            "\ufefflabel,0,1\nwolf, 0, 1\nape, 1, 0\n\n,1,1\nwolf,0,0\n", encoding="utf-8"
        )
        dataset = load("words.csv", label_column="label", validation=0, test=0)
        assert dataset.options["classes"] == ["ape", "wolf"]
        assert dataset.train.y.tolist() == [1, 0, -1, 1]
        assert dataset.kind == "binary"

    def test_columns_go_by_their_names(self, folder):
        (folder / "mine.csv").write_text("a,y,b\n1.5,0,2\n3,1,4\n")
        (folder / "other.csv").write_text("b,more,a\n20,7,15\n")
        dataset = load("mine.csv", label_column="y", validation=0, test=0)
        assert dataset.options["columns"] == ["a", "b"]
        whole = load_to_evaluate("other.csv", dataset.options, "real")
        assert (whole.test.x.tolist(), whole.test.y) == ([[15, 20]], None)
        assert load("mine.csv", columns=["b"], validation="other.csv", test=0).validation.x.tolist() == [[20]]

    def test_first_line_of_numbers_is_a_row(self, folder):
        (folder / "plain.csv").write_text("1,2,3\n4,,6\n")
        assert load("plain.csv", validation=0, test=0).train.x.tolist() == [[1, 2, 3], [4, 0, 6]]

    @pytest.mark.parametrize("shape", [(30, 8, 6, 3), (30, 8, 6), (30, 8, 6, 1)])
    def test_layouts_of_pictures(self, shape, folder):
        x = grey(*shape)
        np.save("pictures.npy", x)
        dataset = load("pictures.npy", validation=0, test=0)
        expected = x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)
        assert dataset.train.x.is_contiguous()
        np.testing.assert_allclose(dataset.train.x.numpy() * 255, expected, atol=1e-4)


class TestPictures:
    @staticmethod
    def write(path, pixels, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)

    def test_classes(self, folder):
        for number, name in enumerate(["dog/1.png", "cat/deep/2.PNG", "3.png", "dog/4.png", ".hidden/5.png"]):
            self.write(folder / "pets" / name, grey(4, 5, seed=number))
        (folder / "pets/readme.txt").write_text("not a picture")
        dataset = load("pets/", validation=0, test=0)
        assert (dataset.name, dataset.kind, tuple(dataset.shape)) == ("pets", "8-bit", (1, 4, 5))
        assert dataset.train.y.tolist() == [-1, 0, 1, 1]
        assert dataset.options["classes"] == ["cat", "dog"]
        np.testing.assert_allclose(dataset.train.x[1, 0].numpy() * 255, grey(4, 5, seed=1), atol=1e-4)

    def test_colour(self, folder):
        self.write(folder / "a/1.png", grey(4, 5, 3))
        self.write(folder / "a/2.png", grey(4, 5))
        self.write(folder / "a/3.jpeg", grey(4, 5, 3), quality=50)
        self.write(folder / "a/4.png", grey(4, 5, 4))
        dataset = load("a", validation=0, test=0)
        assert dataset.train.x.shape == (4, 3, 4, 5)
        assert dataset.train.y is None
        np.testing.assert_allclose(dataset.train.x[0].numpy() * 255, grey(4, 5, 3).transpose(2, 0, 1), atol=1e-4)

    def test_black_and_white(self, folder):
        for number in range(3):
            self.write(folder / f"a/{number}.png", (grey(4, 5, seed=number) > 99))
        assert load("a", validation=0, test=0).kind == "binary"

    def test_size(self, folder):
        for number, shape in enumerate([(9, 6), (6, 9), (20, 20)]):
            self.write(folder / f"a/{number}.png", np.full(shape, 100, np.uint8))
        dataset = load("a", image_size=4, validation=0, test=0)
        assert dataset.train.x.shape == (3, 1, 4, 4)
        np.testing.assert_allclose(dataset.train.x.numpy() * 255, 100, rtol=1e-6)

    def test_folders_of_splits(self, folder):
        for number, name in enumerate(["train/b/1.png", "train/a/2.png", "test/b/3.png", "val/a/4.png"]):
            self.write(folder / "sets" / name, grey(4, 5, seed=number))
        dataset = load("sets")
        assert sizes(dataset) == [2, 1, 1]
        assert [split.y.tolist() for split in dataset.splits().values()] == [[0, 1], [0], [1]]

    def test_another_folder_has_the_same_numbers_for_classes(self, folder):
        for number, name in enumerate(["b/1.png", "a/2.png", "c/3.png"]):
            self.write(folder / "one" / name, grey(4, 5, seed=number))
        self.write(folder / "two/c/1.png", grey(4, 5))
        dataset = load("one", validation="two", test=0)
        assert dataset.validation.y.tolist() == [2]
        other = load_to_evaluate("two", dataset.options, dataset.kind)
        assert (sizes(other), other.test.y.tolist()) == ([0, 0, 1], [2])


class TestSplits:
    def test_shares_numbers_and_files(self, folder):
        np.save("rows.npy", real(100, 2))
        np.save("more.npy", real(8, 2, seed=1))
        assert sizes(load("rows.npy", validation=0.25, test=0.5)) == [25, 25, 50]
        assert sizes(load("rows.npy", validation=1, test=7)) == [92, 1, 7]
        assert sizes(load("rows.npy", validation=0, test=0)) == [100, 0, 0]
        assert sizes(load("rows.npy", validation="more.npy")) == [90, 8, 10]
        assert sizes(load("rows.npy", validation="more.npy", test="more.npy")) == [100, 8, 8]
        assert sizes(load(folder / "rows.npy", validation=folder / "more.npy", test=0.001)) == [99, 8, 1]

    def test_seed(self, folder):
        np.save("rows.npy", real(60, 2))
        first, again, other = (load("rows.npy", seed=seed) for seed in (1, 1, 2))
        assert_equal(first, again)
        assert not torch.equal(first.test.x, other.test.x)
        assert torch.equal(first.test.x, load("rows.npy", seed=1, validation=20).test.x)
        assert first.train.index.tolist() == list(range(48))

    def test_global_random_numbers_are_left_alone(self, folder, caller_rng):
        np.save("rows.npy", real(60, 2))
        load("rows.npy", seed=3)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"binarize": "dynamic", "labels": 0.5},
            {"scale": "symmetric"},
            {"dequantize": True},
            {"pca": 3},
            {"test": "other.npz"},
        ],
        ids=str,
    )
    def test_options_make_the_set_again(self, options, folder):
        np.savez("rows.npz", x=grey(80, 1, 4, 4), y=np.arange(80) % 2)
        np.savez("other.npz", x=grey(9, 1, 4, 4), y=np.arange(9) % 2)
        dataset = load("rows.npz", seed=3, **options)
        again = load(**json.loads(json.dumps(dataset.options)))
        assert_equal(dataset, again)
        assert (again.options, again.kind) == (dataset.options, dataset.kind)
        assert dataset.options["name"] == "rows.npz", "as it was given"
        assert dataset.options["kind"] == "8-bit", "that of the file"

    def test_a_name_goes_before_a_folder_of_that_name(self, folder):
        (folder / "digits").mkdir()
        Image.fromarray(grey(4, 4)).save(folder / "digits/1.png")
        assert load("digits").shape == (1, 8, 8)
        assert load("./digits", validation=0, test=0).shape == (1, 4, 4)
