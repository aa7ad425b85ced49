"""A fusion's attention and blocks in PyTorch, with the weights of ours."""

import numpy as np
import torch
from torch import nn


def tensor(value):
    return torch.tensor(np.array(value))


def linear(part, x):
    return x @ tensor(part.kernel[...]) + tensor(part.bias[...])


def attention(ours, batch_first):
    theirs = nn.MultiheadAttention(ours.query.kernel.shape[0], 2, batch_first=batch_first)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([tensor(part.kernel[...]).T for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([tensor(part.bias[...]) for part in parts]))
        theirs.out_proj.weight.copy_(tensor(ours.out.kernel[...]).T)
        theirs.out_proj.bias.copy_(tensor(ours.out.bias[...]))
    return theirs


class Block(nn.Module):
    """Attention, add, norm; feed-forward, add, norm."""

    def __init__(self, ours, batch_first):
        super().__init__()
        self.ours = ours
        self.attention = attention(ours.attention, batch_first)

    def forward(self, queries, keys, absent=None):
        def norm(part, x):
            return nn.functional.layer_norm(x, x.shape[-1:], tensor(part.scale[...]), tensor(part.bias[...]))

        x = norm(self.ours.norm_1, queries + self.attention(queries, keys, keys, key_padding_mask=absent)[0])
        return norm(self.ours.norm_2, x + linear(self.ours.project, torch.relu(linear(self.ours.expand, x))))
