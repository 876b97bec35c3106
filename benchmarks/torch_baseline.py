"""Do the benchmarked computations in plain PyTorch, as most published code does: an optional opponent.

Nothing in the library needs PyTorch. ``benchmarks.spine`` compares with this module where ``torch`` can be imported.
Weights are those of our network, so that the two also check each other.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import grad, jacrev, jvp, vjp, vmap


def network(params: Any) -> nn.Module:
    """Build our ``ConvNet`` (average pooling, softplus 10) with the same weights in PyTorch."""
    act = nn.Softplus(beta=10)
    channels, flat = np.shape(params["Conv_0"]["kernel"])[2], np.shape(params["Dense_0"]["kernel"])[0]
    shapes = [(channels, 32), (32, 32), (32, 64), (64, 64)]
    convolutions = [nn.Conv2d(i, o, 3) for i, o in shapes]
    dense = [nn.Linear(flat, 200), nn.Linear(200, 200), nn.Linear(200, 10)]

    class Flatten(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)  # row, column, channel: as in Flax

    with torch.no_grad():
        for index, layer in enumerate(convolutions):
            layer.weight.copy_(torch.tensor(np.asarray(params[f"Conv_{index}"]["kernel"])).permute(3, 2, 0, 1))
            layer.bias.copy_(torch.tensor(np.asarray(params[f"Conv_{index}"]["bias"])))
        for index, layer in enumerate(dense):
            layer.weight.copy_(torch.tensor(np.asarray(params[f"Dense_{index}"]["kernel"])).T)
            layer.bias.copy_(torch.tensor(np.asarray(params[f"Dense_{index}"]["bias"])))
    c1, c2, c3, c4 = convolutions
    d1, d2, d3 = dense
    pool = nn.AvgPool2d(2)
    net = nn.Sequential(c1, act, c2, act, pool, c3, act, c4, act, pool, Flatten(), d1, act, d2, act, d3)
    return net.requires_grad_(False).eval()


def images(xs: Any) -> torch.Tensor:
    """Convert a batch of ours, (n, rows, columns, channels), to PyTorch's layout."""
    return torch.tensor(np.asarray(xs)).permute(0, 3, 1, 2)


