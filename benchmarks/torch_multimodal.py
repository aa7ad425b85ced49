"""The networks of MT-PKDOT on feature tables in plain PyTorch, with the names of ours: `torch_networks.load` fits.

An encoder per modality, T-Nets for those that the student is not given, the fusion transformer over modalities, heads.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn


class MLP(nn.Module):
    """Linear layer, LayerNorm and ReLU, as often as there are widths."""

    def __init__(self, columns: int, widths: Sequence[int]):
        super().__init__()
        sizes = [columns, *widths]
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True)])
        self.norms = nn.ModuleList([nn.LayerNorm(size) for size in widths])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x)))
        return x


class Standardizer(nn.Module):
    """Columns at mean 0 and deviation 1."""

    def __init__(self, columns: int):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(columns))
        self.register_buffer("std", torch.ones(columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.running_mean) / self.std


class Encoder(nn.Module):
    """A table to a token; the widths end at the token's."""

    def __init__(self, columns: int, widths: Sequence[int]):
        super().__init__()
        self.standardizer = Standardizer(columns)
        self.backbone = MLP(columns, widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(self.standardizer(x))


class TNet(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, inputs: int, outputs: int, encoder: Sequence[int], decoder: Sequence[int]):
        super().__init__()
        sizes = [inputs, *encoder, *decoder, outputs]
        layers = [nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
        self.encoder = nn.ModuleList(layers[: len(encoder)])
        self.decoder = nn.ModuleList(layers[len(encoder) :])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in [*self.encoder, *self.decoder[:-1]]:
            x = torch.relu(layer(x))
        return self.decoder[-1](x)


class Attention(nn.Module):
    """Scaled dot-product attention with two heads."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(queries)), split(self.key(keys)), split(self.value(keys))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A post-norm transformer block whose hidden layer has the width of a token."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = Attention(width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand, self.project = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        x = self.norm_1(queries + self.attention(queries, keys))
        return self.norm_2(x + self.project(torch.relu(self.expand(x))))


class Transformer(nn.Module):
    """Per modality a block and a cross-attention, with all modalities' tokens as keys, and a gate over modalities."""

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.blocks = nn.ModuleList([Block(width) for _ in range(modalities)])
        self.cross = nn.ModuleList([Attention(width) for _ in range(modalities)])
        self.gate = nn.Linear(modalities * width, modalities - 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([block(tokens[:, m : m + 1], tokens) for m, block in enumerate(self.blocks)], 1)
        tokens = torch.cat([attend(tokens[:, m : m + 1], tokens) for m, attend in enumerate(self.cross)], 1)
        scores = self.gate(tokens.flatten(1))
        gates = torch.cat([scores, torch.zeros_like(scores[:, :1])], 1).softmax(1)
        return (tokens * gates[..., None]).sum(1)


class MultimodalNetwork(nn.Module):
    """Encoders, T-Nets, fusion, heads; gives the joint features, the logits, and every modality's token.

    Args:
      columns: of each given modality's table, by name, in order.
      widths: of each encoder.
      hallucinated: names of the modalities that T-Nets imagine.
      hallucination: sizes of the T-Nets' `encoder` and `decoder`.
      classes: of the head.
      dropout: before the head.
    """

    def __init__(
        self,
        columns: Mapping[str, int],
        widths: Sequence[int],
        classes: int,
        *,
        hallucinated: Sequence[str] = (),
        hallucination: Mapping[str, Sequence[int]] | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        width = widths[-1]
        self.encoders = nn.ModuleDict({name: Encoder(size, widths) for name, size in columns.items()})
        self.hallucinators = nn.ModuleDict(
            {name: TNet(len(columns) * width, width, **(hallucination or {})) for name in hallucinated}
        )
        self.fusion = Transformer(len(columns) + len(hallucinated), width)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({"expression": nn.Linear(width, classes)})

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        tokens = {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}
        seen = torch.cat(list(tokens.values()), 1)
        for name, imagine in self.hallucinators.items():
            tokens[name] = imagine(seen)
        features = self.fusion(torch.stack(list(tokens.values()), 1))
        return features, self.heads["expression"](self.dropout(features)), tokens


class Teachers(nn.Module):
    """The joint network, and of each modality the adapter and head by which it teaches.

    Gives (features, logits) of each modality, in the order of their names, and last of the joint network.
    """

    def __init__(self, joint: MultimodalNetwork, width: int, adapter_width: int, classes: int):
        super().__init__()
        names = list(joint.encoders)
        self.teacher = joint
        self.adapters = nn.ModuleDict(
            {
                name: nn.ModuleDict({"down": nn.Linear(width, adapter_width), "up": nn.Linear(adapter_width, width)})
                for name in names
            }
        )
        self.aligned_heads = nn.ModuleDict(
            {name: nn.ModuleDict({"expression": nn.Linear(width, classes)}) for name in names}
        )

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        features, logits, tokens = self.teacher(inputs)
        found = []
        for name, adapter in self.adapters.items():
            adapted = adapter["up"](adapter["down"](tokens[name]))
            found.append((adapted, self.aligned_heads[name]["expression"](adapted)))
        return [*found, (features, logits)]
