"""The table of distributions for the generic checks: a new distribution is a new row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution

from pyrovae import distributions as dist


@dataclass(frozen=True)
class Case:
    """A class (or a function that builds one), the parameters of a small batch, and what is known about it."""

    cls: Callable[..., Distribution]
    params: dict[str, Any]  # nested lists, turned into tensors of the dtype under test
    points: list  # values inside the support, one row of the batch each: [n, *event]
    twin: Callable[..., Any] | None = None  # frozen scipy distribution from the parameters as numpy arrays
    kwargs: dict[str, Any] = field(default_factory=dict)
    bad_params: list[dict[str, Any]] = field(default_factory=list)
    bad_values: list = field(default_factory=list)
    twin_entropy: bool = True  # False where scipy's own entropy is a sum cut short
    has_mass_at_ends: bool = False  # float64 cannot resolve the whole density: no quadrature
    tolerance: float = 1e-8  # of quadrature in float64, relative to max(1, |truth|)

    @property
    def name(self) -> str:
        extra = "-".join(f"{value}" for value in self.kwargs.values())
        return f"{self.cls.__name__}{extra and '-' + extra}"

    def tensors(self, dtype: torch.dtype = torch.double) -> dict[str, Tensor]:
        return {name: torch.tensor(value, dtype=dtype) for name, value in self.params.items()}

    def build(self, dtype: torch.dtype = torch.double, **kwargs: Any) -> Distribution:
        return self.cls(**self.tensors(dtype), **self.kwargs, **kwargs)

    def build_from(self, params: dict[str, Tensor], **kwargs: Any) -> Distribution:
        return self.cls(**params, **self.kwargs, **kwargs)

    def values(self, distribution: Distribution, dtype: torch.dtype = torch.double) -> Tensor:
        """Points against the batch, `[n, *batch_shape, *event_shape]`."""
        points = torch.tensor(self.points, dtype=dtype)
        event_dim = len(distribution.event_shape)
        shape = points.shape[: points.dim() - event_dim] + (1,) * len(distribution.batch_shape)
        points = points.reshape(shape + distribution.event_shape)
        return points.expand(points.shape[:1] + distribution.batch_shape + distribution.event_shape)

    def scipy(self, dtype: torch.dtype = torch.double) -> Any:
        """The twin at the parameters as `dtype` holds them, so that rounding them is not counted as an error."""
        return self.twin(**{name: value.double().numpy() for name, value in self.tensors(dtype).items()})


def _normal(natural: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    variance = -0.5 / natural[..., 1]
    return natural[..., 0] * variance, np.sqrt(variance)


def kumaraswamy_sticks(concentration1: Tensor, concentration0: Tensor, **kwargs: Any) -> Distribution:
    return dist.StickBreaking(dist.Kumaraswamy(concentration1, concentration0, **kwargs), **kwargs)


def logit_normal_sticks(loc: Tensor, scale: Tensor, **kwargs: Any) -> Distribution:
    return dist.StickBreaking(dist.LogitNormal(loc, scale, **kwargs), **kwargs)


CASES = [
    Case(
        dist.DependentNormal,
        {"loc": [-0.2, 5.0, 0.0], "scale": [0.1, 3.0, 1e-3]},
        points=[-0.3, 0.0, 2.0],
        twin=lambda loc, scale: stats.norm(loc, scale),
        bad_params=[{"scale": [0.1, 0.0, 1.0]}],
        bad_values=[np.nan],
    ),
    Case(
        dist.DiscretizedLogistic,
        {"loc": [-0.2, 0.5, 0.31, 1.1], "scale": [0.1, 0.3, 0.001, 0.05]},
        points=[0.0, 1.0, 7 / 15, 14 / 15],
        kwargs={"num_bins": 16},
        bad_params=[{"scale": [0.1, 0.3, 0.0, 0.05]}, {"loc": [0.0, np.nan, 0.0, 0.0]}],
        bad_values=[-1 / 15, 16 / 15, 0.5],
    ),
    Case(
        dist.NaturalNormal,
        {"natural": [[0.0, -0.5], [12.0, -2.0], [-3.0, -1e-3]]},
        points=[-3.0, 0.0, 0.7, 40.0],
        twin=lambda natural: stats.norm(*_normal(natural)),
        bad_params=[{"natural": [[0.0, -0.5], [12.0, 0.25]]}, {"natural": [1.0, -1.0, 2.0]}],
        bad_values=[np.nan],
    ),
    Case(
        dist.NaturalLogNormal,
        {"natural": [[0.0, -0.5], [12.0, -2.0], [-3.0, -4.0]]},
        points=[1e-5, 0.7, 1.0, 40.0],
        twin=lambda natural: stats.lognorm(s=_normal(natural)[1], scale=np.exp(_normal(natural)[0])),
        bad_params=[{"natural": [[0.0, 0.0]]}],
        bad_values=[-1.0, 0.0],
    ),
    Case(
        dist.NaturalExponential,
        {"natural": [[-0.01], [-1.0], [-300.0]]},
        points=[0.0, 1e-5, 1.0, 3.0],
        twin=lambda natural: stats.expon(scale=-1 / natural[..., 0]),
        bad_params=[{"natural": [[-1.0], [0.0]]}],
        bad_values=[-0.1],
    ),
    Case(
        dist.NaturalGamma,
        {"natural": [[0.2, -0.1], [3.0, -2.0], [1e3, -1e2]]},
        points=[1e-5, 0.5, 9.0, 12.0],
        twin=lambda natural: stats.gamma(natural[..., 0], scale=-1 / natural[..., 1]),
        bad_params=[{"natural": [[1.0, 1.0]]}, {"natural": [[-1.0, -1.0]]}],
        bad_values=[0.0, -2.0],
    ),
    Case(
        dist.NaturalBeta,
        {"natural": [[0.5, 0.7], [2.0, 3.0], [1e3, 4e2]]},
        points=[1e-5, 0.3, 0.7, 1 - 1e-5],
        twin=lambda natural: stats.beta(natural[..., 0], natural[..., 1]),
        bad_params=[{"natural": [[1.0, 0.0]]}],
        bad_values=[0.0, 1.0, 1.5],
    ),
    Case(
        dist.NaturalDirichlet,
        {"natural": [[0.8, 1.0, 2.0], [3.0, 40.0, 5.0]]},
        points=[[0.2, 0.3, 0.5], [0.01, 0.98, 0.01]],
        bad_params=[{"natural": [[1.0, 0.0, 2.0]]}],
        bad_values=[[0.5, 0.6, 0.5], [1.2, -0.1, -0.1]],
    ),
    Case(
        dist.NaturalBernoulli,
        {"natural": [[0.0], [-4.0], [-30.0]]},
        points=[0.0, 1.0],
        twin=lambda natural: stats.bernoulli(1 / (1 + np.exp(-natural[..., 0]))),
        bad_params=[{"natural": [[np.nan]]}],
        bad_values=[0.5, 2.0],
    ),
    Case(
        dist.NaturalCategorical,
        {"natural": [[0.0, 1.0, -3.0], [5.0, -5.0, 0.1]]},
        points=[0, 1, 3],
        bad_params=[{"natural": [[np.nan, 0.0]]}],
        bad_values=[-1, 4],
    ),
    Case(
        dist.NaturalPoisson,
        {"natural": [[-3.0], [0.0], [5.0]]},
        points=[0.0, 1.0, 150.0],
        twin=lambda natural: stats.poisson(np.exp(natural[..., 0])),
        bad_params=[{"natural": [[np.nan]]}],
        bad_values=[-1.0, 0.5],
    ),
    Case(
        dist.NaturalGeometric,
        {"natural": [[-5.0], [-1.0], [-0.01]]},
        points=[0.0, 1.0, 150.0],
        # scipy counts the trials, the library the failures.
        twin=lambda natural: stats.geom(-np.expm1(natural[..., 0]), loc=-1),
        bad_params=[{"natural": [[-1.0], [0.1]]}],
        bad_values=[-1.0, 0.5],
    ),
    *(
        Case(
            dist.NaturalNegativeBinomial,
            {"natural": [[-5.0], [-1.0], [-0.02]]},
            points=[0.0, 1.0, 150.0],
            kwargs={"total_count": count},
            # scipy's probability is that of the outcome that stops the count.
            twin=lambda natural, count=count: stats.nbinom(count, -np.expm1(natural[..., 0])),
            twin_entropy=False,
            bad_params=[{"natural": [[0.0]]}],
            bad_values=[-1.0, 0.5],
        )
        for count in (0.3, 1.0, 12.0)
    ),
    Case(
        dist.OrderedLogits,
        {"predictor": [0.0, 2.5, -30.0], "cutpoints": [-1.0, 0.5, 0.6, 3.0]},
        points=[0, 1, 2, 4],
        bad_params=[{"cutpoints": [-1.0, 0.5, 0.5, 3.0]}, {"predictor": [0.0, np.nan, 0.0]}],
        bad_values=[-1, 5],
    ),
    Case(
        dist.RelaxedBernoulliLogits,
        {"temperature": [0.1, 0.66, 2.0], "logits": [0.0, 3.0, -20.0]},
        points=[-500.0, 0.0, 0.3, 60.0],
        twin=lambda temperature, logits: stats.logistic(logits / temperature, 1 / temperature),
        bad_params=[{"temperature": [0.1, 0.0, 2.0]}],
        bad_values=[np.nan],
    ),
    Case(
        dist.RelaxedOneHotLogProbs,
        {"temperature": [0.1, 1.5], "logits": [[0.0, 1.0, -2.0], [0.3, 0.0, 0.5]]},
        points=[list(np.log([0.2, 0.3, 0.5])), [0.0, -300.0, -41.0]],
        bad_params=[{"temperature": [0.1, -1.0]}, {"logits": [[np.nan, 0.0, 0.0], [0.0, 0.0, 0.0]]}],
        bad_values=[[0.0, 0.0, 0.0], [0.2, 0.3, 0.5]],
    ),
    Case(
        dist.Kumaraswamy,
        {"concentration1": [0.7, 2.0, 30.0], "concentration0": [0.6, 5.0, 20.0]},
        points=[1e-5, 0.3, 0.7, 1 - 1e-5],
        bad_params=[{"concentration1": [0.7, 2.0, 0.0]}, {"concentration0": [-1.0, 2.0, 1.0]}],
        bad_values=[0.0, 1.0],
    ),
    Case(
        dist.Beta,
        {"concentration1": [0.7, 2.0, 30.0], "concentration0": [0.6, 5.0, 20.0]},
        points=[1e-5, 0.3, 0.7, 1 - 1e-5],
        twin=lambda concentration1, concentration0: stats.beta(concentration1, concentration0),
        bad_params=[{"concentration1": [0.7, 2.0, 0.0]}],
        bad_values=[0.0, 1.0],
    ),
    Case(
        dist.LogitNormal,
        {"loc": [0.0, -2.0, 3.0], "scale": [1.0, 0.3, 2.0]},
        points=[1e-5, 0.3, 0.7, 1 - 1e-5],
        bad_params=[{"scale": [1.0, 0.0, 2.0]}],
        bad_values=[0.0, 1.0],
    ),
    Case(
        dist.GammaComposition,
        {"concentration1": [0.5, 0.9, 2.0], "concentration0": [0.7, 0.4, 3.0]},
        points=[1e-6, 0.3, 0.95],
        bad_params=[{"concentration1": [0.5, 0.9, -2.0]}],
        bad_values=[0.0, 1.0],
        tolerance=1e-3,  # the density has a kink, where a quadrature converges slowly
    ),
    Case(
        dist.MultivariateKumaraswamy,
        {"concentration": [[1.2, 1.0, 2.0], [3.0, 8.0, 5.0]]},
        points=[[0.2, 0.3, 0.5], [0.01, 0.98, 0.01]],
        bad_params=[{"concentration": [[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]]}],
        bad_values=[[0.5, 0.6, 0.5], [1.2, -0.1, -0.1]],
        tolerance=1e-6,
    ),
    Case(
        dist.GEM,
        {"concentration": [1.0, 4.0]},
        points=[[0.2, 0.3, 0.5], [0.01, 0.98, 0.01]],
        kwargs={"truncation": 3},
        bad_params=[{"concentration": [1.0, 0.0]}],
        bad_values=[[0.5, 0.6, 0.5], [1.2, -0.1, -0.1]],
    ),
    Case(
        kumaraswamy_sticks,
        {"concentration1": [[1.2, 2.0], [3.0, 1.5]], "concentration0": [[2.0, 1.0], [4.0, 0.8]]},
        points=[[0.2, 0.3, 0.5], [0.01, 0.98, 0.01]],
        bad_values=[[0.5, 0.6, 0.5]],
        tolerance=1e-6,
    ),
    Case(
        logit_normal_sticks,
        {"loc": [[0.0, 0.5], [-1.0, 0.3]], "scale": [[1.0, 0.5], [0.3, 2.0]]},
        points=[[0.2, 0.3, 0.5], [0.01, 0.98, 0.01]],
        bad_values=[[0.5, 0.6, 0.5]],
    ),
    Case(
        dist.DiagonalGaussianMixture,
        {
            "logits": [0.0, 1.0, -1.0],
            "loc": [[0.0, 1.0], [-2.0, 0.5], [3.0, 3.0]],
            "scale": [[1.0, 0.5], [0.7, 0.9], [0.6, 2.0]],
        },
        points=[[0.2, 0.3], [-4.0, 9.0]],
        bad_params=[{"scale": [[1.0, 0.5], [0.7, 0.0], [0.6, 2.0]]}, {"logits": [0.0, np.nan, 0.0]}],
        bad_values=[[0.0, np.nan]],
        tolerance=1e-6,
    ),
]
