"""Whether peft loads an adapter that a run saved: merged by peft into its base, it must be the model that --merge saved.

    deno task sparsify --lora 8 --merge --name NAME …
    python3 tests/peers/peft_peer.py BASE runs/NAME/adapter runs/NAME/model

with torch, transformers and peft. Ends with 1 where a weight is further off than rounding.
"""

import sys

import peft
import torch
import transformers

# Relative, in the Euclidean norm. Both round the sum to float32 once; peft computes the product in float32 too.
TOLERANCE = 1e-6


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def main(base, adapter, merged):
    own, wanted = load(base).state_dict(), load(merged).state_dict()
    adapted = peft.PeftModel.from_pretrained(load(base), adapter)
    found = adapted.merge_and_unload().state_dict()
    assert found.keys() == wanted.keys()
    changed, worst = 0, 0.0
    for name, values in wanted.items():
        changed += not torch.equal(values, own[name])
        worst = max(worst, ((found[name] - values).norm() / values.norm().clamp_min(1e-30)).item())
    print(f"{len(wanted)} tensors, {changed} of them adapted; furthest off by {worst:.1e}")
    return 0 if changed > 0 and worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
