"""The guide of semi-supervised learning with a partly observed class."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pyro
import torch
import torch.nn.functional as F
from pyro.distributions import Categorical
from pyro.nn import PyroModule
from pyro.poutine.runtime import InferDict
from torch import Tensor, nn

from pyrovae.distributions.labels import KnownLabels, checked_range, labelled_logits
from pyrovae.masks import fill_missing
from pyrovae.nn import encoded
from pyrovae.nn.consistency import adversarial_divergence
from pyrovae.nn.encoders import num_features
from pyrovae.nn.mlp import LAYERS, activation_module
from pyrovae.sites import objective_term


class Classifier(nn.Module):
    """Class logits from data, ``[B, ...]`` -> ``[B, num_classes]``: the net of q(y|x).

    Parameters
    ----------
    encoder : Module
        From data to features ``[B, out_features]``, with the attribute `out_features`.
    num_classes : int
        Number of classes.
    dropout : float, default 0.0
        Probability of dropping a feature in training.
    noise : float, default 0.0
        Standard deviation of normal noise that is added to the data in training, in their units.
    shift : int, default 0
        In training, each picture ``[C, H, W]`` is moved at random by up to so many pixels, down or up and left or
        right. Zeros come in from outside. The model and the other parts of the guide see the pictures as they are.

    Raises
    ------
    ValueError
        A number is out of range. When run: the data are to be moved and are not pictures.

    Examples
    --------
    >>> import torch
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
        self.linear = nn.Linear(num_features(encoder), num_classes)
        self.noise, self.shift = noise, shift

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the logits ``[B, num_classes]`` of data ``[B, ...]``."""
        if self.training and (self.shift or self.noise):
            x = fill_missing(x, mask, 0.0)
            if self.shift:
                x, mask = moved(x, self.shift, mask)
            if self.noise:
                x = x + self.noise * torch.randn_like(x)
        return self.linear(self.dropout(encoded(self.encoder, x, mask)))


def moved(x: Tensor, most: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Move each picture, and its mask with it, at random by up to `most` pixels in both directions.

    Parameters
    ----------
    x : Tensor, shape ``[B, C, H, W]``
        Pictures. Zeros come in from outside.
    most : int
        Largest shift, in pixels.
    mask : Tensor of bool, shape of `x`, optional
        True where an entry is observed. The pixels that come in count as observed.

    Returns
    -------
    Tensor, shape of `x`
        The moved pictures.
    Tensor of bool, shape of `x`, or None
        Their mask.

    Raises
    ------
    ValueError
        The data are not pictures.
    """
    if x.dim() != 4:
        raise ValueError(f"only pictures [B, C, H, W] can be moved, got data of shape {tuple(x.shape)}")
    rows, _, height, width = x.shape
    down, right = torch.randint(2 * most + 1, (2, rows, 1), device=x.device)
    vertical = (down + torch.arange(height, device=x.device)).reshape(rows, 1, height, 1)
    horizontal = (right + torch.arange(width, device=x.device)).reshape(rows, 1, 1, width)
    datum = torch.arange(rows, device=x.device).reshape(rows, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).reshape(1, -1, 1, 1)
    margin = (most, most, most, most)
    place = (datum, channel, vertical, horizontal)
    return F.pad(x, margin)[place], None if mask is None else F.pad(mask, margin, value=True)[place]


class LabelledEncoder(nn.Module):
    """A hidden layer on features of the data and on the label, with `hidden` units.

    Use it as the encoder of `SemiSupervisedGuide`.

    Parameters
    ----------
    encoder : Module
        From data ``[B, ...]`` and their mask to features e(x), ``[B, out_features]``, with the attribute
        `out_features`. `FlatEncoder` takes the entries of the data themselves.
    num_classes : int
        Number of classes.
    hidden : int
        Size of the layer.
    activation : str or callable, default "relu"
        Activation f, as for `MLP`. A gated layer does not use it.
    layer : {"plain", "gated", "residual"}, default "plain"
        Kind of layer, see the notes.
    dropout : float, default 0.0
        Probability of dropping a unit of the layer in training.

    Raises
    ------
    ValueError
        The layer or its activation is unknown.

    Notes
    -----
    A plain layer computes ``f(W e(x) + b + V[y])``. A residual one adds e(x) where the sizes agree. A gated one
    computes ``(W e(x) + b + V[y]) * sigmoid(W' e(x) + b' + V'[y])``. For labels ``[C, 1]``, one of each class, the
    features and their products with W and W' are computed once, not once per class.

    Examples
    --------
    >>> import torch
    >>> from pyrovae.nn import FlatEncoder
    >>> encoder = LabelledEncoder(FlatEncoder((1, 4, 4)), 3, 8)
    >>> encoder(torch.zeros(5, 1, 4, 4), torch.arange(3).unsqueeze(-1)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int,
        hidden: int,
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        layer: str = "plain",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}; known are {', '.join(LAYERS)}")
        self.encoder = encoder
        in_features = num_features(encoder)
        width = 2 * hidden if layer == "gated" else hidden
        self.linear = nn.Linear(in_features, width)
        self.by_label = nn.Parameter(torch.randn(num_classes, width) * hidden**-0.5)
        self.activation = nn.GLU() if layer == "gated" else activation_module(activation)
        self.skip = layer == "residual" and in_features == hidden
        self.dropout = nn.Dropout(dropout)
        self.out_features = hidden

    def forward(self, x: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the layer ``[..., B, hidden]`` at data ``[B, ...]`` and labels ``[..., B]`` or ``[..., 1]``."""
        features = encoded(self.encoder, x, mask)
        out = self.activation(self.linear(features) + F.embedding(label, self.by_label))
        return self.dropout(features + out if self.skip else out)


