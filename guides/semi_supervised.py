"""The guide of semi-supervised learning with a partly observed class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from pyro.distributions import Categorical
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.distributions.labels import KnownLabels, labelled_logits
from pyrovae.nn.mlp import LAYERS, activation_module
from pyrovae.sites import objective_term


class Classifier(nn.Module):
    """Class logits from data, `[B, ...]` -> `[B, num_classes]`: the net of q(y|x).

    Args:
        encoder: a module from data to features `[B, out_features]`, with that attribute.
        num_classes: number of classes.
        dropout: probability of dropping a feature in training.
        noise: standard deviation of the normal noise that is added to the data in training, in their units.
        shift: in training, pictures `[B, C, H, W]` are moved by up to so many pixels in both directions, each by its
            own number, with zeros coming in; the model and the other parts of the guide see them as they are.

    Raises:
        ValueError: for negative numbers; when run, for data that are no pictures if they are to be moved.

    >>> from pyrovae.nn import DenseEncoder
    >>> Classifier(DenseEncoder((1, 4, 4), (8,)), 3)(torch.zeros(5, 1, 4, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, encoder: nn.Module, num_classes: int, *, dropout: float = 0.0, noise: float = 0.0, shift: int = 0
    ) -> None:
        super().__init__()
        if noise < 0 or shift < 0:
            raise ValueError(f"noise and shift must not be negative, got {noise} and {shift}")
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(encoder.out_features, num_classes)
        self.noise, self.shift = noise, shift

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        if self.shift and self.training:
            x = moved(x, self.shift)
        if self.noise and self.training:
            x = x + self.noise * torch.randn_like(x)
        return self.linear(self.dropout(self.encoder(x)))


def moved(x: Tensor, most: int) -> Tensor:
    """Pictures `[B, C, H, W]`, each moved at random by up to `most` pixels down or up and to the right or left.

    Raises:
        ValueError: for other data.
    """
    if x.dim() != 4:
        raise ValueError(f"only pictures [B, C, H, W] can be moved, got data of shape {tuple(x.shape)}")
    rows, _, height, width = x.shape
    padded = F.pad(x, (most, most, most, most))
    down, right = torch.randint(2 * most + 1, (2, rows, 1), device=x.device)
    vertical = (down + torch.arange(height, device=x.device)).reshape(rows, 1, height, 1)
    horizontal = (right + torch.arange(width, device=x.device)).reshape(rows, 1, 1, width)
    datum = torch.arange(rows, device=x.device).reshape(rows, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).reshape(1, -1, 1, 1)
    return padded[datum, channel, vertical, horizontal]


class LabelledEncoder(nn.Module):
    """A hidden layer on features `e(x)` of the data and on the label, of size `hidden`.

    It is `f(W e(x) + V[y])` if plain, `e(x) + f(W e(x) + V[y])` if residual (without the skip where sizes differ), and
    `(W e(x) + V[y]) * sigmoid(W' e(x) + V'[y])` if gated. The features and their product with `W` (and `W'`) are
    computed once for all classes that the label goes through.

    Args:
        encoder: a module from data `[B, ...]` to features `[B, out_features]`, with that attribute; None takes the
            entries of the data themselves, of which there are `in_features`.
        num_classes: number of classes.
        hidden: size of the layer.
        activation: its activation, as for `MLP`; a gated layer has none.
        layer: "plain", "gated" or "residual".
        dropout: probability of dropping a unit of the layer in training.
        in_features: number of entries of a datum, where there is no encoder.

    Raises:
        ValueError: for an unknown layer or activation.

    >>> encoder = LabelledEncoder(None, 3, 8, in_features=16)
    >>> encoder(torch.zeros(5, 1, 4, 4), torch.arange(3).unsqueeze(-1)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        num_classes: int,
        hidden: int,
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        layer: str = "plain",
        dropout: float = 0.0,
        in_features: int | None = None,
    ) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}; known are {', '.join(LAYERS)}")
        self.encoder = nn.Flatten() if encoder is None else encoder
        num_features = in_features if encoder is None else encoder.out_features
        width = 2 * hidden if layer == "gated" else hidden
        self.linear = nn.Linear(num_features, width)
        self.by_label = nn.Parameter(torch.randn(num_classes, width) * hidden**-0.5)
        self.activation = nn.GLU() if layer == "gated" else activation_module(activation)
        self.skip = layer == "residual" and num_features == hidden
        self.dropout = nn.Dropout(dropout)
        self.out_features = hidden

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The layer at data `[B, ...]` and labels `[..., B]` or `[..., 1]`."""
        features = self.encoder(x)
        out = self.activation(self.linear(features) + F.embedding(label, self.by_label))
        return self.dropout(features + out if self.skip else out)


class SemiSupervisedGuide(PyroModule):
    """q(y|x) q(z|x,y), with all probability of `y` on the label where that is known.

    Sites: `y` and `z` in the plate "data", dimension -1; missing entries of the data enter as zeros. Under
    `TraceEnum_ELBO` the bound is summed exactly over the classes of the rows without a label (y = -1, or no labels at
    all); labelled rows of a mixed batch are summed too, with weights that are exactly 0 and 1, and a batch of labelled
    rows costs no more than without classes. Under other objectives, and in the methods of `VAE`, `y` is drawn.

    A known label teaches the classifier nothing by the bound, as q(y|x) is not used there. So in training mode the
    objective of a labelled row also has the term `classification_weight * log q(y|x)`, as a factor of this guide. Log
    weights of the pair, and with them `VAE.log_likelihood`, leave it out.

    Args:
        classifier: a module from data `[B, ...]` to class logits `[B, num_classes]`, such as `Classifier`.
        encoder: a module from data and labels to features, such as `LabelledEncoder`.
        head: a module from these features to the distribution of `z`, such as `GaussianHead`.
        classification_weight: of the log-probability of a label; the beta of the reference, whose choice is 0.1 times
            the number of all rows over that of labelled ones.

    Raises:
        ValueError: for a negative weight; when run, for labels that are no class.

    Reference: Kingma, Rezende, Mohamed and Welling (2014), equations 4, 6, 7 and 9.

    >>> from pyrovae.nn import DenseEncoder, GaussianHead
    >>> classifier = Classifier(DenseEncoder((1, 4, 4), (8,)), 3)
    >>> guide = SemiSupervisedGuide(classifier, LabelledEncoder(None, 3, 8, in_features=16), GaussianHead(8, 2))
    >>> guide(torch.zeros(5, 1, 4, 4), y=torch.tensor([0, 1, 2, -1, -1])).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, classifier: nn.Module, encoder: nn.Module, head: nn.Module, *, classification_weight: float = 0.0
    ) -> None:
        super().__init__()
        if not classification_weight >= 0:
            raise ValueError(f"classification_weight must not be negative, got {classification_weight}")
        self.classifier = classifier
        self.encoder = encoder
        self.head = head
        self.classification_weight = classification_weight

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `index` is not used."""
        if mask is not None:
            x = torch.where(mask, x, 0.0)
        with pyro.plate("data", len(x), dim=-1):
            label = self._label(self.classifier(x), y)
            return pyro.sample("z", self.head(self.encoder(x, label)))

    def _label(self, logits: Tensor, y: Tensor | None) -> Tensor:
        infer: dict[str, Any] = {"enumerate": "parallel"}
        if y is None:
            return pyro.sample("y", Categorical(logits=logits), infer=infer)
        lowest, highest = torch.stack(y.aminmax()).tolist()
        if highest >= logits.shape[-1]:
            raise ValueError(f"y holds the label {highest}, and the classes are 0 to {logits.shape[-1] - 1}")
        if self.training and self.classification_weight and highest >= 0:
            chosen = logits.log_softmax(-1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            objective_term("classification", self.classification_weight * torch.where(y >= 0, chosen, 0.0))
        if lowest >= 0:
            return pyro.sample("y", KnownLabels(y, logits.shape[-1], dtype=logits.dtype), infer=infer)
        return pyro.sample("y", Categorical(logits=labelled_logits(logits, y)), infer=infer)
