"""A model in transformers, in float32 on the CPU, which answers a line of JSON with a line of JSON; for transformers.ts.

    {"open": FOLDER, "threads": N}                      {"layers": N}
    {"logits": [tokens], "into": FILE}                  writes (position, vocabulary) as float32
    {"losses": [[tokens] ...], "targets": [[...] ...]}  {"losses": [mean of each row]}
    {"time": "forward" | "step"}                        {"seconds": S}, the step as twin.py has it, of the last row given
"""

import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import twin  # noqa: E402

SETTINGS = dict(attentionRate=1, embeddingRate=1, weightDecay=0.01, clip=1)
state = {}


def step(inputs, targets):
    model, optimiser = state["model"], state["optimiser"]
    model.zero_grad()
    twin.gates.mode = "sampled"
    twin.gates.clear()
    loss = twin.cross_entropy(model(inputs, use_cache=False).logits, targets) / targets.numel()
    (loss + (twin.gates.probability + 0.01 * twin.gates.saturation) / targets.numel()).backward()
    optimiser.update(1e-5)


def answer(message):
    if "open" in message:
        torch.set_num_threads(message["threads"])
        state["model"] = twin.AutoModelForCausalLM.from_pretrained(message["open"], dtype=torch.float32,
                                                                   attn_implementation="eager").eval()
        return dict(layers=state["model"].config.num_hidden_layers)
    model = state["model"]
    if "logits" in message:
        with torch.no_grad():
            logits = model(torch.tensor([message["logits"]]), use_cache=False).logits[0]
        logits.numpy().astype("float32").tofile(message["into"])
        return {}
    if "losses" in message:
        losses = []
        with torch.no_grad():
            for inputs, targets in zip(message["losses"], message["targets"]):
                state["row"] = row = torch.tensor([inputs]), torch.tensor([targets])
                logits = model(row[0], use_cache=False).logits
                losses.append(torch.nn.functional.cross_entropy(logits[0].double(), row[1][0]).item())
        return dict(losses=losses)
    if message["time"] == "step" and "optimiser" not in state:
        model.set_attn_implementation("gated")
        state["optimiser"] = twin.AdamW(model, SETTINGS)
        step(*state["row"])
    started = time.perf_counter()
    if message["time"] == "step":
        step(*state["row"])
    else:
        model.set_attn_implementation("eager")
        with torch.no_grad():
            model(state["row"][0], use_cache=False)
        model.set_attn_implementation("gated" if "optimiser" in state else "eager")
    return dict(seconds=time.perf_counter() - started)


for line in sys.stdin:
    try:
        reply = answer(json.loads(line))
    except Exception as error:  # The other side says what it is.
        reply = dict(error=repr(error))
    print(json.dumps(reply), flush=True)
