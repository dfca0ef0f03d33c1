"""One training step, and everything that has to survive from one step to the next.

The recipe's objective is in `unmask.training.objective`. Each step draws its texts, and its masks if it has any, from a generator seeded by
the recipe's seed and the number of the step, so a resumed run sees what an uninterrupted one sees. The network runs in bfloat16; gradients
are applied to float32 master weights, of which the bfloat16 ones are a rounded copy.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unmask.models.config import LladaConfig
from unmask.models.family import Network
from unmask.models.guide import GuideConfig, GuideNetwork
from unmask.models.llada import Llada
from unmask.training.objective import objective_of
from unmask.training.recipe import Recipe

_STEP_SEED_STRIDE = 1000003
"""Steps of runs with different seeds share no generator as long as a run is shorter than this."""


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
        self.master = first_weights(recipe)
        self.model = copy.deepcopy(self.master).bfloat16()
        self._objective = objective_of(recipe)
        self._hidden: Callable[[Tensor], Tensor] = self.model.hidden
        self._optimisers = _optimisers(self.master, recipe)
        self._rates = [optimiser.param_groups[0]["lr"] for optimiser in self._optimisers]

    def take_step(self) -> float:
        """Draw a batch, update the weights; returns the loss in nats per token, weighted as the objective weights it."""
        texts, generator = self._texts()
        with sdpa_kernel(SDPBackend.MATH):
            # The composed attention, unlike the fused kernel, is open to the compiler, forward and backward.
            loss = self._objective.loss(self.model, self._hidden, texts, generator)
        torch.autograd.backward(loss)
        self._apply_gradients()
        self.step += 1
        return loss.item()

    def compile(self, note: Callable[[str], None]) -> None:
        """Compile the network for the texts of this step; where that is not possible, say so in a `note` and go on without."""
        if not shutil.which(os.environ.get("CXX", "c++")) and not shutil.which("g++"):
            note("no C++ compiler found: training without torch.compile, more slowly")
            return
        compiled = torch.compile(self.model.hidden, dynamic=False)
        texts, _ = self._texts()
        try:
            with sdpa_kernel(SDPBackend.MATH):
                torch.autograd.backward(compiled(texts[:, : self.recipe.schedule.length_at(self.step)]).sum())
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

    def _texts(self) -> tuple[Tensor, torch.Generator]:
        """Texts [rows, length + lookahead] drawn from the number of the step, and the generator for what the objective draws."""
        schedule = self.recipe.schedule
        length = schedule.length_at(self.step)
        rows = schedule.tokens_per_step // length
        generator = torch.Generator().manual_seed(_STEP_SEED_STRIDE * self.recipe.seed + self.step)
        starts = torch.randint(0, len(self.stream) - length, (rows,), generator=generator)
        return self.stream[starts[:, None] + torch.arange(length + self._objective.lookahead)], generator

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


def network_config(recipe: Recipe) -> LladaConfig:
    """The checkpoint's configuration: the end-of-text token (also padding) and the mask token are the last two ids."""
    network = recipe.network
    sizes = LladaConfig(
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
        weight_tying=network.weight_tying,
    )
    return GuideConfig(**asdict(sizes), tokenizer=recipe.tokenizer) if recipe.objective == "autoregressive" else sizes


def first_weights(recipe: Recipe) -> Network:
    """A float32 network with normally distributed matrices and norms of one; leaves torch's global generator as it was."""
    config, network = network_config(recipe), recipe.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = GuideNetwork(config) if isinstance(config, GuideConfig) else Llada(config)
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


def _optimisers(model: Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
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
