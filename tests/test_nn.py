"""Nets: shapes with leading dimensions, definitions of the layers, weight tying."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from pyrovae.data import Dataset, Rows
from pyrovae.nn import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
    Gated,
    GaussianHead,
    Residual,
    TiedMLP,
    tables,
)
from pyrovae.nn.convolutions import ResidualBlock
from pyrovae.nn.mlp import ACTIVATIONS, activation_module
from pyrovae.pairs import find_pair, parts

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 4, 12)]
leading_dimensions = pytest.mark.parametrize("leading", [(), (5,), (2, 5), (2, 1, 5)], ids=str)


@leading_dimensions
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["dense", "conv", "residual conv"])
def test_leading_dimensions_are_a_loop(kind, shape, leading):
    """Any leading dimensions, none included, give what one datum at a time gives."""
    if kind == "dense":
        encoder, decoder = DenseEncoder(shape, (6,)), DenseDecoder(3, shape, (6,))
    else:
        layer = "residual" if kind == "residual conv" else "plain"
        encoder, decoder = ConvEncoder(shape, (2, 3), 6, layer=layer), ConvDecoder(3, shape, (2, 3), 6, layer=layer)
    x, z = torch.randn(*leading, *shape), torch.randn(*leading, 3)
    features, raw = encoder(x), decoder(z)
    assert features.shape == (*leading, encoder.out_features)
    assert raw.shape == (*leading, *shape)
    singles = [encoder(one[None])[0] for one in x.reshape(-1, *shape)]
    torch.testing.assert_close(features.reshape(-1, 6), torch.stack(singles), rtol=1e-4, atol=1e-5)
    singles = [decoder(one[None])[0] for one in z.reshape(-1, 3)]
    torch.testing.assert_close(raw.reshape(-1, *shape), torch.stack(singles), rtol=1e-4, atol=1e-5)


def test_convolutional_nets_layer_by_layer():
    encoder, decoder = ConvEncoder((1, 8, 8), (2, 3), 6), ConvDecoder(3, (1, 8, 8), (2, 3), 6)
    x, z = torch.randn(4, 1, 8, 8), torch.randn(4, 3)
    (w1, b1, w2, b2, w3, b3) = encoder.parameters()
    h = F.relu(F.conv2d(x, w1, b1, stride=2, padding=1))
    h = F.relu(F.conv2d(h, w2, b2, stride=2, padding=1))
    torch.testing.assert_close(encoder(x), F.relu(F.linear(h.flatten(1), w3, b3)))
    (w1, b1, w2, b2, w3, b3, w4, b4) = decoder.parameters()
    h = F.relu(F.linear(F.relu(F.linear(z, w1, b1)), w2, b2)).reshape(4, 3, 2, 2)
    h = F.relu(F.conv_transpose2d(h, w3, b3, stride=2, padding=1))
    torch.testing.assert_close(decoder(z), F.conv_transpose2d(h, w4, b4, stride=2, padding=1))


def block_by_hand(x, block):
    w1, b1, w2, b2 = block.parameters()
    return x + F.conv2d(F.relu(F.conv2d(F.relu(x), w1, b1, padding=1)), w2, b2, padding=1)


def test_residual_block():
    block, x = ResidualBlock(3), torch.randn(4, 3, 5, 6)
    torch.testing.assert_close(block(x), block_by_hand(x, block))
    nn.init.zeros_(block.change[-1].weight)
    nn.init.zeros_(block.change[-1].bias)
    assert torch.equal(block(x), x)


def residual_nets(**options):
    options["layer"] = "residual"
    return ConvEncoder((1, 8, 8), (2, 3), 6, **options), ConvDecoder(3, (1, 8, 8), (2, 3), 6, **options)


def blocks(net):
    return [module for module in net.modules() if isinstance(module, ResidualBlock)]


def test_residual_convolutional_nets_layer_by_layer():
    """The blocks stand after each halving and before each doubling, in both nets before the activation."""
    encoder, decoder = residual_nets()
    x, z = torch.randn(4, 1, 8, 8), torch.randn(4, 3)
    half, quarter = blocks(encoder)
    first, second = (module for module in encoder.net if isinstance(module, nn.Conv2d))
    h = F.relu(block_by_hand(first(x), half))
    h = F.relu(block_by_hand(second(h), quarter))
    (dense,) = (module for module in encoder.net if isinstance(module, nn.Linear))
    torch.testing.assert_close(encoder(x), F.relu(dense(h.flatten(1))))
    quarter, half = blocks(decoder)
    first, second = (module for module in decoder.modules() if isinstance(module, nn.Linear))
    low, high = (module for module in decoder.modules() if isinstance(module, nn.ConvTranspose2d))
    h = second(F.relu(first(z))).reshape(4, 3, 2, 2)
    h = low(F.relu(block_by_hand(h, quarter)))
    torch.testing.assert_close(decoder(z), high(F.relu(block_by_hand(h, half))))


def test_residual_blocks_are_mirrored():
    channels = [[block.change[-1].out_channels for block in blocks(net)] for net in residual_nets()]
    assert channels == [[2, 3], [3, 2]]


def test_residual_convolutional_nets_with_identical_blocks_are_plain():
    plain, residual = ConvEncoder((1, 8, 8), (2, 3), 6), residual_nets()[0]
    theirs = [module for module in residual.net if not isinstance(module, ResidualBlock)]
    for mine, other in zip(plain.net, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    for block in blocks(residual):
        nn.init.zeros_(block.change[-1].weight)
        nn.init.zeros_(block.change[-1].bias)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(residual(x), plain(x))


def test_parameters_of_plain_convolutional_nets():
    """The names by which the weights of runs are stored."""
    encoder, decoder = ConvEncoder((1, 8, 8), (2, 3), 6), ConvDecoder(3, (1, 8, 8), (2, 3), 6)
    names = [f"net.{i}.{name}" for i in (0, 2, 5) for name in ("weight", "bias")]
    assert list(encoder.state_dict()) == names
    modules = ("dense.0", "dense.2", "up1", "up2")
    assert list(decoder.state_dict()) == [f"{module}.{name}" for module in modules for name in ("weight", "bias")]


@pytest.mark.parametrize("activation", ["tanh", nn.PReLU], ids=str)
def test_gradient_reaches_all_of_residual_convolutional_nets(activation):
    for net, shape in zip(residual_nets(activation=activation), [(4, 1, 8, 8), (4, 3)], strict=True):
        net(torch.randn(shape)).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_gated_layer():
    layer, x = Gated(3, 2), torch.randn(4, 3)
    weight, bias = layer.linear.weight, layer.linear.bias
    value, gate = x @ weight[:2].T + bias[:2], x @ weight[2:].T + bias[2:]
    torch.testing.assert_close(layer(x), value / (1 + (-gate).exp()))


def test_residual_layer_is_the_identity_where_its_change_is_zero():
    layer, x = Residual(3, 3, "relu"), torch.randn(4, 3)
    torch.testing.assert_close(layer(x), x + (x @ layer.linear.weight.T + layer.linear.bias).clamp(min=0))
    nn.init.constant_(layer.linear.bias, -100.0)
    assert torch.equal(layer(x), x)
    narrowing = Residual(3, 2, "relu")
    nn.init.constant_(narrowing.linear.bias, -100.0)
    assert torch.equal(narrowing(x), torch.zeros(4, 2))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_by_name(name):
    net = MLP(3, (32, 32), 2, activation=name)
    x = torch.randn(5, 3, requires_grad=True)
    net(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert type(activation_module(name.replace("-", "_"))) is type(activation_module(name))


def test_activation_by_factory():
    assert type(MLP(3, (4,), activation=nn.Tanhshrink).layers[1]) is nn.Tanhshrink


def test_output_layer_is_linear():
    """Doubling the last hidden layer doubles the output, but for the bias."""
    net, x = MLP(3, (4,), 2, layer="gated"), torch.randn(5, 3)
    *hidden, last = net.layers
    h = nn.Sequential(*hidden)(x)
    torch.testing.assert_close(net(x), h @ last.weight.T + last.bias)
    assert MLP(3, (4,)).out_features == 4
    assert (MLP(3, (), 2).in_features, MLP(3, (), 2).out_features) == (3, 2)


def test_dropout_is_for_training_only():
    net, x = MLP(3, (100,), dropout=0.5), torch.ones(2, 3)
    nn.init.constant_(net.layers[0].bias, 1.0)
    assert (net(x) == 0).float().mean() > (net.eval()(x) == 0).float().mean() + 0.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(3, (4,), layer="dense"), "unknown layer 'dense'; known are plain, gated, residual"),
        (lambda: MLP(3, (4,), activation="swish"), "unknown activation 'swish'; known are celu, .*tanh"),
        (lambda: MLP(3, (4, 0)), "layer sizes must be at least 1, got 3, 4, 0"),
        (lambda: MLP(3, (4,), -1), "layer sizes must be at least 1"),
        (lambda: DenseEncoder((1, 8, 8), ()), "an encoder needs at least one hidden layer"),
        (lambda: ConvEncoder((1, 30, 28)), r"divisible by 4, got \(1, 30, 28\)"),
        (lambda: ConvDecoder(2, (784,)), r"pictures \(channels, height, width\) .* got \(784,\)"),
        (lambda: TiedMLP(2, MLP(6, (4,), layer="gated")), "plain layers only"),
        (
            lambda: DenseDecoder(2, (2, 8, 8), tied_to=DenseEncoder((1, 8, 8), (4,))),
            "tied weights give 64 outputs, the likelihood needs 128",
        ),
        (
            lambda: ConvDecoder(2, (2, 8, 8), (3, 4), tied_to=ConvEncoder((1, 8, 8), (3, 4))),
            r"kernels of \[\(3, 1\), \(4, 3\)\] .* cannot be tied to a decoder with 2 raw channels",
        ),
        (
            lambda: ConvEncoder((1, 8, 8), layer="gated"),
            "layer 'gated' is not for convolutional nets, whose layers are plain or residual; .* dense nets",
        ),
        (lambda: ConvEncoder((1, 8, 8), layer="dense"), "layer 'dense' is not for .* are plain or residual"),
        (lambda: ConvDecoder(2, (1, 8, 8), layer="gated"), "layer 'gated' is not for .* are plain or residual"),
        (
            lambda: ConvDecoder(2, (1, 8, 8), layer="residual", tied_to=ConvEncoder((1, 8, 8))),
            "tied between convolutional nets with plain layers only",
        ),
        (
            lambda: ConvDecoder(2, (1, 8, 8), tied_to=ConvEncoder((1, 8, 8), layer="residual")),
            "tied between convolutional nets with plain layers only",
        ),
        (lambda: parts.make_encoder((1, 8, 8), net="conv", hidden=(8, 6)), r"one dense layer, .* got \(8, 6\)"),
        (lambda: parts.make_decoder(2, (1, 8, 8), net="conv", hidden=(8, 6)), r"one dense layer, .* got \(8, 6\)"),
        (lambda: parts.make_decoder(2, (1, 8, 8), net="conv", hidden=()), r"one dense layer, .* got \(\)"),
        (lambda: parts.make_nets((1, 8, 8), 2, (1, 8, 8), net="conv", hidden=(8, 6)), "hidden must hold one number"),
        (lambda: parts.make_nets((1, 8, 8), 2, (1, 8, 8), net="conv", layer="gated"), "'gated' is not for"),
        (
            lambda: parts.make_nets((1, 8, 8), 2, (1, 8, 8), net="conv", layer="residual", tied=True),
            "tied between convolutional nets with plain layers only",
        ),
        (lambda: parts.make_encoder((1, 8, 8), net="conv", dropout=0.5), "no dropout, got dropout=0.5; leave it out"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def tied_nets(kind):
    if kind == "dense":
        encoder = DenseEncoder((1, 8, 8), (6, 5))
        return encoder, DenseDecoder(3, (1, 8, 8), tied_to=encoder)
    encoder = ConvEncoder((1, 8, 8), (2, 3), 6)
    return encoder, ConvDecoder(3, (1, 8, 8), (2, 3), 6, tied_to=encoder)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_tied_decoder_owns_no_weight_of_the_encoder(kind):
    encoder, decoder = tied_nets(kind)
    assert not {id(p) for p in encoder.parameters()} & {id(p) for p in decoder.parameters()}
    assert not {name for name, _ in decoder.named_modules() if "tied" in name}
    decoder(torch.randn(4, 3)).square().sum().backward()
    weights = [m.weight for m in encoder.net.modules() if isinstance(m, nn.Conv2d)]
    weights = weights or [m.weight for m in encoder.net.layers if isinstance(m, nn.Linear)]
    assert len(weights) == 2
    assert all(weight.grad.abs().sum() > 0 for weight in weights)
    assert all(p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_tied_dense_decoder_multiplies_by_the_transposes():
    encoder, decoder = tied_nets("dense")
    first, second = (m for m in encoder.net.layers if isinstance(m, nn.Linear))
    z = torch.randn(4, 3)
    with torch.no_grad():
        for bias in decoder.net.biases:
            bias.normal_()
    h = F.relu(z @ decoder.net.first.weight.T + decoder.net.first.bias)
    h = F.relu(h @ second.weight + decoder.net.biases[0])
    torch.testing.assert_close(decoder(z).flatten(1), h @ first.weight + decoder.net.biases[1])


def test_tied_convolution_is_the_adjoint():
    """<conv(x), y> = <x, conv transposed(y)>, which is what tying means."""
    encoder, decoder = tied_nets("conv")
    low, high = decoder._tied
    for convolution, size in ((high, 8), (low, 4)):
        x = torch.randn(1, convolution.in_channels, size, size)
        y = torch.randn(1, convolution.out_channels, size // 2, size // 2)
        forward = F.conv2d(x, convolution.weight, stride=2, padding=1)
        backward = F.conv_transpose2d(y, convolution.weight, stride=2, padding=1)
        torch.testing.assert_close((forward * y).sum(), (x * backward).sum(), rtol=1e-4, atol=1e-4)
    assert encoder.net[0] is high


def test_gaussian_head():
    head = GaussianHead(3, 2)
    q = head(torch.randn(4, 5, 3))
    assert (q.batch_shape, q.event_shape) == ((4, 5), (2,))
    nn.init.constant_(head.linear.bias, -1000.0)
    assert float(head(torch.zeros(1, 3)).base_dist.scale.detach().min()) == pytest.approx(1e-4)


def test_diagonal_gaussian_posterior_by_the_standard_interface():
    """Sample, KL to the standard normal, negative log-likelihood and mode, each against an integral or a formula."""
    head = GaussianHead(3, 2).double()
    q = head(torch.randn(3, dtype=torch.float64))
    standard = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2).double(), 1.0), 1)
    z = q.rsample((200_000,))
    assert z.requires_grad
    monte_carlo = (q.log_prob(z) - standard.log_prob(z)).detach()
    kl = torch.distributions.kl_divergence(q, standard)
    assert abs(float((kl - monte_carlo.mean()).detach())) < 5 * float(monte_carlo.std()) / 200_000**0.5
    loc, scale = q.base_dist.loc, q.base_dist.scale
    exact = torch.distributions.MultivariateNormal(loc, torch.diag(scale**2))
    torch.testing.assert_close(-q.log_prob(z[:9]), -exact.log_prob(z[:9]))
    assert torch.equal(q.mode, q.mean)
    assert (q.log_prob(q.mode) >= q.log_prob(z)).all()


@pytest.mark.parametrize("layer", ["plain", "residual"])
def test_layer_is_passed_on_to_convolutional_nets(layer):
    encoder, decoder = parts.make_nets((1, 8, 8), 3, (1, 8, 8), net="conv", hidden=(6,), layer=layer, channels=(2, 3))
    count = 2 if layer == "residual" else 0
    assert [len(blocks(net)) for net in (encoder, decoder)] == [count, count]
    assert decoder(encoder(torch.randn(5, 1, 8, 8))[:, :3]).shape == (5, 1, 8, 8)


def test_default_layers_of_the_gaussian_pair_go_by_the_nets():
    rows = Rows(torch.zeros(4, 1, 8, 8))
    dataset = Dataset("some", rows, rows, rows, "binary")
    dense, conv = (find_pair("gaussian").build(dataset, net=net).guide.encoder for net in ("dense", "conv"))
    assert [(type(layer), layer.linear.out_features) for layer in dense.net.layers] == [(Gated, 600)] * 2
    assert (conv.out_features, blocks(conv)) == (300, [])
    with pytest.raises(ValueError, match=r"got \(300, 300\)"):
        find_pair("gaussian").build(dataset, net="conv", hidden=(300, 300))
    with pytest.raises(ValueError, match="'gated' is not for convolutional nets"):
        find_pair("gaussian").build(dataset, net="conv", layer="gated")


@pytest.mark.parametrize("few", [0, 100])
def test_sums_of_levels(few, monkeypatch):
    """By a product with indicators, or by a table that is looked up: the same sums and gradients."""
    monkeypatch.setattr(tables, "FEW_LEVELS", few)
    levels = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.tensor([[[0, 3], [2, 8]], [[1, 5], [0, 4]]])
    seen = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    found = tables._sums_of_levels(codes, seen, levels)
    assert_close(found, (levels[codes] * seen.unsqueeze(-1)).sum(-2))
    (found.sum(-1) * torch.arange(1.0, 5.0).reshape(2, 2)).sum().backward()
    expected = torch.zeros(9, 4, dtype=torch.float64)
    for place, weight in ((0, 1.0), (3, 1.0), (8, 2.0), (0, 4.0)):
        expected[place] += weight
    assert_close(levels.grad, expected)
