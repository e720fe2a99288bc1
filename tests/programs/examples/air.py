"""Attend, infer, repeat: pictures of a few digits, each drawn by a step that is present or not."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from sklearn.datasets import load_digits
from torch import nn

from pyrovae import VAE

SIZE, WINDOW, STEPS = 24, 8, 3


def scenes(num: int, seed: int = 0, *, most: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `[num, 24, 24]` of 0 to `most` digits that do not overlap, and how many digits are in each."""
    generator = torch.Generator().manual_seed(seed)
    digits = torch.tensor(load_digits().images, dtype=torch.get_default_dtype()) / 16
    half = digits[seed % 2 :: 2]  # pictures of another seed hold other digits
    x, counts = torch.zeros(num, SIZE, SIZE), torch.randint(most + 1, (num,), generator=generator)
    for picture, count in zip(x, counts.tolist(), strict=True):
        taken: list[torch.Tensor] = []
        while len(taken) < count:
            corner = torch.randint(SIZE - WINDOW + 1, (2,), generator=generator)
            if all((corner - other).abs().max() >= WINDOW for other in taken):
                taken.append(corner)
                row, column = corner.tolist()
                which = torch.randint(len(half), (1,), generator=generator).item()
                picture[row : row + WINDOW, column : column + WINDOW] = half[which]
    return x, counts


def paste(window: torch.Tensor, where: torch.Tensor, scale: float = SIZE / WINDOW) -> torch.Tensor:
    """Put windows `[..., W, W]` into empty pictures, with their middle at `where` `[..., 2]` (x, y in -1 to 1)."""
    return _warp(window, scale, -scale * where, SIZE)


def glimpse(x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Cut the window around `where` out of pictures `[..., 24, 24]`."""
    return _warp(x, WINDOW / SIZE, where, WINDOW)


def _warp(x: torch.Tensor, scale: float, shift: torch.Tensor, size: int) -> torch.Tensor:
    batch = torch.broadcast_shapes(x.shape[:-2], shift.shape[:-1])
    x = x.expand(*batch, *x.shape[-2:]).flatten(0, -3).unsqueeze(1)
    shift = shift.expand(*batch, 2).reshape(-1, 2, 1)
    turn = scale * torch.eye(2).to(x)
    theta = torch.cat([turn.expand(len(x), 2, 2), shift], -1)
    grid = F.affine_grid(theta, [len(x), 1, size, size], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).reshape(*batch, size, size)


class Scene(PyroModule):
    """Each step is there or not, the later ones only after the earlier ones; it has a place and looks."""

    def __init__(self, what_dim: int = 8, hidden: int = 64, presence: float = 0.3, noise: float = 0.3):
        super().__init__()
        self.what_dim, self.presence, self.noise = what_dim, presence, noise
        self.decoder = nn.Sequential(nn.Linear(what_dim, hidden), nn.ReLU(), nn.Linear(hidden, WINDOW**2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            canvas, present = torch.zeros_like(x), x.new_ones(len(x))
            for t in range(1, STEPS + 1):
                present = pyro.sample(f"present_{t}", dist.Bernoulli(self.presence * present))
                shown = present.bool()
                where = pyro.sample(f"where_{t}", dist.Normal(x.new_zeros(2), 0.5).to_event(1).mask(shown))
                zero = x.new_zeros(self.what_dim)
                what = pyro.sample(f"what_{t}", dist.Normal(zero, 1.0).to_event(1).mask(shown))
                window = (self.decoder(what) - 1).sigmoid().unflatten(-1, (WINDOW, WINDOW))
                canvas = canvas + present[..., None, None] * paste(window, where)
            pyro.sample("x", dist.Normal(canvas, self.noise).to_event(2), obs=x)


class Attention(PyroModule):
    """Looks for a digit, covers it up, and looks again."""

    def __init__(self, what_dim: int = 8, hidden: int = 64, channels: int = 16):
        super().__init__()
        self.filters = nn.Conv2d(1, channels, WINDOW)
        self.heat = nn.Conv2d(channels, 1, 1)
        self.tilt = nn.Parameter(torch.randn(2))
        self.present = nn.Linear(2 * channels, 1)
        self.spread = nn.Parameter(torch.tensor(-2.5))
        self.encoder = nn.Sequential(nn.Linear(WINDOW**2, hidden), nn.ReLU(), nn.Linear(hidden, 2 * what_dim))
        edge = (SIZE - WINDOW) / SIZE
        line = torch.linspace(-edge, edge, SIZE - WINDOW + 1)
        self.register_buffer("places", torch.cartesian_prod(line, line).flip(-1))  # (x, y) of every middle

    def look(self, rest):
        """Logit of a digit in what is left of the pictures, and where it is."""
        features = self.filters(rest.reshape(-1, 1, SIZE, SIZE)).relu()
        heat = self.heat(features).flatten(1) + self.places @ self.tilt
        where = heat.softmax(-1) @ self.places
        features = features.flatten(2)
        logit = self.present(torch.cat([features.amax(-1), features.mean(-1)], -1))
        return logit.reshape(rest.shape[:-2]), where.reshape(*rest.shape[:-2], 2)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            rest, present = x, x.new_ones(len(x))
            for t in range(1, STEPS + 1):
                logit, middle = self.look(rest)
                present = pyro.sample(f"present_{t}", dist.Bernoulli(logit.sigmoid() * present))
                shown = present.bool()
                place = dist.Normal(middle, F.softplus(self.spread))
                where = pyro.sample(f"where_{t}", place.to_event(1).mask(shown))
                loc, raw = self.encoder(glimpse(x, where).flatten(-2)).chunk(2, -1)
                pyro.sample(f"what_{t}", dist.Normal(loc, F.softplus(raw) + 1e-3).to_event(1).mask(shown))
                cover = paste(x.new_ones(WINDOW, WINDOW), where, SIZE / (WINDOW + 2))
                rest = rest * (1 - present[..., None, None] * cover)


def make_vae() -> VAE:
    """AIR for the pictures of `scenes`."""
    return VAE(Scene(), Attention())


@torch.no_grad()
def counted(vae: VAE, x: torch.Tensor) -> torch.Tensor:
    """The number of digits in each picture that the guide finds most probable, step by step."""
    found = torch.zeros(len(x))
    rest, still = x, torch.ones(len(x))
    for _ in range(STEPS):
        logit, where = vae.guide.look(rest)
        still = still * (logit > 0)
        found = found + still
        cover = paste(torch.ones(WINDOW, WINDOW), where, SIZE / (WINDOW + 2))
        rest = rest * (1 - still[..., None, None] * cover)
    return found.long()
