"""The encoder that takes a label: how the class enters, and its start."""

import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from semi_supervised_pairs import CLASSES, LABELS, ROWS, SHAPE, make_pair
from torch import nn

from pyrovae.guides import LabelledEncoder
from pyrovae.nn import DenseEncoder, FlatEncoder
from pyrovae.pairs import find_pair


class TestLabelledEncoder:
    """The layer that takes the label in, against direct computations with the weights that it has."""

    @staticmethod
    def make(layer, features=8, **options):
        options |= {"activation": "tanh", "layer": layer}
        encoder = LabelledEncoder(DenseEncoder(SHAPE, (features,)), CLASSES, 8, **options)
        return encoder, torch.randn(ROWS, *SHAPE)

    @staticmethod
    def by_hand(encoder, layer, x, y):
        h = encoder.encoder(x)
        raw = h @ encoder.linear.weight.T + encoder.linear.bias + torch.eye(CLASSES)[y] @ encoder.by_label
        if layer == "gated":
            return raw[:, :8] / (1 + (-raw[:, 8:]).exp())
        return raw.tanh() + (h if layer == "residual" and h.shape[1] == 8 else 0)

    @pytest.mark.parametrize("features", [8, 5])
    @pytest.mark.parametrize("layer", ["plain", "residual", "gated"])
    def test_by_hand(self, layer, features):
        """For a label of each row and for all classes at once; a skip is only where sizes are equal."""
        encoder, x = self.make(layer, features)
        assert encoder.out_features == 8
        y = LABELS.clamp(min=0)
        torch.testing.assert_close(encoder(x, y), self.by_hand(encoder, layer, x, y))
        classes = torch.arange(CLASSES).unsqueeze(-1)
        expected = [self.by_hand(encoder, layer, x, c.expand(ROWS)) for c in classes]
        torch.testing.assert_close(encoder(x, classes), torch.stack(expected))

    @pytest.mark.parametrize("layer", ["plain", "residual", "gated"])
    def test_once_for_all_classes(self, layer):
        """Features and their product with the weights, under the enumeration of a guide too."""
        encoder, x = self.make(layer)
        rows = {"features": [], "product": []}
        encoder.encoder.register_forward_hook(lambda module, args, out: rows["features"].append(tuple(out.shape)))
        encoder.linear.register_forward_hook(lambda module, args, out: rows["product"].append(tuple(out.shape)))
        assert encoder(x, torch.arange(CLASSES).unsqueeze(-1)).shape == (CLASSES, ROWS, 8)
        width = 16 if layer == "gated" else 8
        assert rows == {"features": [(ROWS, 8)], "product": [(ROWS, width)]}
        vae = make_pair()
        vae.guide.encoder = encoder
        TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x.sigmoid().round()).backward()
        assert rows == {"features": [(ROWS, 8)] * 2, "product": [(ROWS, width)] * 2}
        assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())

    def test_data_as_features(self):
        """Without an encoder the entries of a datum go past the layer too, if there are as many as it has units."""
        x, y = torch.randn(ROWS, *SHAPE), LABELS.clamp(min=0)
        for hidden in (16, 8):
            encoder = LabelledEncoder(FlatEncoder(SHAPE), CLASSES, hidden, layer="residual")
            with torch.no_grad():
                encoder.linear.bias.fill_(-1000.0)
            assert torch.equal(encoder(x, y), x.flatten(1) if hidden == 16 else torch.zeros(ROWS, 8))

    def test_parameters_of_a_plain_layer(self):
        """The names by which the weights of runs are stored, and their shapes."""
        found = {name: tuple(p.shape) for name, p in LabelledEncoder(FlatEncoder((16,)), 3, 8).state_dict().items()}
        assert found == {"by_label": (3, 8), "linear.weight": (8, 16), "linear.bias": (8,)}

    def test_dropout_is_for_training_only(self):
        encoder, x = self.make("residual", dropout=0.5)
        y = LABELS.clamp(min=0)
        assert (encoder(x, y) == 0).float().mean() > 0.2
        encoder.eval()
        torch.testing.assert_close(encoder(x, y), self.by_hand(encoder, "residual", x, y))

    def test_refused(self):
        with pytest.raises(ValueError, match="unknown layer 'dense'; known are plain, gated, residual"):
            self.make("dense")

    @pytest.mark.parametrize(
        ("options", "kind", "skip"),
        [
            ({"hidden": (16, 16), "layer": "residual"}, nn.ReLU, True),
            ({"hidden": (16,), "layer": "residual"}, nn.ReLU, False),
            ({"hidden": (16, 16), "layer": "gated"}, nn.GLU, False),
            ({"hidden": (16,), "layer": "residual", "net": "conv", "channels": (2, 3)}, nn.ReLU, True),
            ({"hidden": (16, 16)}, nn.ReLU, False),
        ],
        ids=str,
    )
    def test_the_pair_passes_its_layer_on(self, digits, options, kind, skip):
        vae = find_pair("semi-supervised").build(digits, latent_dim=4, **options)
        encoder = vae.guide.encoder
        assert (type(encoder.activation), encoder.skip) == (kind, skip)
        assert vae.log_likelihood(digits.test.x[:4], 2).isfinite().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hidden": (16, 16)}, r"one dense layer, so hidden must hold one number, .* got \(16, 16\)"),
            ({"layer": "gated"}, "layer 'gated' is not for convolutional nets, whose layers are plain or residual"),
        ],
        ids=str,
    )
    def test_refused_with_convolutional_nets(self, digits, options, message):
        with pytest.raises(ValueError, match=message):
            find_pair("semi-supervised").build(digits, net="conv", **options)

    def test_dropout_of_convolutional_nets_is_on_the_features_of_the_classifier(self, digits):
        options = {"hidden": (16,), "net": "conv", "channels": (2, 3), "dropout": 0.3}
        vae = find_pair("semi-supervised").build(digits, **options)
        dropouts = {name: m.p for name, m in vae.guide.named_modules() if isinstance(m, nn.Dropout) and m.p}
        assert dropouts == {"classifier.dropout": 0.3}
