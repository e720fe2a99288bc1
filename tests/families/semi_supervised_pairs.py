"""Small semi-supervised pairs, also with common random numbers for every class."""

import torch
from pairs import LIKELIHOODS
from pyro.distributions import Normal
from torch import nn

from pyrovae import VAE
from pyrovae.guides import Classifier, LabelledEncoder, SemiSupervisedGuide
from pyrovae.guides.sticks import KumaraswamyHead
from pyrovae.models import SemiSupervisedVAE
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder, GaussianHead
from pyrovae.priors import StandardNormal, StickBreakingPrior

SHAPE, CLASSES, ROWS = (1, 4, 4), 3, 7
LABELS = torch.tensor([0, -1, 2, -1, -1, 1, 0])


class FixedNormal(Normal):
    """A normal distribution whose draw is the same function of its parameters every time."""

    noise: torch.Tensor

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(FixedNormal, _instance)
        new.noise = self.noise
        return super().expand(batch_shape, _instance=new)


class FixedHead(nn.Module):
    """A Gaussian head with common random numbers: one noise for each row, whatever its class."""

    def __init__(self, in_features: int, latent_dim: int):
        super().__init__()
        self.head = GaussianHead(in_features, latent_dim)
        self.noise = torch.randn(ROWS, latent_dim)

    def forward(self, features):
        base = self.head(features).base_dist
        fixed = FixedNormal(base.loc, base.scale)
        fixed.noise = self.noise
        return fixed.to_event(1)


def make_pair(
    latent="gaussian", *, fixed=False, weight=0.0, net="dense", shape=SHAPE, likelihood="bernoulli", **options
):
    torch.manual_seed(0)
    head = LIKELIHOODS[likelihood](shape)
    if latent == "gaussian":
        prior, size, draw = StandardNormal(2), 2, (FixedHead if fixed else GaussianHead)(8, 2)
    else:
        prior, size, draw = StickBreakingPrior(4, 2.0), 4, KumaraswamyHead(8, 4, 2.0)
    if net == "conv":
        encoders = [ConvEncoder(shape, (3, 4), 8) for _ in range(2)]
        decoder = ConvDecoder(size + CLASSES, head.raw_shape, (3, 4), 8)
    else:
        encoders = [DenseEncoder(shape, (8,), layer="residual") for _ in range(2)]
        decoder = DenseDecoder(size + CLASSES, head.raw_shape, (8,))
    model = SemiSupervisedVAE(CLASSES, prior, decoder, head, **options)
    guide = SemiSupervisedGuide(
        Classifier(encoders[0], CLASSES),
        LabelledEncoder(encoders[1], CLASSES, 8, activation="tanh"),
        draw,
        classification_weight=weight,
    )
    # Class probabilities that are far from equal, so that a wrong weight of a class shows.
    with torch.no_grad():
        guide.classifier.linear.weight.mul_(5)
        if options.get("learn_class_prior"):
            model.class_logits.copy_(torch.tensor([0.5, -1.0, 0.2]))
    return VAE(model, guide)
