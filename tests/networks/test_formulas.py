"""Networks compute what their papers say: against plain loops, and by what each feature can and cannot see."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ancestral.networks import (
    MADE,
    NADE,
    CausalTransformer,
    DeepNADE,
    GatedConvolution,
    Mamba,
    MaskedConvolution,
    MaskedTransformer,
    Network,
    QueryTransformer,
    Recurrent,
)
from ancestral.networks.base import take
from ancestral.networks.convolution import _Gate
from ancestral.networks.frontier import FrontierTransformer
from ancestral.networks.instructed import InstructedTransformer
from ancestral.networks.recurrent import MambaBlock
from ancestral.networks.state_space import GroupedMamba, dual_scan
from ancestral.order import Order
from ancestral.space import Condition, Space

NETWORKS: dict[str, Callable[[], Network]] = {
    "causal": lambda: CausalTransformer(16, 2),
    "query": lambda: QueryTransformer(16, 2),
    "masked": lambda: MaskedTransformer(16, 2),
    "nade": lambda: NADE(16, 2),
    "deepnade": lambda: DeepNADE(8, 32, 2),
    "made": lambda: MADE(8, 64, 2),
    "convolution": lambda: GatedConvolution(8, 2, 3),
    "masked-convolution": lambda: MaskedConvolution(16, 2),
    "mamba": lambda: Mamba(16, 2, state=4),
    "mamba-2": lambda: GroupedMamba(16, 3, 4, 2, heads=2),
    "recurrent": lambda: Recurrent(16, 2),
    "frontier": lambda: FrontierTransformer(16, 2),
    "instructed": lambda: InstructedTransformer(16, 2),
}
SPACES = {
    "ragged": Space((3, 3), (2, 3, 4, 5, 6, 2, 3, 4, 5)),
    "colours": Space((3, 3), 4, event=(3,)),
    "real": Space((3, 3), 0),
    "real vectors": Space((3, 3), 0, event=(2,)),
}


def made(name: str, space: Space) -> Network:
    torch.manual_seed(0)
    return NETWORKS[name]().build(space).eval()


def draw(space: Space, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if not space.discrete:
        return torch.randn(batch, space.n, *space.event, generator=generator)
    u = torch.rand(batch, space.n, *space.event, generator=generator)
    return (u * space.site_sizes().reshape(-1, *[1] * len(space.event))).long()


def sensitivity(net: Network, values: Tensor, order: Order) -> Tensor:
    """Whether the features of site i depend on the embedding of site j: bool ``[N, N]``, one item."""
    leaves: list[tuple[Tensor, Tensor]] = []

    def as_leaf(module: object, args: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        leaf = output.detach().clone().requires_grad_()
        leaves.append((leaf, args[1]))
        return leaf

    handle = net.embed.register_forward_hook(as_leaf)
    features = net(values, order, None)
    handle.remove()
    n = values.shape[1]
    weight = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(1))
    sees = torch.zeros(n, n, dtype=torch.bool)
    for site in range(n):
        out = (features[:, site] @ weight).sum()
        gradients = torch.autograd.grad(out, [leaf for leaf, _ in leaves], retain_graph=True, allow_unused=True)
        for gradient, (_, sites) in zip(gradients, leaves, strict=True):
            if gradient is not None:
                sees[site, sites.reshape(-1)] |= (gradient[0] != 0).any(-1)
    return sees


def follows(net: Network, order: Order) -> bool:
    try:
        net.check(order)
    except ValueError:
        return False
    return True


VISIBLE = {
    "raster": lambda: Order.raster(16),
    "random": lambda: Order.random(16, seed=3),
    "parallel": lambda: Order.parallel(4, 4, 2),
    "neighbour": lambda: Order.neighbour(4, 4),
}


@pytest.mark.parametrize("order", sorted(VISIBLE))
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_seen_site_matters_and_no_other(name: str, order: str) -> None:
    """A mask that hides too much is as wrong as one that hides too little: the estimator would be weaker."""
    space = Space((4, 4), 5)
    net, followed = made(name, space), VISIBLE[order]()
    if not follows(net, followed):
        assert name in ("frontier", "causal", "convolution", "mamba", "mamba-2", "recurrent")
        return
    sees = sensitivity(net, draw(space, 1), followed)
    if name == "frontier" and order != "neighbour":  # it hears the outputs of neighbours only, drawn long before
        assert sees.any() and not (sees & ~followed.before()).any()
        return
    # A WaveNet that sees 15 places back reaches every one of 16 sites.
    assert torch.equal(sees, followed.before())


@pytest.mark.parametrize("space", sorted(SPACES))
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_any_kind_of_values(name: str, space: str) -> None:
    """Sizes per site, several values per site and real values: causal, and incremental equals parallel."""
    net, followed = made(name, SPACES[space]), Order.raster(9)
    values = draw(SPACES[space], 3)
    if name == "frontier":
        assert torch.equal(sensitivity(net, values[:1], followed) & ~followed.before(), torch.zeros(9, 9).bool())
    else:
        assert torch.equal(sensitivity(net, values[:1], followed), followed.before())
    with torch.no_grad():
        whole = net(values, followed, None)
        for known in (0, 4):
            cache = net.start(3, followed, None, values if known else None, known)
            last = None
            for k in range(known, 9):
                found = net.step(cache, last)
                last = take(values, followed.sets[k])
                torch.testing.assert_close(found, take(whole, followed.sets[k]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_conditions_are_told_apart(name: str) -> None:
    """The label changes what values mean, every site hears its own condition, and a withheld label is a third."""
    space = Space((3, 3), 4, classes=2, vector=2, site=2)
    net, order = made(name, space), Order.raster(9)
    one, other = draw(space, 1, 1), draw(space, 1, 2)
    generator = torch.Generator().manual_seed(0)
    vector, site = torch.randn(1, 2, generator=generator), torch.randn(1, 9, 2, generator=generator)

    def features(values: Tensor, label: int = 0, vector: Tensor = vector, site: Tensor = site) -> Tensor:
        with torch.no_grad():
            return net(values, order, Condition(torch.tensor([label]), vector, site))

    interaction = (features(one, 0) - features(other, 0)) - (features(one, 1) - features(other, 1))
    assert float(interaction.abs().max()) > 1e-4, "labels and values only add up"
    assert float((features(one) - features(one, -1)).abs().max()) > 1e-3
    assert float((features(one) - features(one, vector=-vector)).abs().max()) > 1e-3
    assert float((features(one) - features(one, site=site.flip(1))).abs().max()) > 1e-3


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_parameter_learns(name: str) -> None:
    space = Space((4, 4), 3, classes=2, vector=2, site=2)
    net = made(name, space)
    values = draw(space, 12)
    altered = torch.arange(12) % 2 == 0
    condition = Condition(torch.arange(12) % 3 - 1, torch.randn(12, 2), torch.randn(12, 16, 2), altered)
    out = net(values, Order.raster(16), condition)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    idle = [key for key, p in net.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    if name == "convolution":  # the last layer's residual output has no layer to go to, as in the paper's fig. 4
        idle = [key for key in idle if not key.startswith("gates.5.residual")]
    assert idle == []


@pytest.mark.parametrize("name", ["convolution", "mamba", "recurrent", "nade"])
def test_the_state_does_not_grow(name: str) -> None:
    space = Space((64,), 3)
    net, order, values = made(name, space), Order.raster(64), draw(space, 2)

    def numbers(state: Any) -> int:
        return state.numel() if isinstance(state, Tensor) else sum(numbers(part) for part in state)

    with torch.no_grad():
        cache, last, sizes = net.start(2, order), None, set()
        for k in range(64):
            net.step(cache, last)
            sizes.add(numbers(cache.state))
            last = take(values, order.sets[k])
    assert len(sizes) == 1


def test_nade_is_its_sum() -> None:
    """The accumulation before a site is the bias and W_j[x_j] of all sites j of lower rank, weights per site."""
    space, order = Space((3, 3), 4), Order.neighbour(3, 3)
    net, values = made("nade", space), draw(space, 2)
    assert isinstance(net, NADE)
    with torch.no_grad():
        weights = torch.stack([(net.embed.table.weight * net.place.weight[j]) @ net.value.weight.T for j in range(9)])
        weights = weights + net.site.weight[:, None]
        found = net(values, order)
        for item in range(2):
            for i in range(9):
                total = net.bias + net.target.weight[i]
                for j in range(9):
                    if order.rank[j] < order.rank[i]:
                        total = total + weights[j, values[item, j]]
                h = F.silu(total)
                for layer in net.deeper:
                    h = h + F.silu(layer(h))
                torch.testing.assert_close(found[item, i], h, atol=1e-5, rtol=1e-5)


def test_wavenet_layer_is_its_formula() -> None:
    """tanh(W_f * x + V_f h) sigmoid(W_g * x + V_g h), dilated taps (arXiv:1609.03499, eq. 2 and 3)."""
    torch.manual_seed(0)
    d, t, kernel, dilation = 3, 11, 3, 2
    gate = _Gate(d, kernel, dilation)
    x, told = torch.randn(1, d, t), torch.randn(1, d, t)
    with torch.no_grad():
        residual, skip, past = gate(x, told, torch.zeros(1, d, gate.reach))
        for place in range(t):
            total = gate.both.bias + gate.told.weight[:, :, 0] @ told[0, :, place]
            for tap in range(kernel):
                back = place - (kernel - 1 - tap) * dilation
                if back >= 0:
                    total = total + gate.both.weight[:, :, tap] @ x[0, :, back]
            y = torch.tanh(total[:d]) * torch.sigmoid(total[d:])
            torch.testing.assert_close(residual[0, :, place], x[0, :, place] + gate.residual(y[None, :, None])[0, :, 0])
            torch.testing.assert_close(skip[0, :, place], gate.skip(y[None, :, None])[0, :, 0])
    assert torch.equal(past, x[:, :, -4:])


@pytest.mark.parametrize(("cycles", "layers", "kernel"), [(1, 3, 2), (2, 3, 2), (1, 2, 3), (2, 1, 1)])
def test_wavenet_sees_its_receptive_field_exactly(cycles: int, layers: int, kernel: int) -> None:
    space, order = Space((24,), 3), Order.random(24, seed=1)
    torch.manual_seed(0)
    net = GatedConvolution(8, cycles, layers, kernel).build(space).eval()
    sees = sensitivity(net, draw(space, 1), order)
    place = order.places
    distance = place[:, None] - place[None]  # the input at a place is the value of the place before
    assert torch.equal(sees, (distance >= 1) & (distance <= net.receptive_field))
    assert net.receptive_field == {(1, 3, 2): 8, (2, 3, 2): 15, (1, 2, 3): 7, (2, 1, 1): 1}[cycles, layers, kernel]


def test_mamba_layer_is_its_recurrence() -> None:
    """Place by place in float64: selective step, input and output maps."""
    torch.manual_seed(0)
    width, state, t = 8, 4, 70
    block = MambaBlock(width, state).double()
    x = torch.randn(1, t, width, dtype=torch.float64)
    with torch.no_grad():
        found, (past, left) = block(x, tuple(part.double() for part in block.initial(1)))
        inner, gate = block.enter(block.norm(x)).chunk(2, -1)
        h = torch.zeros(block.inner, state, dtype=torch.float64)
        for place in range(t):
            u = block.local.bias.clone()
            for tap in range(block.kernel):
                back = place - (block.kernel - 1 - tap)
                if back >= 0:
                    u = u + block.local.weight[:, 0, tap] * inner[0, back]
            u = F.silu(u)
            selected = block.select(u)
            low, b, c = selected[: block.rank], selected[block.rank : block.rank + state], selected[-state:]
            delta, a = F.softplus(block.delta(low)), -torch.exp(block.log_rate)
            h = torch.exp(delta[:, None] * a) * h + delta[:, None] * b[None] * u[:, None]
            y = (h @ c + block.skip * u) * F.silu(gate[0, place])
            torch.testing.assert_close(found[0, place], x[0, place] + block.leave(y), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(left[0], h, atol=1e-9, rtol=1e-9)
        assert torch.equal(past[0], inner[0, -3:].T)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("length", [5, 70, 128])
def test_the_dual_scan_is_its_recurrence(heads: int, length: int) -> None:
    """Place by place in float64: outer products, one scalar decay per head, from a state that is not empty."""
    torch.manual_seed(0)
    make = functools.partial(torch.randn, dtype=torch.float64)
    decay, drive = -make(2, length, heads).abs(), make(2, length, heads, 3)
    write, read, h = make(2, length, heads, 5), make(2, length, heads, 5), make(2, heads, 3, 5)
    found, last = dual_scan(decay, drive, write, read, h)
    for t in range(length):
        h = decay[:, t, :, None, None].exp() * h + drive[:, t, :, :, None] * write[:, t, :, None]
        torch.testing.assert_close(found[:, t], (h * read[:, t, :, None]).sum(-1), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(last, h, atol=1e-9, rtol=1e-9)


def test_mamba_starts_with_the_published_steps() -> None:
    """Steps between 0.001 and 0.1 where the selection is silent, and decays 1 .. N."""
    block = MambaBlock(32, 16)
    step = F.softplus(block.delta.bias).detach()
    assert float(step.min()) >= 0.001 - 1e-6 and float(step.max()) <= 0.1 + 1e-6
    torch.testing.assert_close(block.log_rate.detach().exp()[0], torch.arange(1.0, 17.0))


@pytest.mark.parametrize("name", ["convolution", "mamba", "mamba-2", "recurrent"])
def test_a_prefix_may_be_read_in_pieces(name: str) -> None:
    """Several places at once, behind a state, are the same as one pass over everything."""
    space, order = Space((90,), 3), Order.random(90, seed=2)
    net, values = made(name, space), draw(space, 2)
    with torch.no_grad():
        whole = take(net(values, order), order.permutation)
        state, pieces = net.initial(2, order), []
        for a, b in ((0, 1), (1, 7), (7, 80), (80, 90)):
            inputs = net.inputs(values, order, None, a, b)
            out, state = net.mix(inputs, (a, b), order.permutation[a:b], order, state)
            pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
