"""A twin of the training step in PyTorch, for models of any family: transformers' own model with gated attention in it
(arXiv 2512.05865), and the product's batches, noise, probes, optimiser and controller of lambda, in float32 on the CPU.
On the two cores that the product's llvmpipe was measured on it takes a fraction of the time, so that settings are looked
for here and then tried there.

    python3 tests/peers/twin.py RUN [SETTING=VALUE ...]      trains as the run did, with other settings where given
    python3 tests/peers/twin.py RUN --compare [first=N]      compares the run's first N steps with its own

RUN is a folder of `deno task sparsify` (runs/NAME), of which its config.json and its tokens are read; the model is the one
that it names. Settings are those of config.json: lr=3e-5 gateBias=0. `gates=false` trains the dense control, `threads=2`
says how many cores, `first=N` after which step to stop. Every step prints a line of JSON with what the run's
metrics.arrows has of it; lines of evaluations have validation_ce and open_fraction too. Needs torch, transformers, pyarrow.

B rows, T positions, H query heads, D head size; scores, gates and noise are indexed (batch, head, query, key).
"""

import json
import math
import sys
import time
from pathlib import Path

import pyarrow.ipc
import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

BETAS, EPSILON = (0.9, 0.99), 1e-8
IGNORED = -100
EMBEDDINGS = ("wte", "wpe", "embed_tokens", "embed_in", "lm_head", "embed_out")
LOW = 0xFFFFFFFF


# Random numbers: kernels/core/random.ts for Python's integers, random.wgsl for int32 tensors, whose products wrap.

def mix(h):
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & LOW
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & LOW
    return h ^ (h >> 16)


def hash_words(*words):
    k = 0
    for word in words:
        k = mix(((k ^ word) + 0x9E3779B9) & LOW)
    return k


class Stream:
    """The stream of random numbers that belongs to these words."""

    def __init__(self, *words):
        self.key, self.counter = hash_words(*words), 0

    def below(self, n):
        word = mix((self.key + self.counter * 0x9E3779B1) & LOW)
        self.counter += 1
        return math.floor(mix((word + self.key) & LOW) / 2**32 * n)


def permutation(length, stream):
    order = list(range(length))
    for last in range(length - 1, 0, -1):
        other = stream.below(last + 1)
        order[last], order[other] = order[other], order[last]
    return order


def signed(word):
    """A 32-bit word as the int32 of the same bits."""
    return word - 2**32 if word >= 2**31 else word


def shifted(h, count):
    """Without the sign that int32's own shift brings in from above."""
    return (h >> count) & ((1 << (32 - count)) - 1)


def mix_tensor(h):
    h = (h ^ shifted(h, 16)) * signed(0x85EBCA6B)
    h = (h ^ shifted(h, 13)) * signed(0xC2B2AE35)
    return h ^ shifted(h, 16)


def edge_noise(seed, step, layer, rows, positions):
    """Logistic noise of every edge of these rows (batch * H + head): (rows, T, T)."""
    keys = torch.tensor([signed(hash_words(seed, step, layer, row)) for row in rows], dtype=torch.int32)
    keys = keys.view(-1, 1, 1)
    at = torch.arange(positions, dtype=torch.int32)
    r = mix_tensor(keys + at.view(-1, 1) * signed(0x9E3779B1))
    r = mix_tensor(mix_tensor(r ^ (at * signed(0x85EBCA77))) + keys)
    odd = 2 * shifted(r, 8) + 1
    return torch.log(odd.float()) - torch.log((2**25 - odd).float())


# Tokens: pipeline/text/batches.ts.

