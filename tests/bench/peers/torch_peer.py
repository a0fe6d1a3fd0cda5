"""PyTorch as a peer of the bench: tests/bench/peers/torch.ts starts it and talks to it in lines of JSON.

    {"open": {"kind": "matmul", ...}, "mode": "fp32"}   makes a case ready: {"id": 1}
    {"time": 1, "runs": 10}                             {"wall_ms": ..., "device_ms": ..., "device_bytes": ...}
    {"close": 1}                                        frees it: {}
    {"gated_attention": {"q": [...], ...}}              values and gradients, for the test

What fails is answered by {"error": ...}. Wall time is taken with the device idle at both ends, as the bench takes ours;
device time, between CUDA events, and the most that was allocated so far, where there is CUDA. Modes: fp32 without TF32, tf32, and bf16 by autocast.

Shapes: B batch, H heads, T positions, D head size, d width, V vocabulary.
"""

import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


def gated_attention(q, k, v, bias, noise=None, temperature=1.0):
    """Gated attention as docs/method.md has it, (B, H, T, D): y and the mean open probability over causal pairs.

    The gate is hard forward and straight-through backward. Without `noise` (B, H, T, T) it is drawn here.
    """
    T, D = q.shape[-2:]
    causal = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)
    logits = scores + bias
    open_probability = torch.where(causal, torch.sigmoid(logits), 0).sum((-2, -1)).mean() / (T * (T + 1) / 2)
    if noise is None:
        # Half a unit of the last place away from 0 and 1.
        u = torch.rand(scores.shape, device=q.device).mul_(1 - 2**-23).add_(2**-24)
        noise = torch.log(u) - torch.log1p(-u)
    noisy = logits + noise
    soft = torch.sigmoid(noisy / temperature)
    gate = (noisy > 0).to(soft.dtype) + soft - soft.detach()
    weights = torch.softmax(scores.masked_fill(~causal, -torch.inf), -1)
    return (gate * weights).to(v.dtype) @ v, open_probability


class Block(nn.Module):
    """One block of GPT-2 with gated attention."""

    def __init__(self, config, bias):
        super().__init__()
        width, mlp = config["width"], config["mlpWidth"]
        self.heads, self.bias = config["heads"], bias
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.attn_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_proj = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x):
        B, T, d = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).view(B, T, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y, open_probability = gated_attention(q, k, v, self.bias)
        x = x + self.attn_proj(y.transpose(1, 2).reshape(B, T, d))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh")), open_probability


class GatedGpt2(nn.Module):
    """GPT-2 with gated attention; its head is the token embedding."""

    def __init__(self, config, bias):
        super().__init__()
        self.wte = nn.Embedding(config["vocabularySize"], config["width"])
        self.wpe = nn.Embedding(config["contextLength"], config["width"])
        self.blocks = nn.ModuleList(Block(config, bias) for _ in range(config["layers"]))
        self.ln_f = nn.LayerNorm(config["width"])
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        open_probability = 0
        for block in self.blocks:
            x, opened = block(x)
            open_probability = open_probability + opened / len(self.blocks)
        return self.ln_f(x) @ self.wte.weight.T, open_probability


def matmul(case, device):
    m, n, k = case["m"], case["n"], case["k"]
    a = torch.randn((k, m) if case["layout"] == "tn" else (m, k), device=device)
    b = torch.randn((n, k) if case["layout"] == "nt" else (k, n), device=device)
    left = a.T if case["layout"] == "tn" else a
    right = b.T if case["layout"] == "nt" else b
    return lambda: left @ right


def attention(case, device):
    """Gated attention, or PyTorch's own dense attention: forward, or with its gradients of Σ y · dy + scale · P."""
    shape = (1, case["heads"], case["positions"], case["headSize"])
    q, k, v, dy = (torch.randn(shape, device=device) for _ in range(4))

    def forward():
        if case["kind"] == "scaled dot product attention":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True), None
        return gated_attention(q, k, v, case["bias"])

    if not case["backward"]:
        return torch.no_grad()(forward)
    for tensor in (q, k, v):
        tensor.requires_grad_()

    def run():
        y, open_probability = forward()
        if open_probability is None:
            return torch.autograd.grad(y, (q, k, v), dy.to(y.dtype))
        outputs, weights = (y, open_probability), (dy.to(y.dtype), torch.full_like(open_probability, case["edgeScale"]))
        return torch.autograd.grad(outputs, (q, k, v), weights)

    return run


def training_step(case, device):
    """One step of (E + λ CE) / (1 + λ) by AdamW with the gradient clipped, as ours."""
    config, B, T, scale = case["config"], case["batch"], case["context"], case["lambda"]
    model = GatedGpt2(config, case["bias"]).to(device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01, fused=device == "cuda"
    )
    tokens, targets = (torch.randint(config["vocabularySize"], (B, T), device=device) for _ in range(2))

    def run():
        optimiser.zero_grad(set_to_none=True)
        logits, open_probability = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        ((open_probability + scale * loss) / (1 + scale)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return run


KINDS = {
    "matmul": matmul,
    "gated attention": attention,
    "scaled dot product attention": attention,
    "training step": training_step,
}


def in_mode(run, mode, device):
    """The run with the products' precision set before each, as it holds for the whole process."""
    if mode not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"Cannot run in mode {mode}: it must be fp32, tf32 or bf16")

    def wrapped():
        torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
        torch.backends.cudnn.allow_tf32 = mode == "tf32"
        with torch.autocast(device, torch.bfloat16, enabled=mode == "bf16"):
            return run()

    return wrapped


def timed(run, runs, device):
    """Milliseconds of one run: on the wall, and between the device's events."""
    if device != "cuda":
        started = time.perf_counter()
        for _ in range(runs):
            run()
        return {"wall_ms": 1000 * (time.perf_counter() - started) / runs, "device_ms": None, "device_bytes": None}
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    started = time.perf_counter()
    first.record()
    for _ in range(runs):
        run()
    last.record()
    torch.cuda.synchronize()
    wall = time.perf_counter() - started
    return {
        "wall_ms": 1000 * wall / runs,
        "device_ms": first.elapsed_time(last) / runs,
        "device_bytes": torch.cuda.max_memory_allocated(),
    }


def attention_values(given, device):
    """y, P and the gradients of Σ y · dy + edgeScale · P for given inputs, as nested lists; in float64."""
    tensors = {
        name: torch.tensor(given[name], dtype=torch.float64, device=device) for name in ("q", "k", "v", "dy", "noise")
    }
    q, k, v = (tensors[name].requires_grad_() for name in "qkv")
    y, open_probability = gated_attention(q, k, v, given["bias"], tensors["noise"], given["temperature"])
    objective = (y * tensors["dy"]).sum() + given["edgeScale"] * open_probability
    dq, dk, dv = torch.autograd.grad(objective, (q, k, v))
    values = {"y": y, "openProbability": open_probability, "dq": dq, "dk": dk, "dv": dv}
    return {name: value.tolist() for name, value in values.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    ready, opened = {}, 0
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "open" in message:
                case = message["open"]
                run = in_mode(KINDS[case["kind"]](case, device), message["mode"], device)
                opened += 1
                ready[opened] = run
                answer = {"id": opened}
            elif "time" in message:
                answer = timed(ready[message["time"]], message["runs"], device)
            elif "close" in message:
                ready.pop(message["close"], None)
                run = None
                if device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                answer = {}
            else:
                answer = attention_values(message["gated_attention"], device)
        except Exception as error:
            answer = {"error": str(error).split("\n")[0]}
        print(json.dumps(answer), flush=True)


main()