class SemiSupervisedGuide(PyroModule):
    """The guide q(y|x) q(z|x,y) of data with few labels. Where a label is known, `y` is that label with probability 1.

    Use it with `SemiSupervisedVAE` and the objective "enum". Sites: `y` and `z` in the plate "data", dimension -1.

    Parameters
    ----------
    classifier : Module
        From data ``[B, ...]`` to class logits ``[B, num_classes]``, such as `Classifier`.
    encoder : Module
        From data and labels to features, such as `LabelledEncoder`.
    head : Module
        From these features to the distribution of `z`, such as `GaussianHead`.
    classification_weight : float, default 0.0
        Weight of the log-probability of a known label, not negative. Kingma et al. (2014) choose 0.1 times the number
        of all rows over that of labelled ones.
    consistency_weight : float, default 0.0
        Weight of the consistency of q(y|x), not negative. It makes the classes change where there are few data.
    consistency_radius : float, optional
        Distance within which q(y|x) is to be the same, in the units of the data, such as half of
        `pyrovae.nn.consistency.neighbour_distance`. It is stored with the weights. None stands for one that is read
        from there; until then nothing can be trained.

    Raises
    ------
    ValueError
        A weight or the radius is negative. When run: a label is not one of the classes.

    Notes
    -----
    With "enum" (`TraceEnum_ELBO`) the bound is summed exactly over the classes of unlabelled rows: those with y = -1,
    or all where no labels are given. In a mixed batch labelled rows are summed too, with weights that are exactly 0 and
    1. A batch of labelled rows alone costs no more than without classes. Under other objectives, and in the methods of
    `VAE`, `y` is drawn.

    The bound of a labelled row does not use q(y|x), so it teaches the classifier nothing. Therefore in training mode
    the objective of a labelled row has one more term, `classification_weight` times log q(y|x). It is a factor of this
    guide. `VAE.log_likelihood` leaves it out.

    In training mode the objective of every row also has the term -`consistency_weight` times KL(q(y|x) || q(y|x + r)),
    where r is the step of length `consistency_radius` that changes q most, see
    `pyrovae.nn.consistency.adversarial_divergence`. Missing entries are not moved.

    References
    ----------
    D. Kingma, D. Rezende, S. Mohamed and M. Welling (2014), "Semi-supervised learning with deep generative models",
    equations 4, 6, 7 and 9. T. Miyato, S. Maeda, M. Koyama and S. Ishii (2018), "Virtual adversarial training: a
    regularization method for supervised and semi-supervised learning".

    Examples
    --------
    >>> from pyrovae.nn import DenseEncoder, FlatEncoder, GaussianHead
    >>> classifier = Classifier(DenseEncoder((1, 4, 4), (8,)), 3)
    >>> guide = SemiSupervisedGuide(classifier, LabelledEncoder(FlatEncoder((1, 4, 4)), 3, 8), GaussianHead(8, 2))
    >>> guide(torch.zeros(5, 1, 4, 4), y=torch.tensor([0, 1, 2, -1, -1])).shape
    torch.Size([5, 2])
    """

    radius: Tensor

    def __init__(
        self,
        classifier: nn.Module,
        encoder: nn.Module,
        head: nn.Module,
        *,
        classification_weight: float = 0.0,
        consistency_weight: float = 0.0,
        consistency_radius: float | None = None,
    ) -> None:
        super().__init__()
        if not classification_weight >= 0:
            raise ValueError(f"classification_weight must not be negative, got {classification_weight}")
        if not 0 <= consistency_weight < math.inf:
            raise ValueError(f"consistency_weight must be finite and not negative, got {consistency_weight}")
        if consistency_radius is not None and not 0 <= consistency_radius < math.inf:
            raise ValueError(f"consistency_radius must be finite and not negative, got {consistency_radius}")
        self.classifier = classifier
        self.encoder = encoder
        self.head = head
        self.classification_weight = classification_weight
        self.consistency_weight = consistency_weight
        if consistency_weight:
            unknown = math.nan if consistency_radius is None else consistency_radius
            self.register_buffer("radius", torch.tensor(unknown))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `index` is not used."""
        with pyro.plate("data", len(x), dim=-1):
            logits = encoded(self.classifier, x, mask)
            if self.training and self.consistency_weight:
                filled = x if mask is None else fill_missing(x, mask, 0.0)
                inside = partial(encoded, self.classifier, mask=mask)
                change = adversarial_divergence(inside, filled, logits, self.radius)
                objective_term("consistency", -self.consistency_weight * change)
            label = self._label(logits, y)
            return pyro.sample("z", self.head(self.encoder(x, label, mask)))

    def _label(self, logits: Tensor, y: Tensor | None) -> Tensor:
        infer: InferDict = {"enumerate": "parallel"}
        if y is None:
            return pyro.sample("y", Categorical(logits=logits), infer=infer)
        lowest, highest = checked_range(y, logits.shape[-1], len(logits))
        if self.training and self.classification_weight and highest >= 0:
            chosen = logits.log_softmax(-1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            objective_term("classification", self.classification_weight * torch.where(y >= 0, chosen, 0.0))
        if lowest >= 0:
            return pyro.sample("y", KnownLabels(y, logits.shape[-1], dtype=logits.dtype), infer=infer)
        return pyro.sample("y", Categorical(logits=labelled_logits(logits, y)), infer=infer)
