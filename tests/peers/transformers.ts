/**
 * A model folder here and in transformers (float32, on the CPU), of which both load the weights for themselves: logits of
 * a row, the loss of held-out text, and how many tokens a second a forward pass and a training step take, in turn.
 *
 *     deno run -A --no-check tests/peers/transformers.ts MODEL --data PATH [--eval-tokens 8192] [--context 256]
 *
 * Flags are those of `deno task evaluate`; `--split` is its `test` unless given. Needs Python with torch, transformers and
 * pyarrow. Not a test: nothing here runs without Python.
 *
 * @module
 */
import { openCheckedGpu } from "../../pipeline/training/prepare_run.ts";
import { evaluate } from "../../pipeline/training/evaluate.ts";
import { loadModel } from "../../pipeline/load_model.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { EVALUATE } from "../../pipeline/settings.ts";
import { parseCommand } from "../../pipeline/settings/parse.ts";
import { resolveSettings } from "../../pipeline/settings/resolve.ts";
import { sequentialBatches } from "../../pipeline/text/batches.ts";
import { type Split, SPLITS, tokenise } from "../../pipeline/text/tokenise.ts";
import { loadTokenizer } from "../../pipeline/text/tokenizer.ts";
import { openPython } from "../bench/peers/torch.ts";
import { prepareStep } from "../bench/cases/training_step.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const PEER = new URL("./transformers_peer.py", import.meta.url).pathname;
/** Of each that is timed, in turn. */
const TIMES = 5;
const THREADS = navigator.hardwareConcurrency;

const [folder, ...flags] = Deno.args;
const settings = await resolveSettings(EVALUATE, parseCommand(EVALUATE, ["--model", folder, ...flags]));
const context = settings.context || 256;
const config = await readModelConfig(folder);
const weights = await openWeights(folder, config);
await using temporary = await temporaryFolder();
const tokenizer = await loadTokenizer(folder, config);
const tokens = await tokenise({ sources: settings.data, tokenizer, folder: temporary.path });
const splits = settings.split === "all" ? SPLITS : [settings.split as Split];
const batches = (await Promise.all(
  splits.map((split) =>
    Array.fromAsync(
      sequentialBatches({ tokens: tokens[split], batch: 1, context, limit: settings.evalTokens }),
    )
  ),
)).flat().slice(0, Math.floor(settings.evalTokens / context));
const rows = batches.map(({ inputs, targets }) => ({ inputs: [...inputs], targets: [...targets] }));

const peer = openPython(PEER);
await peer.ask({ open: folder, threads: THREADS });
const { losses } = await peer.ask<{ losses: number[] }>({
  losses: rows.map(({ inputs }) => inputs),
  targets: rows.map(({ targets }) => targets),
});
const into = `${temporary.path}/logits`;
await peer.ask({ logits: rows[0].inputs, into });
const theirs = new Float32Array((await Deno.readFile(into)).buffer);

const gpu = await openCheckedGpu({ message: console.log, activity() {} }, { gpu: settings.gpu });
{
  using model = await loadModel(folder, { gpu, dense: true, context });
  const { logits } = await model.run(rows[0].inputs, { at: "all" });
  let [largest, difference] = [0, 0];
  logits.values.forEach((value, n) => {
    largest = Math.max(largest, Math.abs(theirs[n]));
    difference = Math.max(difference, Math.abs(value - theirs[n]));
  });
  const share = (difference / largest).toExponential(1);
  console.log(
    `logits of ${context} positions: largest ${largest.toFixed(2)}, largest difference ${share} of it`,
  );
}
const { trainer, take, network } = await prepareStep(gpu, config, { batch: 1, context }, weights.read);
const { parameters } = trainer;
const ours = await evaluate(gpu, network, parameters, { mode: "dense", batches });
const mean = losses.reduce((sum, loss) => sum + loss) / losses.length;
const furthest = Math.max(...losses.map((loss, n) => Math.abs(loss - ours.batchCe[n])));
console.log(
  `loss of ${ours.tokens} tokens: ${ours.ce.toFixed(6)} here, ${mean.toFixed(6)} in transformers; ` +
    `of single rows at most ${furthest.toExponential(1)} apart`,
);

async function timed(run: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await run();
  return (performance.now() - started) / 1000;
}
const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];
const measures = {
  "forward and loss": () => evaluate(gpu, network, parameters, { mode: "dense", batches: [batches.at(-1)!] }),
  "training step": async () => {
    await take();
    await gpu.sync();
  },
};
for (const [name, run] of Object.entries(measures)) {
  const time = name === "training step" ? "step" : "forward";
  const seconds: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] };
  // What compiles and allocates is not timed.
  await run();
  await peer.ask({ time });
  for (let n = 0; n < TIMES; n++) {
    seconds.ours.push(await timed(run));
    seconds.theirs.push((await peer.ask<{ seconds: number }>({ time })).seconds);
  }
  const [a, b] = [median(seconds.ours), median(seconds.theirs)];
  const ratio = median(seconds.ours.map((value, n) => value / seconds.theirs[n]));
  console.log(
    `${name}: ${(context / a).toFixed(1)} tokens a second here, ${(context / b).toFixed(1)} in PyTorch on ` +
      `${THREADS} threads; ${ratio.toFixed(1)} times its time (median of ${TIMES} pairs)`,
  );
}
await peer.close();
gpu.close();
