"""A decoder of landmarks with a 3-D shape and a camera: structure from motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.nn.mlp import MLP

CAMERAS = ("orthographic", "perspective")


class ShapeProjector(nn.Module):
    """From a latent to a 3-D shape and a 4x3 projection, and to the landmarks that a camera sees, ``[..., L, 2]``.

    Use it as the decoder of `ProjectedShapes`. The first part of the latent makes the shape, the rest the projection.

    Parameters
    ----------
    num_landmarks : int
        Number L of landmarks.
    shape_latents, camera_latents : int
        Sizes of the two parts of the latent.
    hidden : sequence of int, default (64,)
        Hidden layers of both nets.
    camera : {"orthographic", "perspective"}, default "orthographic"
        "orthographic" turns the shape, drops its depth, scales and shifts it. Then the shape is known up to its pose,
        its scale, and a mirror image in depth. "perspective" is any 4x3 matrix with a positive last coordinate, as in
        the auto-decoder's original. It fits the same landmarks, and leaves the shape unknown up to a projective map.
    mean_shape : Tensor, shape ``[L, 3]``, optional
        Where the mean shape starts, such as `shape_of_views`. A good start matters: shape and camera are found
        together, and can settle on a wrong pair. None draws it.
    **options
        Options of `MLP`.

    Raises
    ------
    ValueError
        For sizes below 1, another camera, and a mean shape of another size.

    Notes
    -----
    With homogeneous coordinates, ``[u, v, w] = [x, y, z, 1] @ P`` for each point, and the landmark is ``(u/w, v/w)``.
    The rotation is the Gram-Schmidt basis of two predicted vectors, which has no jumps.

    References
    ----------
    A. Zadeh, Y. Lim, P. P. Liang and L.-P. Morency (2019), "Variational auto-decoder", section 4. Y. Zhou, C. Barnes,
    J. Lu, J. Yang and H. Li (2019), "On the continuity of rotation representations in neural networks", equation 15.

    Examples
    --------
    >>> projector = ShapeProjector(24, shape_latents=3, camera_latents=5)
    >>> z = torch.zeros(7, 8)
    >>> projector(z).shape, projector.shapes(z).shape, projector.projections(z).shape
    (torch.Size([7, 24, 2]), torch.Size([7, 24, 3]), torch.Size([7, 4, 3]))
    """

    def __init__(
        self,
        num_landmarks: int,
        shape_latents: int,
        camera_latents: int,
        hidden: Sequence[int] = (64,),
        *,
        camera: str = "orthographic",
        mean_shape: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if min(num_landmarks, shape_latents, camera_latents) < 1:
            raise ValueError(
                "num_landmarks, shape_latents and camera_latents must be at least 1, got "
                f"{num_landmarks}, {shape_latents} and {camera_latents}"
            )
        if camera not in CAMERAS:
            raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, got {camera!r}")
        self.num_landmarks, self.shape_latents, self.camera = num_landmarks, shape_latents, camera
        self.latent_dim = shape_latents + camera_latents
        start = 0.3 * torch.randn(num_landmarks, 3) if mean_shape is None else mean_shape.clone()
        if start.shape != (num_landmarks, 3):
            raise ValueError(f"mean_shape must be {(num_landmarks, 3)}, got {tuple(start.shape)}")
        self.mean_shape = nn.Parameter(start)
        shape_net, camera_net = MLP(shape_latents, hidden, **options), MLP(camera_latents, hidden, **options)
        last = nn.Linear(shape_net.out_features, 3 * num_landmarks)
        self.shape_net = nn.Sequential(shape_net, last)
        self.camera_net = nn.Sequential(camera_net, nn.Linear(camera_net.out_features, 12))
        with torch.no_grad():  # deformations start small, so that the camera explains first what it can
            last.weight.mul_(0.1)
            last.bias.zero_()

    def shapes(self, z: Tensor) -> Tensor:
        """The 3-D shapes of latents ``[..., latent_dim]``, ``[..., L, 3]``, before the camera turns them."""
        deformed = self.shape_net(z[..., : self.shape_latents])
        return self.mean_shape + deformed.reshape(*z.shape[:-1], self.num_landmarks, 3)

    def projections(self, z: Tensor) -> Tensor:
        """The projections of latents ``[..., latent_dim]``, ``[..., 4, 3]``."""
        raw = self.camera_net(z[..., self.shape_latents :])
        if self.camera == "perspective":
            straight = torch.eye(4, 3, dtype=raw.dtype, device=raw.device)
            straight[2, 2] = 0.0
            return raw.reshape(*raw.shape[:-1], 4, 3) + straight
        first, second = _two_axes(raw[..., :3], raw[..., 3:6])
        turned = torch.stack([first, second, torch.zeros_like(first)], -1) * raw[..., 6, None, None].exp()
        shift = torch.cat([raw[..., 7:9], torch.ones_like(raw[..., :1])], -1)
        return torch.cat([turned, shift.unsqueeze(-2)], -2)

    def forward(self, z: Tensor) -> Tensor:
        """The landmarks that the camera sees, ``[..., L, 2]``."""
        shapes, projections = self.shapes(z), self.projections(z)
        seen = shapes @ projections[..., :3, :] + projections[..., 3:, :]
        if self.camera == "orthographic":
            return seen[..., :2]
        return seen[..., :2] / (F.softplus(seen[..., 2:] + 0.5413) + 1e-2)  # the softplus of 0.5413 is 1


def _two_axes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two orthonormal vectors ``[..., 3]`` from any two, the axes x and y where both are zero."""
    x, y = (torch.eye(3, dtype=first.dtype, device=first.device)[axis] for axis in (0, 1))
    first = F.normalize(first + x, dim=-1)
    second = second + y
    return first, F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)


def shape_of_views(x: Tensor) -> Tensor:
    """A first guess of a rigid 3-D shape from views of it: the mean view, and a depth from how views differ.

    Parameters
    ----------
    x : Tensor, shape ``[N, L, 2]``
        Landmarks of N views by cameras that look from about the same side.

    Returns
    -------
    Tensor, shape ``[L, 3]``
        The shape. Its depth has the size of its width and height, and may be mirrored.

    Notes
    -----
    The coordinates of all views are, up to noise and deformation, combinations of the three of the shape. The mean view
    gives two of them, and the first principal component of the rest the third.

    References
    ----------
    C. Tomasi and T. Kanade (1992), "Shape and motion from image streams under orthography: a factorization method".

    Examples
    --------
    >>> shape_of_views(torch.randn(50, 24, 2)).shape
    torch.Size([24, 3])
    """
    centred = x - x.mean(1, keepdim=True)
    front = centred.mean(0)
    basis, _ = torch.linalg.qr(front)
    coordinates = centred.transpose(1, 2).reshape(-1, x.shape[1])
    rest = coordinates - coordinates @ basis @ basis.T
    _, vectors = torch.linalg.eigh(rest.T @ rest)
    size = front.square().sum(0).mean().sqrt()
    return torch.cat([front, (size * vectors[:, -1]).unsqueeze(1)], 1)