class Baseline:
    """Attributions, Jacobians, singular values and attacks of one network, label 0."""

    def __init__(self, params: Any, device: Any = "cpu"):
        self.net, self.device = network(params).to(device), device

    def images(self, xs: Any) -> torch.Tensor:
        """Convert a batch of ours, (n, rows, columns, channels), to PyTorch's layout."""
        return images(xs).to(self.device)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Return logit 0 of one image (channels, rows, columns)."""
        return self.net(x[None])[0, 0]

    def saliency(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gradient of logit 0 at one image."""
        return grad(self.score)(x)

    def integrated_gradients(self, x: torch.Tensor, num_steps: int) -> torch.Tensor:
        """Compute integrated gradients from a black image by the midpoint rule, all path points in one batch."""
        points = (torch.arange(num_steps, device=x.device) + 0.5) / num_steps
        path = points.reshape(-1, 1, 1, 1) * x
        return x * vmap(grad(self.score))(path).mean(0)

    def many_integrated_gradients(self, xs: torch.Tensor, num_steps: int) -> torch.Tensor:
        """Compute integrated gradients of a batch at once, as a device needs it."""
        return vmap(lambda x: self.integrated_gradients(x, num_steps))(xs)

    def many_power_iterations(self, attribute: Any, xs: torch.Tensor, products: int) -> torch.Tensor:
        """Compute sigma_max of a batch at once by a fixed number of products with J and with J^T."""
        vs = torch.randn(xs.shape, generator=torch.Generator().manual_seed(0)).to(xs.device)

        def there_and_back(x, v):
            image = jvp(attribute, (x,), (v,))[1]
            return image.norm(), vjp(attribute, x)[1](image)[0]

        sigmas = torch.zeros(len(xs))
        for _ in range(products // 2):
            vs = vs / vs.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            sigmas, vs = vmap(there_and_back)(xs, vs)
        return sigmas

    def jacobian(self, attribute: Any, x: torch.Tensor, chunk: int) -> torch.Tensor:
        """Compute the full d x d Jacobian of an attribution."""
        return jacrev(attribute, chunk_size=chunk)(x).reshape(x.numel(), x.numel())

    def power_iteration(self, attribute: Any, x: torch.Tensor, rtol: float = 1e-4, most: int = 100) -> float:
        """Compute sigma_max of the Jacobian by products with J and J^T, until it changes by less than ``rtol``."""
        v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
        sigma = 0.0
        for _ in range(most):
            v = v / v.norm()
            image = jvp(attribute, (x,), (v,))[1]
            (v,) = vjp(attribute, x)[1](image)
            previous, sigma = sigma, float(image.norm())
            if abs(sigma - previous) <= rtol * sigma:
                break
        return sigma

    def pgd(self, xs: torch.Tensor, epsilon: float, num_steps: int) -> torch.Tensor:
        """Run l-infinity PGD on the cross-entropy of label 0."""
        step = 2.5 * epsilon / num_steps
        moved = (xs + epsilon * (2 * torch.rand_like(xs) - 1)).clamp(0, 1)
        for _ in range(num_steps):
            moved = moved.detach().requires_grad_()
            labels = torch.zeros(len(xs), dtype=torch.long, device=xs.device)
            loss = nn.functional.cross_entropy(self.net(moved), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = (xs + (moved + step * gradient.sign() - xs).clamp(-epsilon, epsilon)).clamp(0, 1)
        return moved.detach()

    def ifia(self, xs: torch.Tensor, epsilon: float, num_steps: int, path: int, k: int) -> torch.Tensor:
        """Run top-k IFIA on integrated gradients: the ascent, without the choice of the best iterate."""

        def pixel_map(x):
            values = self.integrated_gradients(x, path).abs().reshape(-1)
            return values.numel() * values / values.sum()

        top = vmap(pixel_map)(xs).topk(k, dim=1).indices
        moved = xs.clone()
        for _ in range(num_steps):
            gradient = vmap(grad(lambda x, index: -pixel_map(x)[index].sum()))(moved, top)
            moved = (xs + (moved + epsilon / 10 * gradient.sign() - xs).clamp(-epsilon, epsilon)).clamp(0, 1)
        return moved


class Trainer:
    """Steps of adversarial training and IG-NORM on one batch, with Adam."""

    def __init__(self, params: Any, xs: Any, labels: Any, epsilon: float, device: Any = "cpu"):
        self.net = network(params).requires_grad_(True).to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.xs, self.labels = images(xs).to(device), torch.tensor(np.asarray(labels)).long().to(device)
        self.epsilon = epsilon

    def loss(self, xs: torch.Tensor) -> torch.Tensor:
        """Return the sum of the cross-entropies."""
        return nn.functional.cross_entropy(self.net(xs), self.labels, reduction="sum")

    def attacked(self, objective: Any, num_steps: int) -> torch.Tensor:
        """Run l-infinity PGD with a random start."""
        xs, epsilon = self.xs, self.epsilon
        moved = (xs + epsilon * (2 * torch.rand_like(xs) - 1)).clamp(0, 1)
        for _ in range(num_steps):
            moved = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(moved), moved)
            moved = (xs + (moved + 2.5 * epsilon / num_steps * gradient.sign() - xs).clamp(-epsilon, epsilon)).clamp(
                0, 1
            )
        return moved.detach()

    def path_norm(self, moved: torch.Tensor, path: int) -> torch.Tensor:
        """Sum absolute integrated gradients of the loss from the clean images, by a right Riemann sum."""
        total = torch.zeros_like(self.xs)
        for t in range(1, path + 1):
            point = self.xs + t / path * (moved - self.xs)
            point = point if point.requires_grad else point.requires_grad_()
            total = total + torch.autograd.grad(self.loss(point), point, create_graph=True)[0]
        return ((moved - self.xs) * total / path).abs().sum()

    def update(self, loss: torch.Tensor) -> None:
        """Take one step of Adam on the mean over the batch."""
        self.optimizer.zero_grad()
        (loss / len(self.xs)).backward()
        self.optimizer.step()

    def adversarial(self, path: int, steps: int, pgd_steps: int) -> None:
        """Take one step of adversarial training."""
        del path, steps
        self.update(self.loss(self.attacked(self.loss, pgd_steps)))

    def ig_norm(self, path: int, steps: int, pgd_steps: int) -> None:
        """Take one step of IG-NORM."""
        del pgd_steps
        moved = self.attacked(lambda z: self.path_norm(z, path), steps)
        self.update(self.loss(self.xs) + self.path_norm(moved, path))
