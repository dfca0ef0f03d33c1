"""One training step of a masked diffusion model, and everything that has to survive from one step to the next.

The objective is LLaDA's (Nie et al., arXiv 2502.09992): mask a random fraction of a text, predict the masked tokens from the others. Each
step draws its texts and masks from a generator seeded by the recipe's seed and the number of the step, so a resumed run sees what an
uninterrupted one sees. The network runs in bfloat16; gradients are applied to float32 master weights, of which the bfloat16 ones are a
rounded copy.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from unmask.models.config import LladaConfig
from unmask.models.llada import Llada
from unmask.training.bound import exact_count_masks
from unmask.training.recipe import Network, Recipe

_STEP_SEED_STRIDE = 1000003
"""Steps of runs with different seeds share no generator as long as a run is shorter than this."""

_SQRT_WEIGHT_SCALE = 1.5
"""One over the integral of t / sqrt(t) on (0, 1): makes the weighted loss a mean over tokens."""


class Trainer:
    """The weights in training and their optimisers.

    Attributes:
        model: the bfloat16 network, equal to the rounded master weights after every step.
        master: the float32 network that the optimisers update.
        step: how many steps were taken.
    """

    def __init__(self, recipe: Recipe, stream: Tensor) -> None:
        """Draw the first weights.

        Args:
            recipe: what to do.
            stream: the training tokens, int64 [tokens], texts one after another.
        """
        self.recipe = recipe
        self.stream = stream
        self.step = 0
        self.master = first_weights(recipe.network, recipe.seed)
        self.model = copy.deepcopy(self.master).bfloat16()
        self._hidden: Callable[[Tensor], Tensor] = self.model.hidden
        self._optimisers = _optimisers(self.master, recipe)
        self._rates = [optimiser.param_groups[0]["lr"] for optimiser in self._optimisers]

    def take_step(self) -> float:
        """Draw a batch, update the weights; returns the weighted loss in nats per token."""
        texts, counts, masks = self._batch()
        rows, length = texts.shape
        with sdpa_kernel(SDPBackend.MATH):
            # The composed attention, unlike the fused kernel, is open to the compiler, forward and backward.
            hidden = self._hidden(torch.where(masks, self.model.config.mask_token_id, texts))
        loss = cross_entropy(self.model.logits(hidden[masks]).float(), texts[masks], reduction="none")
        of_token = counts[:, None].expand_as(masks)[masks]
        if self.recipe.weighting == "sqrt":
            mean = (loss / (of_token * length).sqrt()).sum() / rows * _SQRT_WEIGHT_SCALE
        else:
            mean = (loss / of_token).sum() / rows
        torch.autograd.backward(mean)
        self._apply_gradients()
        self.step += 1
        return mean.item()

    def compile(self, note: Callable[[str], None]) -> None:
        """Compile the network for the texts of this step; where that is not possible, say so in a `note` and go on without."""
        if not shutil.which(os.environ.get("CXX", "c++")) and not shutil.which("g++"):
            note("no C++ compiler found: training without torch.compile, more slowly")
            return
        compiled = torch.compile(self.model.hidden, dynamic=False)
        texts, _, _ = self._batch()
        try:
            with sdpa_kernel(SDPBackend.MATH):
                torch.autograd.backward(compiled(texts).sum())
        except Exception as error:  # whatever the compiler stumbles over, the plain network still trains
            note(f"torch.compile failed ({type(error).__name__}): training without it, more slowly")
        else:
            self._hidden = compiled
        self.model.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Master weights (`master/NAME`) and the optimisers' state (`optimiser/NAME/KEY`)."""
        tensors = {f"master/{name}": weight.detach() for name, weight in self.master.named_parameters()}
        for name, weight in self.master.named_parameters():
            for key, value in self._optimiser_of(weight).state[weight].items():
                tensors[f"optimiser/{name}/{key}"] = value
        return tensors

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on after `step` from what `tensors()` gave there.

        Raises:
            KeyError, RuntimeError: a tensor of the network is missing or has another shape.
        """
        for name, weight in self.master.named_parameters():
            with torch.no_grad():
                weight.copy_(tensors[f"master/{name}"])
            prefix = f"optimiser/{name}/"
            state = {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}
            self._optimiser_of(weight).state[weight] = state
        self._round_weights()
        self.step = step

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Texts [rows, length], masks per text [rows], and where they are [rows, length], all drawn from the number of the step."""
        schedule = self.recipe.schedule
        length = schedule.length_at(self.step)
        rows = schedule.tokens_per_step // length
        generator = torch.Generator().manual_seed(_STEP_SEED_STRIDE * self.recipe.seed + self.step)
        starts = torch.randint(0, len(self.stream) - length, (rows,), generator=generator)
        texts = self.stream[starts[:, None] + torch.arange(length)]
        fraction = (torch.randperm(rows, generator=generator) + torch.rand(rows, generator=generator)) / rows
        counts = (fraction * length).ceil().clamp(1, length)
        return texts, counts, exact_count_masks(counts, length, generator)

    def _apply_gradients(self) -> None:
        for weight, rounded in self._weight_pairs():
            assert rounded.grad is not None
            weight.grad = rounded.grad.float()
            rounded.grad = None
        nn.utils.clip_grad_norm_(self.master.parameters(), self.recipe.optimiser.gradient_norm)
        factor = self.recipe.schedule.rate_at(self.step)
        for optimiser, rate in zip(self._optimisers, self._rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._round_weights()

    @torch.no_grad()
    def _round_weights(self) -> None:
        for weight, rounded in self._weight_pairs():
            rounded.copy_(weight)

    def _weight_pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return list(zip(self.master.parameters(), self.model.parameters(), strict=True))

    def _optimiser_of(self, weight: Tensor) -> torch.optim.Optimizer:
        return next(o for o in self._optimisers if any(weight is other for other in o.param_groups[0]["params"]))


def token_stream(texts: Sequence[Sequence[int]], end_of_text: int) -> Tensor:
    """The texts one after another, each followed by `end_of_text`: int64 [tokens]."""
    return torch.tensor([token for text in texts for token in (*text, end_of_text)])


def network_config(network: Network) -> LladaConfig:
    """The checkpoint's configuration: the end-of-text token (also padding) and the mask token are the last two ids."""
    return LladaConfig(
        d_model=network.width,
        n_heads=network.heads,
        n_layers=network.layers,
        mlp_hidden_size=network.feed_forward,
        vocab_size=network.vocabulary,
        embedding_size=network.vocabulary,
        max_sequence_length=network.context,
        mask_token_id=network.vocabulary - 1,
        eos_token_id=network.vocabulary - 2,
        pad_token_id=network.vocabulary - 2,
        rope_theta=network.rope_theta,
    )


def first_weights(network: Network, seed: int) -> Llada:
    """A float32 network with normally distributed matrices and norms of one; leaves torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Llada(network_config(network))
        for name, weight in model.named_parameters():
            if weight.ndim != 2:
                continue
            if _in_block(name):
                nn.init.normal_(weight, 0, network.matrix_gain / math.sqrt(weight.shape[1]))
                if name.endswith(("attn_out.weight", "ff_out.weight")):
                    weight.data.mul_(1 / math.sqrt(2 * network.layers))
            else:
                nn.init.normal_(weight, 0, network.embedding_std)
    return model


def _optimisers(model: Llada, recipe: Recipe) -> list[torch.optim.Optimizer]:
    settings = recipe.optimiser
    named = list(model.named_parameters())
    muon = torch.optim.Muon(
        [weight for name, weight in named if weight.ndim == 2 and _in_block(name)],
        lr=settings.muon_learning_rate,
        weight_decay=settings.muon_weight_decay,
        momentum=settings.muon_momentum,
    )
    adamw = torch.optim.AdamW(
        [weight for name, weight in named if weight.ndim != 2 or not _in_block(name)],
        lr=settings.adamw_learning_rate,
        betas=settings.adamw_betas,
        weight_decay=settings.adamw_weight_decay,
        fused=True,
    )
    return [muon, adamw]


def _in_block(name: str) -> bool:
    return "blocks" in name
