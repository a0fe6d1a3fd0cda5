"""Loads this folder's model in transformers with its gates, which transformers by itself knows nothing of:

    from sparse_attention import load
    model = load("FOLDER")

An edge is open where its gate logit, the scaled score + bias, is above 0. The softmax runs over all keys; a closed edge's
weight is then 0, and the rest is not scaled up (arXiv 2512.05865). Tried with transformers 5.24.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.masking_utils import eager_mask


def sparse_attention(module, query, key, value, attention_mask=None, scaling=None, **others):
    """query (batch, head, query, D), key and value (batch, key head, key, D) to (batch, query, head, D) and weights."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    is_open = scores + module.config.sparse_attention["gate"]["bias"] > 0
    if attention_mask is not None:
        masked = scores + attention_mask[..., : key.shape[-2]]
    else:
        queries, keys = scores.shape[-2:]
        seen = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
        masked = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    weights = torch.softmax(masked, dim=-1, dtype=torch.float32).to(query.dtype) * is_open
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register("sparse", sparse_attention)
AttentionMaskInterface.register("sparse", eager_mask)


def load(folder, **options):
    """The model of a folder, with its gates."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sparse", **options)