class Tokens:
    """A split of a run's tokens: running text, or examples of which only the completions count."""

    def __init__(self, path):
        reader = pyarrow.ipc.open_file(path)
        table = reader.read_all()
        self.tokens = torch.from_numpy(table["token"].to_numpy().astype("int64"))
        examples = (reader.schema.metadata or {}).get(b"example_tokens")
        self.example_tokens = int(examples) if examples else None
        self.counted = torch.from_numpy(table["counted"].to_numpy().copy()) if examples else None

    def windows(self, context, offset=0):
        if self.example_tokens:
            assert context == self.example_tokens - 1
            return len(self.tokens) // self.example_tokens
        return (len(self.tokens) - 1 - offset) // context

    def batch(self, starts, context):
        """Inputs and targets, each (len(starts), T)."""
        rows = torch.stack([self.tokens[s:s + context + 1] for s in starts])
        targets = rows[:, 1:].clone()
        if self.counted is not None:
            counted = torch.stack([self.counted[s + 1:s + context + 1] for s in starts])
            targets[counted == 0] = IGNORED
        return rows[:, :-1], targets

    def sequential(self, batch, context, limit):
        """Batches for evaluation, the last of which may have fewer rows."""
        count = min(self.windows(context), max(1, limit // context))
        stride = self.example_tokens or context
        for first in range(0, count, batch):
            yield self.batch([row * stride for row in range(first, min(first + batch, count))], context)

    def training(self, batch, context, seed):
        """The batch at a position."""
        slack = 1 if self.example_tokens else max(1, min(context, len(self.tokens) - context))
        windows, stride = self.windows(context, slack - 1), self.example_tokens or context
        epochs = {}

        def at(position):
            starts = []
            for index in range(position * batch, (position + 1) * batch):
                epoch = index // windows
                if epoch not in epochs:
                    stream = Stream(seed, epoch)
                    epochs[epoch] = stream.below(slack), permutation(windows, stream)
                offset, order = epochs[epoch]
                starts.append(offset + order[index % windows] * stride)
            return self.batch(starts, context)

        return at


# The model.

class Gates:
    """What the gated attention of every layer reads and adds to."""

    mode = "dense"
    bias, temperature, bound = 0.0, 1.0, 0.0
    seed = step = first_row = 0

    def clear(self):
        self.probability = self.saturation = self.open = 0.0


gates = Gates()


def gated_attention(module, query, key, value, attention_mask=None, scaling=None, **others):
    """query (B, H, T, D), key and value (B, K, T, D) to (B, T, H, D). The softmax runs over all keys; a closed edge's
    weight is then 0. Sampled gates are straight-through: sigmoid((g + noise) / temperature) in the backward pass."""
    batch, heads, positions, size = query.shape
    group = heads // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.transpose(-2, -1) * (size**-0.5 if scaling is None else scaling)
    causal = torch.ones(positions, positions, dtype=torch.bool).tril()
    weights = torch.softmax(scores.masked_fill(~causal, -math.inf), dim=-1)
    if gates.mode == "deterministic":
        is_open = scores + gates.bias > 0
        gates.open += (is_open & causal).sum().item()
        weights = weights * is_open
    if gates.mode == "sampled":
        g = scores + gates.bias
        rows = range(gates.first_row, gates.first_row + batch * heads)
        with torch.no_grad():
            noise = edge_noise(gates.seed, gates.step, module.layer_idx, rows, positions).view_as(g)
        noisy = g + noise
        relaxed = torch.sigmoid(noisy / gates.temperature)
        # (m - relaxed) + relaxed: the gate's value, the relaxation's slope.
        weights = weights * (((noisy > 0).float() - relaxed).detach() + relaxed)
        gates.probability = gates.probability + (torch.sigmoid(g) * causal).sum()
        gates.saturation = gates.saturation + ((g.abs() - gates.bound).clamp_min(0) ** 2 * causal).sum()
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("gated", gated_attention)


def cross_entropy(logits, targets):
    """Sum over the targets that count."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED,
                                             reduction="sum")


def count(targets):
    return (targets != IGNORED).sum().item()


def queries_keys_values(module, name, heads):
    """Of the weight of a product that gives queries, keys or values: 1 where weight decay acts, on values alone. None for
    other modules."""
    leaf = name.rsplit(".", 1)[-1]
    weight = getattr(module, "weight", None)
    if leaf in ("q_proj", "k_proj", "v_proj"):
        return torch.full((1, 1), float(leaf == "v_proj"))
    if leaf == "c_attn" and isinstance(module, Conv1D):  # [in, 3 d]
        return (torch.arange(weight.shape[1]) >= weight.shape[1] // 3 * 2).float().view(1, -1)
    if leaf == "query_key_value":  # [H 3 D, in]
        return torch.tensor([0.0, 0.0, 1.0]).repeat_interleave(weight.shape[0] // heads // 3).repeat(heads).view(-1, 1)
    return None


class AdamW:
    """Loshchilov and Hutter, arXiv 1711.05101, with one clip of the global norm; decay acts on matrices but not on queries
    and keys, whose logits it would pull to the bias."""

    def __init__(self, model, settings):
        self.settings, self.step = settings, 0
        self.parameters = []
        owner = {id(m.weight): (n, m) for n, m in model.named_modules() if hasattr(m, "weight")}
        for name, p in model.named_parameters():
            rate, decay = 1.0, float(p.dim() > 1)
            if p.dim() > 1:
                module_name, module = owner[id(p)]
                values = queries_keys_values(module, module_name, model.config.num_attention_heads)
                if values is not None:
                    rate, decay = settings["attentionRate"], values
                elif any(part in EMBEDDINGS for part in name.split(".")):
                    rate = settings["embeddingRate"]
            self.parameters.append((p, rate, decay, torch.zeros_like(p), torch.zeros_like(p)))

    @torch.no_grad()
    def update(self, learning_rate):
        """Returns the norm of the gradient before it is clipped."""
        self.step += 1
        gradients = [p.grad for p, *_ in self.parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
        if not math.isfinite(norm):
            return norm
        clip = min(1.0, self.settings["clip"] / max(norm, 1e-30))
        for p, rate, decay, first, second in self.parameters:
            gradient, lr = p.grad.mul_(clip), rate * learning_rate
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            scale = second.div(1 - BETAS[1]**self.step).sqrt_().add_(EPSILON)
            if isinstance(decay, torch.Tensor):
                p.mul_(1 - lr * self.settings["weightDecay"] * decay)
            elif decay:
                p.mul_(1 - lr * self.settings["weightDecay"])
            p.addcdiv_(first, scale, value=-lr / (1 - BETAS[0]**self.step))
        return norm


class Geco:
    """kernels/geco: lambda follows the violation as last measured, scaled and clipped before it is averaged."""

    def __init__(self, s):
        self.s, self.value, self.average, self.violation = s, s["lambdaStart"], 0.0, None
        self.acting = self.value

    def clip(self, value):
        return min(self.s["lambdaMax"], max(self.s["lambdaMin"], value))

    def update(self):
        if self.violation is None:
            return
        s = self.s
        constraint = min(1, max(-1, self.violation / s["constraintScale"]))
        self.average = s["average"] * self.average + (1 - s["average"]) * constraint
        self.value = self.clip(self.value * math.exp(s["lambdaRate"] * self.average))
        self.acting = self.clip(self.value * math.exp(s["lambdaGain"] * self.average))


def learning_rate(s, step):
    rising = min(1, (step + 1) / s["warmup"]) if s["warmup"] else 1
    decaying = s["decay"] * s["steps"]
    falling = min(1, (s["steps"] - step) / decaying) if decaying else 1
    return s["lr"] * min(rising, falling)


class Twin:
    """A run, from its folder; `changes` to its settings."""

    def __init__(self, folder, changes):
        config = json.loads((folder / "config.json").read_text())
        self.s = s = {"gates": True, "threads": 2, "first": None, **config["settings"]}
        for name, value in changes.items():
            assert name in s, f"no setting {name}"
            s[name] = value
        if not s["gates"] and "attentionRate" not in changes:
            s["attentionRate"] = 1  # as the product's control
        torch.set_num_threads(s["threads"])
        load = lambda: AutoModelForCausalLM.from_pretrained(s["model"], dtype=torch.float32,
                                                            attn_implementation="gated").eval()
        self.model = load()
        taught = s["gates"] and s["distill"] > 0
        by_control = s.get("teacher") == "control" or (s.get("teacher") == "auto" and s["control"])
        assert not (taught and by_control), "the twin has no control to learn from"
        self.teacher = load().requires_grad_(False) if taught else None
        self.heads = self.model.config.num_attention_heads
        self.layers = self.model.config.num_hidden_layers
        context, batch = s["context"], s["batch"]
        self.train, validation = (Tokens(folder / "tokens" / f"{split}.arrow") for split in ("train", "validation"))
        self.validation = list(validation.sequential(batch, context, s["validationTokens"]))
        self.folder, self.pairs = folder, context * (context + 1) // 2
        gates.bias, gates.temperature = s["gateBias"], s["temperature"]
        gates.bound, gates.seed = s["saturationBound"], s["seed"]

    @torch.no_grad()
    def evaluate(self, mode, batches):
        """Mean cross-entropy, that of each batch, and the share of open edges."""
        losses, counts, rows = [], [], 0
        gates.mode = mode
        gates.clear()
        for inputs, targets in batches:
            losses.append(cross_entropy(self.model(inputs, use_cache=False).logits, targets).item())
            counts.append(count(targets))
            rows += len(inputs)
        edges = rows * self.layers * self.heads * self.pairs
        by_batch = [loss / n for loss, n in zip(losses, counts)]
        return sum(losses) / sum(counts), by_batch, gates.open / edges if mode == "deterministic" else 1.0

    def rows(self):
        """Trains; yields what each step measured."""
        s = self.s
        dense, dense_by_batch, _ = self.evaluate("dense", self.validation)
        gated = s["gates"]
        target = dense + s["slack"] if s["targetLoss"] == "auto" else s["targetLoss"]
        yield dict(step=0, dense_validation_ce=dense, target=target)
        optimiser, geco = AdamW(self.model, s), Geco(s)
        batch, context, accumulate = s["batch"], s["context"], s["accumulate"]
        batch_at = self.train.training(batch, context, s["seed"])
        edges = self.layers * self.heads * self.pairs * batch * accumulate
        started = time.time()
        for step in range(s["steps"] if s["first"] is None else min(s["first"], s["steps"])):
            if gated and step % s["constraintEvery"] == 0:
                n = step // s["constraintEvery"] % len(self.validation)
                ce, _, _ = self.evaluate("deterministic", self.validation[n:n + 1])
                geco.violation = ce - (dense_by_batch[n] + target - dense)
            micro = [batch_at(step * accumulate + n) for n in range(accumulate)]
            counted = sum(count(targets) for _, targets in micro)
            loss_scale = geco.acting / (1 + geco.acting) if gated else 1.0
            self.model.zero_grad()
            loss = probability = saturation = divergence = 0.0
            for n, (inputs, targets) in enumerate(micro):
                gates.step, gates.first_row = step, n * batch * self.heads
                gates.clear()
                teacher = None
                if self.teacher:
                    gates.mode = "dense"
                    with torch.no_grad():
                        teacher = torch.log_softmax(self.teacher(inputs, use_cache=False).logits, -1)
                gates.mode = "sampled" if gated else "dense"
                logits = self.model(inputs, use_cache=False).logits
                total = cross_entropy(logits, targets) / counted
                loss += total.item()
                if teacher is not None:
                    kl = (teacher.exp() * (teacher - torch.log_softmax(logits, -1))).sum(-1)
                    kl = kl[targets != IGNORED].sum() / counted
                    divergence += kl.item()
                    total = total + s["distill"] * kl
                total = total * loss_scale
                if gated:
                    p, r = gates.probability / edges, gates.saturation / edges
                    probability, saturation = probability + p.item(), saturation + r.item()
                    total = total + (p + s["saturationWeight"] * r) / (1 + geco.acting)
                total.backward()
            rate = learning_rate(s, step)
            norm = optimiser.update(rate)
            geco.update()
            row = dict(step=step + 1, ce=loss, learning_rate=rate, grad_norm=norm)
            if gated:
                row |= dict(expected_open=probability, saturation=saturation, constraint=geco.violation,
                            constraint_average=geco.average)
                row["lambda"], row["lambda_acting"] = geco.value, geco.acting
            if self.teacher:
                row["kl"] = divergence
            if (step + 1) % s["evalEvery"] == 0 or step + 1 == s["steps"]:
                ce, _, is_open = self.evaluate("deterministic" if gated else "dense", self.validation)
                row |= dict(validation_ce=ce, above_dense=ce - dense, open_fraction=is_open)
            row["seconds"] = round(time.time() - started, 1)
            yield row


def compare(twin):
    """Prints each step of the run beside the twin's, and the largest difference of each measure."""
    table = pyarrow.ipc.open_stream(twin.folder / "metrics.arrows").read_all().to_pylist()
    phase = "sparse" if twin.s["gates"] else "control"
    of_run = {row["step"]: row for row in table if row["phase"] == phase}
    largest = {}
    for row in twin.rows():
        other = of_run.get(row["step"], {})
        pairs = {name: (other[name], value) for name, value in row.items()
                 if name not in ("step", "seconds") and other.get(name) is not None}
        for name, (theirs, ours) in pairs.items():
            largest[name] = max(largest.get(name, 0.0), abs(theirs - ours))
        print(row["step"], ", ".join(f"{name} {a:.7g} {b:.7g}" for name, (a, b) in pairs.items()), flush=True)
    print("largest differences:", ", ".join(f"{name} {value:.2g}" for name, value in largest.items()))


def main(arguments):
    folder = Path(arguments[0])
    changes = {}
    for argument in (a for a in arguments[1:] if a != "--compare"):
        name, value = argument.split("=", 1)
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    twin = Twin(folder, changes)
    if "--compare" in arguments:
        return compare(twin)
    for row in twin.rows():
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
