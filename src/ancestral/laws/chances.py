"""Laws of probabilities: they sum to 1, and samples, completions and bounds agree with them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.decoding.complete import complete_values
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.errors import DataError
from ancestral.laws.exam import (
    SMALLEST_P,
    TOLERANCE,
    Exam,
    LawError,
    NotApplicable,
    chi_square,
    log_probs,
    others,
    require,
)
from ancestral.noise import Noise, item_seeds
from ancestral.objectives import AbsorbingDiffusion, Likelihood, MaskedLikelihood
from ancestral.order import Order, RandomOrders
from ancestral.recipes.toys import enumerate_values
from ancestral.space import Condition


def normalisation(exam: Exam) -> None:
    """The probabilities of all possible items sum to 1."""
    orders = [exam.generator.order.scoring()]
    if exam.generator.any_order and exam.generator.space.stop is None:
        orders.append(Order.random(exam.generator.space.n, seed=4))
    for order in orders:
        for condition in exam.conditions(len(exam.everything)):
            label = None if condition.label is None else torch.zeros(len(exam.everything), dtype=torch.int64)
            total = float(log_probs(exam.generator, exam.everything, order, Condition(label=label)).exp().sum())
            require(
                abs(total - 1) <= TOLERANCE,
                f"the probabilities of all items sum to {total:.8f}, not to 1, under {order}",
            )


def sampling(exam: Exam, draws: int = 3000) -> None:
    """Items are drawn as often as their probability says (chi-square test)."""
    order = exam.generator.order.scoring()
    _ = exam.everything  # nothing is drawn where it cannot be counted
    for condition in exam.conditions(draws):
        label = None if condition.label is None else torch.zeros(draws, dtype=torch.int64)
        values = Ancestral()(exam.generator, Request(Noise.of(7, draws), Condition(label=label), order))
        told = Condition(label=None if label is None else label.new_zeros(len(exam.everything)))
        log_prob = log_probs(exam.generator, exam.everything, order, told)
        p = chi_square(values, exam.everything, log_prob.exp())
        require(p > SMALLEST_P, f"samples do not follow the scores: chi-square test p = {p:.2g} on {draws} draws")


def completion(exam: Exam, draws: int = 2000) -> None:
    """Known sites never change, and the others follow Bayes' rule under the order in which they are drawn."""
    generator, n = exam.generator, exam.generator.space.n
    order = generator.order.scoring()
    prefix = order.rank < max(1, order.n_sets // 2)
    masks = [prefix] if order.n_sets > 1 else []
    if generator.any_order:
        masks.append(torch.arange(n) == n - 1)
    if not masks:
        raise NotApplicable("all sites are drawn at once")
    item = exam.items[3]
    for known in masks:
        done = _complete(exam, item, known, draws)
        if done.method not in ("exact", "prefix"):
            raise LawError(f"sites that the model can be conditioned on are completed by {done.method}")
        follow = order if bool((known == prefix).all()) else order.given(known)
        try:
            cells = enumerate_values(generator.space, follow)
        except DataError:
            continue  # too many to count; that known sites stay has been seen
        fits = (cells == item)[:, known].flatten(1).all(1)
        log_prob = log_probs(generator, cells[fits], follow)
        p = chi_square(done.values, cells[fits], torch.softmax(log_prob, 0))
        require(p > SMALLEST_P, f"completions do not follow Bayes' rule: chi-square test p = {p:.2g} on {draws} draws")
    last = torch.zeros(n, dtype=torch.bool)
    last[int(order.permutation.reshape(-1)[-1])] = True
    _complete(exam, item, last, 16)


def _complete(exam: Exam, item: Tensor, known: Tensor, draws: int) -> Any:
    values, shown = item.expand(draws, *item.shape), known.expand(draws, -1)
    # What stands at unknown sites must not matter.
    hidden = (~shown).reshape(*shown.shape, *[1] * (values.dim() - 2))
    done = complete_values(
        exam.generator,
        torch.where(hidden, others(exam.generator, values), values),
        shown,
        seeds=item_seeds(8, torch.arange(draws)),
        condition=Condition(),
        order=None,
        decoder=Ancestral(),
        guidance=0.0,
        options={},
    )
    results = [("completion", done.values)]
    if done.method in ("exact", "prefix"):
        request = Request(Noise.of(9, 8), given=values[:8].clone(), known=shown[:8])
        results.append(("the recipe's decoder", exam.model.decoder(exam.generator, request)))
    for name, found in results:
        kept = (found == values[: len(found)]) | hidden[: len(found)]
        require(kept.all(), f"{name} changes a known site")
    return done


def bounds(exam: Exam, draws: int = 64, groups: int = 24) -> None:
    """Means over random orders are lower bounds on the mixture over all orders, and estimate what they say."""
    generator, n = exam.generator, exam.generator.space.n
    if not generator.any_order:
        raise NotApplicable("the model has one order, and its scores are exact")
    if generator.space.stop is not None or n > 4:
        raise NotApplicable("there are too many orders to go through")
    chosen = exam.dataset.take(slice(0, 6))
    values = exam.model.tokenizer.encode(chosen)
    orders = [Order(torch.argsort(torch.tensor(p))) for p in itertools.permutations(range(n))]
    table = torch.stack([log_probs(generator, values, order) for order in orders])  # [orders, items]
    mean, spread = table.mean(0), table.std(0)
    mixture = table.logsumexp(0) - math.log(len(orders))
    found = exam.model.log_prob(chosen, bound=draws)
    require(found.kind == "lower_bound", f"a mean over orders calls itself {found.kind}")
    drawn = torch.from_numpy(np.asarray(found))
    error = 5 * spread / math.sqrt(draws) + TOLERANCE
    off = (drawn - mean).abs()
    require(
        (off <= error).all(), f"log_prob(bound={draws}) is {float(off.max()):.3g} nats from the mean over all orders"
    )
    require((drawn <= mixture + error).all(), "log_prob(bound=) exceeds the exact log-probability of the mixture")
    objective = generator.objective
    if isinstance(objective, MaskedLikelihood) and (
        (objective.ratio, objective.weighting) != ("uniform", "bound") or objective.prefixes
    ):
        return  # its loss is not meant as a bound
    if not isinstance(objective, (Likelihood, MaskedLikelihood, AbsorbingDiffusion)):
        return
    expected = mean
    if isinstance(generator.order, RandomOrders) and isinstance(objective, Likelihood):
        # Items that are not permuted follow the scoring order.
        share, straight = generator.order.probability, log_probs(generator, values, generator.order.scoring())
        expected = share * mean + (1 - share) * straight
        if share < 1:
            mixture = torch.logaddexp(math.log(share) + mixture, math.log1p(-share) + straight)
    with torch.no_grad():
        for item in range(2):
            same = values[item].expand(256, *values.shape[1:])
            losses = [
                float(objective.loss(generator, same, Condition(), Noise.of(11, 256, 256 * g), 1.0))
                for g in range(groups)
            ]
            each = -torch.tensor(losses, dtype=torch.float64) * generator.space.scalars
            within = 5 * float(each.std()) / math.sqrt(groups) + TOLERANCE
            # Times below `smallest` are left out and the others weighed as if there were none.
            if isinstance(objective, AbsorbingDiffusion):
                within += objective.smallest * math.pi * float(-mean[item])
            gap = float(each.mean()) - float(expected[item])
            require(
                abs(gap) <= within,
                f"the training loss is {gap:.3g} nats from the bound it estimates (error {within:.2g})",
            )
            require(
                float(each.mean()) <= float(mixture[item]) + within,
                "the training loss claims more than the exact probability",
            )
