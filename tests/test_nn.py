"""Nets: shapes with leading dimensions, definitions of the layers, weight tying."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrovae.nn import MLP, ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder, Gated, GaussianHead, Residual, TiedMLP
from pyrovae.nn.mlp import ACTIVATIONS, activation_module

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 4, 12)]
leading_dimensions = pytest.mark.parametrize("leading", [(), (5,), (2, 5), (2, 1, 5)], ids=str)


@leading_dimensions
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_leading_dimensions_are_a_loop(kind, shape, leading):
    """Any leading dimensions, none included, give what one datum at a time gives."""
    if kind == "dense":
        encoder, decoder = DenseEncoder(shape, (6,)), DenseDecoder(3, shape, (6,))
    else:
        encoder, decoder = ConvEncoder(shape, (2, 3), 6), ConvDecoder(3, shape, (2, 3), 6)
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
        (lambda: MLP(3, (4, 0)), r"layer sizes must be at least 1, got \[3, 4, 0\]"),
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
