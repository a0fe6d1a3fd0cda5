/**
 * `deno task mutants [part of a name…]`: faults that a test must notice. Each is planted by itself in a copy of the
 * tree, and the test that is named beside it must then fail by an assertion. Prints one line a fault, and leaves with 1
 * when any survives or could not be tried. 152 of them took a quarter of an hour on two slow cores.
 *
 * The list is mostly of joints: what one part hands to the next. A fault that a test was not seen to notice belongs here
 * with the test that now does.
 *
 * @module
 */
import { dirname, join } from "node:path";
import { CHROMIUM } from "./support/chromium.ts";
import { temporaryFolder } from "./support/temporary_folder.ts";
import { TEST_PERMISSIONS, testProcess } from "./support/test_process.ts";

/** One fault and the test that must fail with it. */
export interface Mutant {
  name: string;
  /** Where it is planted, from the root. */
  file: string;
  /** What stands there, exactly once. */
  find: string;
  replace: string;
  /** File of tests, from the root. */
  test: string;
  /** As `deno test --filter`; left out: all tests of the file. */
  filter?: string;
}

/** Faults of one file that one test must notice, by name: what stands there, and what is planted. */
function plant(
  file: string,
  test: string | readonly [file: string, filter: string],
  faults: Record<string, readonly [find: string, replace: string]>,
): Mutant[] {
  const [path, filter] = typeof test === "string" ? [test] : test;
  return Object.entries(faults).map(([name, [find, replace]]) => ({
    name,
    file,
    find,
    replace,
    test: `tests/${path}`,
    filter,
  }));
}

const A_STEP = ["pipeline/training/trainer_test.ts", "a step of two micro-batches"] as const;
const HALF = ["pipeline/training/trainer_test.ts", "stored in half precision"] as const;
const LAMBDA = ["pipeline/training/trainer_test.ts", "λ follows the constraint"] as const;
const TEN_STEPS = ["pipeline/model/network_test.ts", "gated: ten steps"] as const;
const CUT = ["pipeline/model/network_test.ts", "must be cut"] as const;
const LORA_KERNELS = "kernels/matmul/low_rank_test.ts";
const LORA_LLAMA = ["pipeline/model/lora_test.ts", "llama, gated: logits"] as const;
const LORA_FLOAT64 = ["pipeline/model/lora_test.ts", "the float64 model"] as const;
const LORA_NEEDS = ["pipeline/model/lora_test.ts", "only what is trained"] as const;
const TWIN = "pipeline/training/twin_test.ts";
const EVALUATION = "pipeline/training/evaluate_test.ts";
const ACTIVATIONS = "pipeline/activations/activations_test.ts";
const EXPORT = "pipeline/export/export_test.ts";
const SETTINGS = [
  "pipeline/training/training_run_test.ts",
  "/every setting|the step that is chosen/",
] as const;
const PHASE = ["pipeline/training/training_run_test.ts", "a phase ends with"] as const;
const RUN = "pipeline/training/sparsify_test.ts";
const PRETRAIN = "pipeline/training/pretrain_test.ts";
const RESUMED = ["pipeline/training/training_run_test.ts", "stopped and resumed"] as const;
const EXCHANGE = "pipeline/parallel/exchange_test.ts";
const RANKS = "pipeline/ranks_test.ts";
const RANK_TRAINING = ["pipeline/parallel/training_test.ts", "fifty steps"] as const;
const CUT_IN_STAGES = [
  "pipeline/model/stage_test.ts",
  "/^(GPT-2|GPT-2 with its logits in blocks|adapters) in 3 stages/",
] as const;
const STAGES = ["pipeline/parallel/stages_test.ts", "a run in two stages"] as const;
const COMMANDS = ["pipeline/main_test.ts", "evaluate and resume agree"] as const;
const EAP_IG = ["pipeline/circuits/engine_test.ts", "/EAP-IG in . steps/"] as const;
const CIRCUIT_FAMILIES = "pipeline/circuits/families_test.ts";
const ATTENTION = "kernels/gated_attention/gated_attention_test.ts";
const GROUPED = "H 4, K 2, T 67";
const CHECK_OF_GPU = ["pipeline/model/self_check_test.ts", "a GPU's kernels are checked"] as const;
const CHECK_OF_STORED = ["pipeline/model/self_check_test.ts", "stored in less"] as const;
const DECODER = ["pipeline/model/decoder_test.ts", "/llama: token by token|gives back/"] as const;
const GENERATED = [
  "pipeline/generation/generate_test.ts",
  "/ends before|positions end|own gates|the sum/",
] as const;
const CACHED = "kernels/gated_attention/cached_attention_test.ts";

const BENCHMARKED = "pipeline/benchmarks/benchmark_test.ts";
const PASSKEY = "pipeline/benchmarks/passkey_test.ts";
const MOVED = ["pipeline/runs/resume_test.ts", "whose model has moved"] as const;
const PLANNED = "pipeline/report/training_plan_test.ts";

/** Every fault. */
export const MUTANTS: readonly Mutant[] = [
  // The teacher.
  ...plant("pipeline/training/trainer.ts", A_STEP, {
    "the teacher is the student": ['recorder, teacher, "dense"', 'recorder, parameters, "dense"'],
    "the teacher runs with the student's gates": ['teacher, "dense",', "teacher, mode,"],
    "the teacher's edges are counted": ['"dense", { countEdges: false }', '"dense"'],
    "the head's teacher is the student": ["teacher: distill?.teacher,", "teacher: distill && parameters,"],
    "KL without its weight": ["distill: distill?.weight }", "distill: distill && 1 }"],
  }),
  ...plant("pipeline/model/head.ts", A_STEP, {
    "the teacher's logits come from the student's embedding": [
      "recordTeacherLogits(recorder, teacher, block)",
      "recordTeacherLogits(recorder, parameters, block)",
    ],
    "the teacher's logits come from the student's final layer norm": [
      "final: rowsOf(tensors.teacherFinal!, first, count)",
      "final: rowsOf(final, first, count)",
    ],
    "KL is summed": ["weight: weight * distillWeight", "weight: distillWeight"],
    "KL has no gradient": ["extra = compared.teacher;", ""],
    "KL's sums are the loss's": [
      "crossEntropy.total(recorder, { rows: distillationRows!, totals: distillationTotals })",
      "crossEntropy.total(recorder, { rows: lossRows, totals: distillationTotals })",
    ],
  }),
  ...plant("pipeline/model/network.ts", HALF, {
    "in half precision the teacher's weights are not rounded anew": [
      "rounded.record(recorder, parameters);",
      'if (mode !== "dense") rounded.record(recorder, parameters);',
    ],
  }),

  // Micro-batches and noise.
  ...plant("pipeline/training/trainer.ts", A_STEP, {
    "micro-batches have the same noise": [
      "configureGates(step, (first + index) * batch)",
      "configureGates(step, 0)",
    ],
    "noise counts rows and not heads": ["firstRow: firstRow * heads", "firstRow: firstRow"],
    "steps have the same noise": ["      step,\n      firstRow:", "      step: 0,\n      firstRow:"],
    "noise without the seed": ["      seed,\n      step,", "      seed: 0,\n      step,"],
    "edges are averaged over one micro-batch": ["batchRows: batch * accumulate", "batchRows: batch"],
    "the loss is averaged over one micro-batch": ["weight: 1 / counted,", "weight: accumulate / counted,"],
    "the loss is averaged over targets that do not count": [
      "if (target !== IGNORED) counted++",
      "if (target >= 0) counted++",
    ],
    "every micro-batch clears the gradients": [
      "if (index === 0) clear(recorder);\n        if (distill)",
      "clear(recorder);\n        if (distill)",
    ],
    "gradients of the step before are kept": [
      "for (const gradient of gradients.values()) recorder.clear(gradient);",
      "",
    ],
    "sums of the step before are kept": [
      "[network.totals, network.distillationTotals, network.headSums]",
      "[network.distillationTotals, network.headSums]",
    ],
    "gates are trained without noise": ['gated ? "sampled" : "dense"', 'gated ? "deterministic" : "dense"'],
    "gates without their bias": ["bias: gates?.bias ?? 0", "bias: 0"],
    "gates without their temperature": ["temperature: gates?.temperature ?? 1", "temperature: 1"],
    "gates without the pull on saturated ones": ["gates?.saturationWeight ?? 0", "0"],
    "the pull on saturated gates without its bound": ["gates?.saturationBound ?? 0", "0"],
  }),
  ...plant("pipeline/model/network.ts", A_STEP, {
    "edges are averaged over T² pairs": [
      "const pairs = context * (context + 1) / 2;",
      "const pairs = context ** 2;",
    ],
    "edges are averaged over one layer": [
      "(layers * heads * batchRows * pairs)",
      "(heads * batchRows * pairs)",
    ],
  }),

  // What must be as in another program: which rows a batch has.
  ...plant("pipeline/text/batches.ts", TWIN, {
    "the order of rows is another": ["randomStream(seed, pass.number)", "randomStream(pass.number, seed)"],
    "the rows of every epoch begin at the same token": ["offset = stream.below(pass.slack);", "offset = 0;"],
  }),

  // λ.
  ...plant("pipeline/training/trainer.ts", LAMBDA, {
    "the constraint is measured with noise": ['"deterministic", { countEdges', '"sampled", { countEdges'],
    "the constraint is measured without gates": ['"deterministic", { countEdges', '"dense", { countEdges'],
    "the constraint is measured against nothing": [
      "...gates.geco, targetLoss }",
      "...gates.geco, targetLoss: 0 }",
    ],
    "the constraint is measured with the sums of the step before": [
      "        if (isFirst) recorder.clear(network.totals);\n",
      "",
    ],
    "λ does not move": ["if (gated) geco.update(recorder, { state: multiplier, lossScale, edgeScale });", ""],
    "λ at the start does not act": ["[gated ? lambda / (1 + lambda) : 1]", "[gates ? 0.5 : 1]"],
    "λ at the start is not that of the settings": ["gates?.lambdaStart ?? 0", "gates ? 1 : 0"],
  }),
  ...plant("kernels/geco/update.wgsl", LAMBDA, {
    "λ passes its ceiling": [
      "clamp(state[0] * exp(controller.rate * average), controller.lowest, controller.highest)",
      "max(state[0] * exp(controller.rate * average), controller.lowest)",
    ],
    "λ passes its floor": [
      "clamp(state[0] * exp(controller.rate * average), controller.lowest, controller.highest)",
      "min(state[0] * exp(controller.rate * average), controller.highest)",
    ],
    "what acts passes its bounds": [
      "clamp(lambda * exp(controller.gain * average), controller.lowest, controller.highest)",
      "lambda * exp(controller.gain * average)",
    ],
  }),
  ...plant("pipeline/training/training_run.ts", SETTINGS, {
    "λ's floor is not that of the settings": ["lowest: settings.lambdaMin", "lowest: 0"],
    "λ's ceiling is not that of the settings": ["highest: settings.lambdaMax", "highest: Infinity"],
    "λ's rate is its gain": ["rate: settings.lambdaRate", "rate: settings.lambdaGain"],
    "the constraint's scale is not that of the settings": ["scale: settings.constraintScale", "scale: 1"],
    "the signatures do not know λ's floor": ["lowest: lambdaMin = 0", "lowest: _ = 0, lambdaMin = 0"],
  }),

  // The weights after a step.
  ...plant("pipeline/training/trainer.ts", TEN_STEPS, {
    "the optimiser's steps are counted from 0": [
      "learningRate, step: step + 1 }",
      "learningRate, step: step || 1 }",
    ],
  }),

  ...plant("pipeline/model/trace.ts", TEN_STEPS, {
    "keys decay": ["decayFrom: (heads + keyValueHeads) * headSize", "decayFrom: heads * headSize"],
    "vectors decay": [
      "decayFrom: Infinity,\n    trainable: train",
      "decayFrom: 0,\n    trainable: train",
    ],
  }),

  // What is derived from the list of steps.
  ...plant("pipeline/model/ops/norm.ts", A_STEP, {
    "the residual stream's gradient ends at a norm": ["dresidual: plus,", ""],
  }),

  // A vocabulary and logits in pieces.
  ...plant("pipeline/model/head.ts", CUT, {
    "the gradient of the final layer norm is that of the last slice": [
      "accumulate: index > 0,",
      "accumulate: false,",
    ],
    "every slice writes the first columns of the logits": ["cColumn: slice.start,", "cColumn: 0,"],
    "a slice's logits come from the first rows of the embedding": [
      "b: rowsOf(matrix, start, count), c: logits",
      "b: rowsOf(matrix, 0, count), c: logits",
    ],
    "a block's loss goes to the first rows": [
      "ofBlock = (tensor: Tensor): Tensor => rowsOf(tensor, first, count)",
      "ofBlock = (tensor: Tensor): Tensor => rowsOf(tensor, 0, count)",
    ],
    "a block's gradient of the embedding comes from the first rows": [
      "b: ofBlock(final)",
      "b: rowsOf(final, 0, count)",
    ],
    "a slice's gradient goes to the first rows of the embedding": [
      "c: rowsOf(dmatrix, start, tokens)",
      "c: rowsOf(dmatrix, 0, tokens)",
    ],
    "a block's gradient goes to the first rows": [
      "c: ofBlock(tensors.dfinal!)",
      "c: rowsOf(tensors.dfinal!, 0, count)",
    ],
  }),

  // Evaluations.
  ...plant("pipeline/training/evaluate.ts", EVALUATION, {
    "an evaluation samples its gates": [
      "network.forward(recorder, parameters, mode)",
      'network.forward(recorder, parameters, mode === "dense" ? mode : "sampled")',
    ],
    "an evaluation runs without gates": [
      "network.forward(recorder, parameters, mode)",
      'network.forward(recorder, parameters, "dense")',
    ],
    "an evaluation's gates have no bias": ["hardGates(gateBias, batch)", "hardGates(0, batch)"],
    "edges of padding are counted": ["network.configureRows(rowsOfPart)", "network.configureRows(batch)"],
    "queries of padding are counted": ["rows += rowsOfPart;", "rows += batch;"],
    "rows of padding are exact": ["r < rowCounts[row.step]", "r < batch"],
    "edges of the batch before are counted again": ["recorder.clear(headSums);", ""],
    "losses of the batch before are counted again": ["recorder.clear(totals);", ""],
    "the loss is the mean of batches": [
      "const ce = loss / tokens;",
      "const ce = batchSums.reduce((sum, of) => sum + of.loss / of.tokens, 0) / batchSums.length;",
    ],
    "open edges are expected ones": ['HEAD_SUMS.indexOf("open")', 'HEAD_SUMS.indexOf("openProbability")'],
    "open edges over T² pairs": ["rows * context * (context + 1) / 2", "rows * context * context"],
    "open edges of all layers over one": [
      "sum(open) / (layers * heads * pairs)",
      "sum(open) / (heads * pairs)",
    ],
    "edges per query from the share of T² pairs": [
      "sum(open) / (layers * heads * queries)",
      "context * sum(open) / (layers * heads * pairs)",
    ],
    "dead queries over pairs": [
      "sum(dead) / (layers * heads * queries)",
      "sum(dead) / (layers * heads * pairs)",
    ],
    "open edges by head over queries": ["(edges) => edges / pairs", "(edges) => edges / queries"],
    "heads that are live by pairs": ["countLiveHeads(open, queries)", "countLiveHeads(open, 100 * pairs)"],
    "accuracy over positions that do not count": ["correct / tokens", "correct / queries"],
  }),

  // The step that is chosen.
  ...plant("pipeline/training/choose_step.ts", SETTINGS, {
    "a step at its target is not within it": ["step.ce <= target", "step.ce < target"],
    "a step above its target is chosen": ["if (!meeting(evaluated, target)) return before;", ""],
    "a loss that is no number meets every target": ["step.ce <= target", "!(step.ce > target)"],
    "of equals the later is chosen": [
      "before.openFraction <= evaluated.openFraction",
      "before.openFraction < evaluated.openFraction",
    ],
    "the lowest loss is chosen": [
      "before.openFraction <= evaluated.openFraction",
      "before.ce <= evaluated.ce",
    ],
    "a target that was lowered rules nothing out": ["before = meeting(best, target)", "before = best"],
  }),
  ...plant("pipeline/training/training_run.ts", PHASE, {
    "the chosen weights are not taken": [
      "    if (tensor) gpu.write(tensor, values);\n    await pace",
      "    tensor;\n    await pace",
    ],
    "the first step within the target stays": [
      "chooseStep(best[level], evaluated, target + above)",
      "best[level] ?? chooseStep(best[level], evaluated, target + above)",
    ],
    "a step is held to the next one's target": ["targetAt?.(step - 1)", "targetAt?.(step)"],
    "a target that was lowered behind the last step rules nothing out": [
      "meeting(best[level], target + above)",
      "best[level]",
    ],
    "a last step above its target counts as within": ["feasible: targetAt === undefined", "feasible: true"],
  }),
  ...plant("pipeline/training/train_loop.ts", ["pipeline/training/pretrain_test.ts", "behind later steps"], {
    "rows take in the time of the steps before they came": [
      "ended = submitted.get(logged.at(-1)?.step ?? -1) ?? since",
      "ended = elapsed()",
    ],
  }),
  ...plant("pipeline/training/train_loop.ts", ["pipeline/training/pretrain_test.ts", "share the time"], {
    "rows have the time at which they were read": ["since + (n + 1) / of * (ended - since)", "ended"],
    "an evaluation is a part of the next steps' time": [
      "await options.onEvaluation(done, result);\n      since = elapsed();",
      "await options.onEvaluation(done, result);",
    ],
  }),
  ...plant("pipeline/training/train_loop.ts", ["pipeline/training/training_run_test.ts", "is no number"], {
    "a loss that ran away is advised to be gone on with": ["ranAway ||= ", ""],
    "a loss that is no number is gone on with": [
      "!Number.isFinite(row.validation_ce)",
      "row.validation_ce < 0",
    ],
  }),

  // What comes from the hub.
  ...plant("pipeline/hub/client.ts", ["pipeline/hub/model_test.ts", "the token goes to the hub alone"], {
    "the token is sent wherever the hub redirects to": [
      "if (token && url.origin === this.#origin) headers",
      "if (token) headers",
    ],
  }),
  ...plant("pipeline/hub/client.ts", ["pipeline/hub/model_test.ts", "a wait that is given as a date"], {
    "a date to wait for is not read": ["Date.parse(text) - Date.now()", "NaN"],
    "a hub is waited for as long as it says": ["Math.min(LONGEST_PAUSE_MS, after ??", "Math.max(0, after ??"],
  }),
  ...plant("pipeline/hub/download.ts", ["pipeline/hub/model_test.ts", "more bytes than the hub lists"], {
    "more bytes than are listed are taken": ["if (at + piece.length > file.size) {", "if (at < 0) {"],
  }),
  ...plant("pipeline/hub/client.ts", ["pipeline/hub/model_test.ts", "an API that is busy"], {
    "an API that is busy is not asked again": [
      "status === 408 || status === 429 || status >= 500",
      "status === 408",
    ],
  }),
  ...plant("pipeline/hub/client.ts", ["pipeline/hub/model_test.ts", "cut off a hundred times"], {
    "what has come does not count against failures": ["work(() => failures = 0)", "work(() => {})"],
    "a file is asked for from its first byte on": ["if (from > 0) headers.set", "if (from < 0) headers.set"],
  }),
  ...plant("pipeline/hub/download.ts", ["pipeline/hub/model_test.ts", "a corrupted byte is found"], {
    "bytes are taken as they come": ["if (digest !== file.etag) {", "if (digest === undefined) {"],
    "damaged bytes stay": ["    await Deno.remove(temporary);\n", ""],
  }),
  ...plant("pipeline/hub/download.ts", ["pipeline/hub/model_test.ts", "stopped a hundred times"], {
    "what had come is not part of the digest": [
      "read < at; read += PIECE_BYTES",
      "read < 0; read += PIECE_BYTES",
    ],
  }),
  ...plant("pipeline/hub/download.ts", ["pipeline/hub/model_test.ts", "a server that knows no parts"], {
    "all of it is put behind what had come": ["if (from !== at) await startAnew();", ""],
    "another part is taken for the one that was asked for": [
      "if (from !== at && from !== 0) {",
      "if (from === -1) {",
    ],
  }),
  ...plant("pipeline/hub/fetch_files.ts", ["pipeline/hub/model_test.ts", "a model's own files come"], {
    "of files with the same bytes one is linked": [
      "if (etag === file.etag) await",
      "if (path === file.path) await",
    ],
  }),
  ...plant("pipeline/hub/fetch_files.ts", ["pipeline/hub/model_test.ts", "files come several at a time"], {
    "files come one after the other": ["Math.min(AT_ONCE, blobs.length)", "Math.min(1, blobs.length)"],
  }),
  ...plant("pipeline/hub/fetch_files.ts", ["pipeline/hub/model_test.ts", "a disk without room"], {
    "the disk's room is not asked for": ["needed <= free) return;", "needed >= 0) return;"],
  }),
  ...plant(
    "pipeline/generation/steering.ts",
    ["pipeline/generation/generate_test.ts", "steers every token"],
    {
      "only one direction is added": [
        "for (const { rows } of added.filter(",
        "for (const { rows } of added.slice(0, 1).filter(",
      ],
      "what steers is left on the device": [
        "for (const { rows } of added) destroyTensor",
        "for (const { rows } of []  as typeof added) destroyTensor",
      ],
    },
  ),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/circuits/interventions_test.ts",
    "asked for together",
  ], {
    "runs overlap": [
      "const inTurn = oneAtATime();",
      "const inTurn = <Result>(work: () => Promise<Result>) => work();",
    ],
  }),
  ...plant(
    "pipeline/generation/steering.ts",
    ["pipeline/generation/generate_test.ts", "often as the scale"],
    {
      "what steers has no scale": ["values.map((value) => scale * value)", "values"],
    },
  ),
  ...plant("pipeline/generation/main.ts", ["pipeline/generation/generate_test.ts", "often as the scale"], {
    "nothing steers": ["steer: steering,", ""],
  }),
  ...plant("pipeline/model/replacement.ts", [
    "pipeline/circuits/interventions_test.ts",
    "one prompt of a batch",
  ], {
    "one prompt's replacement is all prompts'": [
      "if (rows && !rows.includes(",
      "if (false && !rows!.includes(",
    ],
  }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/load_model_test.ts",
    "says by itself, and behind",
  ], {
    "what fills a prompt up is shown": [
      "if (position >= lengths[row]) shown.fill(",
      "if (position < 0) shown.fill(",
    ],
    "logits are counted from the longest prompt's end": [
      "return fromStart(at, tokens, (position) => {",
      "return fromStart(at, positions, (position) => {",
    ],
    "there are logits behind a prompt's end": ["if (position >= lengths[prompt] || row < 0", "if (row < 0"],
  }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/load_model_test.ts",
    "patched and hooked as each",
  ], {
    "a mean is over prompts that do not reach it": [
      "mean[n % ofPrompt] += values[n] / reaching[position];",
      "mean[n % ofPrompt] += values[n] / prompts.length;",
    ],
    "others of another length stand in": [
      "if (others[row].length === prompts[row].length) continue;",
      "if (others[row].length > 0) continue;",
    ],
    "a mean is taken where no prompt is": [
      "parts.find(({ position }) => position >= longest)",
      "parts.find(({ position }) => position > 1e6)",
    ],
  }),
  ...plant("pipeline/model/replacement.ts", ["pipeline/load_model_test.ts", "patched and hooked as each"], {
    "patches are counted from the first prompt's end": [
      "list && fromStart(list, tokens, outside)",
      "list && fromStart(list, lengths[0], outside)",
    ],
  }),
  ...plant("pipeline/generation/patching.ts", ["pipeline/generation/patching_test.ts", "every token"], {
    "what is replaced stands where the first row is": [
      "call(part, part.at - first * row)",
      "call(part, part.at - position * row)",
    ],
    "positions are counted from the end of all that there can be": [
      "fromStart(chosen, prompt.length, outside)",
      "fromStart(chosen, positions, outside)",
    ],
    "zero stands in for the prompt alone": ['patch.by !== "zero")', "true)"],
    "a mean is the last prompt's": ["mean[n] += value / prompts.length", "mean[n] = value"],
  }),
  ...plant("pipeline/generation/generate.ts", ["pipeline/generation/patching_test.ts", "refused by name"], {
    "hooks are passed over": ["options.hooks !== undefined", "options.hooks === null"],
    "what steers is not added where something is replaced": [
      "[patches, steering].flatMap",
      "[patches].flatMap",
    ],
    "what stood in is left on the device": ["    patches?.destroy();\n", ""],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/load_model_test.ts", "taken apart, and the lens"], {
    "a logit is taken apart as the run is without hooks": [
      "      hooks: functions,\n      read: attributedActivations(config),",
      "      read: attributedActivations(config),",
    ],
    "the lens passes patches over": [
      "{ patch, hooks: functions, read: names,",
      "{ hooks: functions, read: names,",
    ],
    "what no component gave is the whole logit": ["value: logit - given }", "value: logit }"],
  }),
  ...plant("pipeline/circuits/patch_each.ts", ["pipeline/load_model_test.ts", "patched many at once"], {
    "every place is patched in every row": ["rows: [row],", ""],
    "a place has the prompt's own activation": ["const row = n * ofPair + 1;", "const row = n * ofPair;"],
    "the effect is not held against the other prompt's": ["/ (from - value)", "/ (from - 0)"],
  }),
  ...plant("pipeline/circuits/patch_each.ts", ["pipeline/load_model_test.ts", "pairs are patched together"], {
    "all pairs have the first one's activations": ["const row = n * ofPair + 1;", "const row = 1;"],
    "all pairs are measured as the first": ["return pairs[n].measure(", "return pairs[0].measure("],
    "of many pairs those that are run first are told": [
      "first += together) {\n    effects.push",
      "first += pairs.length) {\n    effects.push",
    ],
    "means are held against the first pair": [
      "...effectsOf(meanOf(({ value }) => value), meanOf(({ from }) => from), places, found),",
      "...effectsOf(effects[0].value, effects[0].from, places, found),",
    ],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/load_model_test.ts", "share what is compiled"], {
    "every size of a batch is compiled": [
      "<= PATCHED_POSITIONS ? rounded : prompts",
      "< 0 ? rounded : prompts",
    ],
    "rows that are filled up are told": ["[tokens.length, ...runs.names", "[8, ...runs.names"],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/load_model_test.ts", "by zero and by means"], {
    "what a metric gives is not looked at": ["          checkMeasured(value);\n", ""],
    "zero is a mean": [
      'by: by === undefined || by === "zero" ? by :',
      'by: by === undefined ? by : by === "zero" ? { meanOf: [tokensOf("50+21=")] } :',
    ],
    "prompts are patched by position whatever their lengths": ["if (other !== undefined) {", "if (false) {"],
  }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/circuits/interventions_test.ts",
    "one prompt of a batch",
  ], {
    "what stands in for two activations is the first one's": [
      "if (!ofValue.has(activation)) ofValue.set(",
      "if (ofValue.size === 0) ofValue.set(",
    ],
  }),
  ...plant("pipeline/text/tokenise.ts", ["pipeline/text/tokenise_test.ts", "from another column"], {
    "tokens of one column are taken for those of another": [
      "...(textColumn === TEXT_COLUMN ? {} : { text_column: textColumn }),",
      "",
    ],
  }),
  ...plant("pipeline/hub/data.ts", ["pipeline/hub/data_test.ts", "used without the net"], {
    "a listing that failed is kept": ["listing = undefined;\n      throw error;", "throw error;"],
  }),
  ...plant("pipeline/settings/resolve.ts", [
    "pipeline/settings_test.ts",
    "/a model of the hub says|how a model is trained/",
  ], {
    "a model says what a benchmark is measured on": ["table[name].byModel !== false &&", "true &&"],
    "a model of the hub says where runs go": ["(!isFromHub || OF_A_STRANGER", "(true || OF_A_STRANGER"],
  }),
  ...plant("pipeline/hub/model.ts", ["pipeline/hub/model_test.ts", "found before its weights"], {
    "weights are fetched before anything is looked at": [
      "  await check?.(folder);\n  if (options.withoutWeights)",
      "  if (options.withoutWeights)",
    ],
  }),
  ...plant("pipeline/hub/model.ts", ["pipeline/hub/commands_test.ts", "without its weights"], {
    "who asks what a model needs gets its weights": [
      "if (options.withoutWeights) return",
      "if (false) return",
    ],
  }),
  ...plant("pipeline/hub/model.ts", ["pipeline/hub/model_test.ts", "of a branch and a reference"], {
    "a branch is what it was": ["if (known && (isCommit(wanted.revision) ||", "if (known && (true ||"],
  }),
  ...plant("pipeline/hub/data.ts", ["pipeline/hub/data_test.ts", "without the net, to the end"], {
    "the end of a split is not kept": ["await cached.keepMissing(commit, numbered(folder, index + 1));", ""],
  }),
  ...plant("pipeline/hub/repository.ts", ["pipeline/hub/data_test.ts", "leads out of the cache"], {
    "a path may lead out of the cache": ['&& part !== "..");', ");"],
    "a blob may have any name": ["/^[0-9a-f]{40}$/).test(etag))", "/./).test(etag))"],
  }),
  ...plant("pipeline/command_thread.ts", ["pipeline/hub/commands_test.ts", "cannot reach the net"], {
    "the right to reach the net is kept": ['Deno.permissions.revokeSync({ name: "net" });', ""],
  }),
  ...plant("pipeline/main.ts", ["pipeline/hub/commands_test.ts", "cannot reach the net"], {
    "training keeps the right to reach the net": [
      "  if (!data.fetches) thread.leaveNet();\n  let abandon",
      "  let abandon",
    ],
  }),
  ...plant("pipeline/text/batches.ts", ["pipeline/text/tokenise_test.ts", "sequential batches cover"], {
    "a limit below a row leaves none": [
      "Math.max(1, Math.floor(limit / context))",
      "Math.floor(limit / context)",
    ],
  }),
  ...plant("pipeline/text/batches.ts", ["pipeline/text/parts_test.ts", "parts are gone through"], {
    "every pass has the first one's order": ["randomStream(seed, pass.number)", "randomStream(seed, 0)"],
    "the first part is gone through again and again": [
      "await pass.tokens.next?.() ?? options.tokens",
      "options.tokens",
    ],
  }),
  ...plant("pipeline/text/batches.ts", ["pipeline/text/parts_test.ts", "a part is asked for as soon"], {
    "parts come that no row needs": ["if (rows > pass.firstRow + pass.windows)", "if (rows > 0)"],
    "a part comes when it is needed": ["if (rows > pass.firstRow + pass.windows)", "if (rows < 0)"],
  }),
  ...plant("pipeline/text/tokenise.ts", ["pipeline/text/parts_test.ts", "no more is read than is enough"], {
    "all is read": ["        if (SPLITS.every(hasEnough)) return;\n", ""],
  }),
  ...plant("pipeline/text/tokenise.ts", ["pipeline/text/parts_test.ts", "training begins with the first"], {
    "a damaged part is taken": [" && await hashFile(path) === digest", ""],
    "texts of a part run into each other": ["...(last ? [endOfText] : [])]", "]"],
  }),

  // What each phase is made of.
  ...plant("pipeline/training/training_run.ts", RUN, {
    "training reads the validation split": [
      "tokens: run.tokens.train,",
      "tokens: run.tokens.validation,",
    ],
    "batches without the seed": ["seed: settings.seed,\n        rows", "seed: 0,\n        rows"],
    "expected edges over T² pairs": ["batch * context * (context + 1) / 2,", "batch * context * context,"],
    "expected edges over one micro-batch": ["layers * heads * accumulate * batch", "layers * heads * batch"],
    "queries, keys and values move at the embeddings' rate": [
      "attention: settings.attentionRate",
      "attention: settings.embeddingRate",
    ],
    "embeddings move at the common rate": ["embedding: settings.embeddingRate, ", ""],
    "weights do not decay": ["weightDecay: settings.weightDecay, clip", "weightDecay: 0, clip"],
    "gradients are clipped to 1 whatever is set": ["clip: settings.clip }", "clip: 1 }"],
    "AdamW's second moment is averaged ten times as long": ["beta2: 0.99,", "beta2: 0.999,"],
    "the learning rate does not fall": ["decay: settings.decay,", "decay: 0,"],
    "a phase forgets its teacher": ["distill: options.distill,", ""],
    "a phase forgets its constraint": ["constraint: options.constraint,", ""],
  }),
  ...plant("pipeline/training/sparsify.ts", RUN, {
    "edges weigh alike whatever is asked for": ["distancePower: settings.distancePower", "distancePower: 0"],
    "validation tokens are those of training": [
      'collect(run, "validation"',
      'collect(run, "train" as "test"',
    ],
    "test tokens are those of validation": ['collect(run, "test"', 'collect(run, "validation"'],
    "the step is chosen on test": [
      'measure("evaluating the sparse model", "deterministic", validation',
      'measure("evaluating the sparse model", "deterministic", test',
    ],
    "evaluations of the sparse phase are without gates": [
      'measure("evaluating the sparse model", "deterministic", validation',
      'measure("evaluating the sparse model", "dense", validation',
    ],
    "the constraint is held against the mean of batches": [
      "yardstick.batchCe[index] + offset",
      "yardstick.ce + offset",
    ],
    "the constraint is held against another batch": [
      "yardstick.batchCe[index] + offset",
      "yardstick.batchCe[(index + 1) % validation.length] + offset",
    ],
    "the constraint is measured on one batch alone": [
      "const index = n % validation.length;",
      "const index = 0;",
    ],
    "a change of slack does not reach the constraint": [
      "const offset = targetAt(step) + levels",
      "const offset = target + levels",
    ],
    "dense is measured with gates, on validation": [
      'measure("measuring the dense model", "dense", validation)',
      'measure("measuring the dense model", "deterministic", validation)',
    ],
    "dense is measured with gates, on test": [
      'measure("measuring the dense model on test tokens", "dense", test',
      'measure("measuring the dense model on test tokens", "deterministic", test',
    ],
    "dense on test is the sparse weights": ['"dense", test, { of }),', '"dense", test),'],
    "gates are measured without their bias": ["gateBias: gates.bias,", "gateBias: 0,"],
    "the teacher has no weights": [
      "uploadParameters(gpu, own, beginning, namesOf(ofTeacherAlone(all, network.shape)));",
      "Promise.resolve();",
    ],
    "the control has the rate of what decides gates": [
      "settings: { ...settings, attentionRate: 1 },",
      "settings,",
    ],
    "the teacher without its weight in the loss": ["weight: settings.distill }", "weight: 1 }"],
    "sparse is measured without gates": [
      'measure("measuring the sparse model on test tokens", "deterministic", test)',
      'measure("measuring the sparse model on test tokens", "dense", test)',
    ],
    "the control starts from the sparse weights": [
      "uploadParameters(gpu, trained, beginning, namesOf(",
      "uploadParameters(gpu, new Map(), beginning, namesOf(",
    ],
    "the control is trained with gates": ['phase: "control",', 'phase: "control",\n      gates,'],
    "the control is measured with gates": [
      'measure("measuring the control on test tokens", "dense", test)',
      'measure("measuring the control on test tokens", "deterministic", test)',
    ],
    "the control is measured on validation": [
      'measure("measuring the control on test tokens", "dense", test)',
      'measure("measuring the control on test tokens", "dense", validation)',
    ],
  }),
  ...plant("pipeline/training/train_loop.ts", RUN, {
    "micro-batches are seen again in the next step": [
      "options.batchAt(step * accumulate + n)",
      "options.batchAt(step + n)",
    ],
    "the learning rate is not the schedule's": [
      "trainer.step(step, learningRate(schedule, step),",
      "trainer.step(step, schedule.peak,",
    ],
    "the λ that is shown as acting is the other": ["lossScale[0] / edgeScale[0]", "multiplier[0]"],
    "the constraint that is shown is its average": ["=== 1 ? multiplier[2]", "=== 1 ? multiplier[1]"],
    "expected edges are those that were used": [
      'expected_open: gated ? headTotal("openProbability")',
      'expected_open: gated ? headTotal("openUsed")',
    ],
    "expected edges by head over all heads": ["(sum) => sum * heads / edges", "(sum) => sum / edges"],
    "an evaluation is shown with the next step": [
      "evaluations.get(entry.step + 1)",
      "evaluations.get(entry.step)",
    ],
    "KL is shown as a sum": ["distillationTotals[0] / distillationTotals[3]", "distillationTotals[0]"],
    "a row's target is the next step's": [
      "options.targetAt?.(entry.step)",
      "options.targetAt?.(entry.step + 1)",
    ],
  }),
  ...plant("pipeline/training/train_loop.ts", PRETRAIN, {
    "probes are counted by steps": [
      "constraint.probeAt(step / constraint.every, step)",
      "constraint.probeAt(step, step)",
    ],
    "the constraint is measured once": ["step % constraint.every === 0", "step === 0"],
  }),
  ...plant("pipeline/training/pretrain.ts", PRETRAIN, {
    "pre-training measures one batch alone": ["validation[n % validation.length]", "validation[0]"],
    "pre-training reports validation as test": ['collect(run, "test"', 'collect(run, "validation"'],
    "sparse pre-training is measured without gates": [
      'mode: gated ? "deterministic"',
      'mode: sparse ? "dense"',
    ],
  }),
  ...plant("pipeline/main.ts", COMMANDS, {
    "evaluate reads the test split whatever is asked for": [
      "tokens: tokens[split], batch",
      "tokens: tokens.test, batch",
    ],
  }),
  ...plant("pipeline/training/signatures.ts", "pipeline/training/signatures_test.ts", {
    "a plateau is named once a run": ["if (still) recent.length = 0;", ""],
    "a float32 is held against a bound that it cannot be": [".map(Math.fround)", ""],
    "edges that wait for the loss are a plateau": ["isStill && isFree", "isStill"],
    "edges that rest with the learning rate are a plateau": ["isFree && !isSettled", "isFree"],
  }),

  ...plant("pipeline/training/training_run.ts", [
    "pipeline/training/pretrain_test.ts",
    "whose folder is moved",
  ], {
    "a run is saved wherever its folder was": [
      "            await folder.check();\n            // After",
      "            // After",
    ],
  }),
  ...plant("pipeline/command_thread.ts", ["pipeline/command_thread_test.ts", "stays where it fails"], {
    "what a stop removes is removed at every end": ["code === STOPPED ? unlessEnded : []", "unlessEnded"],
  }),
  ...plant("pipeline/report/progress.ts", ["pipeline/report/progress_test.ts", "of this process alone"], {
    "another process's time counts": [" || row.seconds < (recent.at(-1)?.seconds ?? 0)", ""],
  }),
  ...plant("pipeline/unless_stopped.ts", "pipeline/unless_stopped_test.ts", {
    "what was stopped is begun": ["  signal.throwIfAborted();\n", ""],
    "what ends behind a stop is taken for prepared": ["signal.aborted ? stopped : prepared", "prepared"],
  }),
  ...plant("pipeline/model/parameters.ts", "pipeline/model/parameters_test.ts", {
    "all that is written is on its way at once": ["if (underWay < PIECE_BYTES) return;", "return;"],
  }),

  // What a resumed run goes on with.
  ...plant("pipeline/training/training_run.ts", RESUMED, {
    "λ begins anew where a run is resumed": [
      "for (const [name, tensor] of trainer.controller) {",
      "for (const [name, tensor] of [...trainer.controller].slice(3)) {",
    ],
    "moments begin anew where a run is resumed": [
      'for (const kind of ["weight", "first", "second"] as const) {',
      'for (const kind of ["weight", "first"] as const) {',
    ],
    "a resumed run forgets what it had chosen": ["best = latest.best;", ""],
    "a resumed run begins with the first batches": [
      "batches!.at(position)",
      "batches!.at(position - accumulate * startStep)",
    ],
  }),

  // How a phase is stopped.
  ...plant("pipeline/training/train_loop.ts", RESUMED, {
    "a step that was not evaluated is left without": [
      "    await take([{ ...options.unevaluated, ...measured(result, gated) }]);\n",
      "",
    ],
    "a step evaluated after a resume is not chosen": [
      "    await options.onEvaluation(options.startStep, result);\n",
      "",
    ],
  }),
  ...plant("pipeline/training/train_loop.ts", [
    "pipeline/training/training_run_test.ts",
    "ends after the step under way",
  ], {
    "a loop that never looks up": [
      "    options.onStep?.(done);\n    await turn();\n",
      "    options.onStep?.(done);\n",
    ],
    "a phase that is to stop takes its first step": [
      "if (signal.aborted && options.startStep < schedule.steps) return",
      "if (signal.aborted && options.startStep > schedule.steps) return",
    ],
  }),
  ...plant("pipeline/training/evaluate.ts", [
    "pipeline/training/evaluate_test.ts",
    "ends before its next batch",
  ], {
    "an evaluation that is to stop goes on": [
      "      await turn();\n      signal?.throwIfAborted();\n",
      "",
    ],
  }),

  // Several ranks.
  ...plant("pipeline/parallel/exchange.ts", EXCHANGE, {
    "a sum over ranks is rounded at each": [
      "total[n] += all[start + n];",
      "total[n] = Math.fround(total[n] + all[start + n]);",
    ],
    "a sum leaves rank 0 out": [
      "for (let from = 0; from < size; from++) {",
      "for (let from = 1; from < size; from++) {",
    ],
    "a wish to stop is heard of rank 0 alone": ["wishes.includes(true)", "wishes[0]"],
    "rank 0 gives no sign of life": ["const result = await beating(work);", "const result = await work();"],
    "a rank that hangs is waited for": ["if (waited <= patience) return undefined;", "return undefined;"],
    "one that stops waits for the dead": [
      "if (wish?.aborted && waited >",
      "if (wish?.aborted && minutes < 0 && waited >",
    ],
    "what all do at once has no limit": ["if (fault) reject(fault);", ""],
  }),
  ...plant("pipeline/parallel/device_reader.ts", EXCHANGE, {
    "a sum reads the first elements of a tensor": ["tensor.offset + 4 * start", "tensor.offset"],
  }),
  ...plant("pipeline/parallel/device_sum.ts", EXCHANGE, {
    "a sum writes to the first elements of a tensor": [
      "sums.subarray(at - first, at - first + length), start)",
      "sums.subarray(at - first, at - first + length), 0)",
    ],
    "a rank writes the sums of others' tensors": [
      "if (at < first || at >= first + sums.length) continue;",
      "",
    ],
    "what is gathered is this rank's block at every rank": [
      "all.subarray(at, at + length), start)",
      "all.subarray(0, length), start)",
    ],
  }),
  ...plant("pipeline/parallel/share_of_step.ts", EXCHANGE, {
    "micro-batches of ranks have more rows than asked for": ["Math.min(batch, rowsOfRank)", "rowsOfRank"],
  }),
  ...plant(
    "pipeline/benchmarks/likelihood.ts",
    ["pipeline/benchmarks/ranks_test.ts", "/each rank|no rank/"],
    {
      "what ranks measured is rank 0's": ["ofRanks[n % size][", "ofRanks[0]["],
      "every rank measures every batch": ["if (n % size === rank) {", "if (n % size <= size) {"],
      "ranks that measure hear no wish to stop": ["if (n % size === 0) await exchange?.agree();", ""],
    },
  ),
  ...plant("pipeline/circuits/engine.ts", "pipeline/circuits/ranks_test.ts", {
    "one rank runs all circuits": ["Math.ceil(count * batches.length / size)", "count"],
    "a stretch begins as the one before it ended": [
      "if (part !== uploaded) {",
      "if (uploaded === undefined) {",
    ],
    "ranks that run circuits do not stop": ["exchange?.signal.throwIfAborted();", ""],
  }),
  ...plant("pipeline/circuits/off_paths.ts", "pipeline/circuits/ranks_test.ts", {
    "every rank closes edges of every prompt": ["if (n % size !== rank) continue;", ""],
  }),
  ...plant("pipeline/sweep/shared_processes.ts", "pipeline/sweep/shared_processes_test.ts", {
    "one rank runs all": ["counts.indexOf(Math.min(...counts))", "counts.indexOf(Math.max(...counts))"],
    "every rank starts every run": ["if (rank !== exchange.rank) continue;", ""],
    "a rank that fails leaves its own processes": [
      'signal.removeEventListener("abort", stopOwn);\n    stopOwn();',
      'signal.removeEventListener("abort", stopOwn);',
    ],
    "a rank whose process cannot be started goes on": [
      "if (failure) throw failure.error;",
      "if (failure && exchange.rank === 0) throw failure.error;",
    ],
    "a rank that is asked to stop waits for rank 0": ["own.forEach((process) => process.stop());", "{};"],
  }),
  ...plant("pipeline/report/step_time.ts", "pipeline/report/step_time_test.ts", {
    "a bucket waits for none before it": ["Math.max(free, end) + takes", "end + takes"],
    "a bucket goes before its gradients stand": ["Math.max(free, end) + takes", "free + takes"],
    "a rank sends itself its block": ["(ranks - 1) / ranks", "1"],
    "weights are gathered while backward goes on": [
      "Math.max(free, end) + gathered",
      "Math.max(free, compute)",
    ],
    "a CPU driver computes beside the host": ["if (!isApart) end += onHost(bytes);", ""],
  }),
  ...plant("pipeline/model/arithmetic.ts", ["pipeline/report/step_time_test.ts", "stretches are"], {
    "the head has no backward in stretches": ["n === 0 ? headBackward : 0", "0"],
  }),
  ...plant("pipeline/report/training_plan.ts", "pipeline/report/step_time_test.ts", {
    "a rank does all of a step": ["compute: tokens / ranks / rate", "compute: tokens / rate"],
    "what a time lacks is not told": [
      "if (asked.network !== undefined || asked.rate)",
      "if (asked.memory === 0)",
    ],
    "a bit is a byte": ['(unit === "bit" ? 8 : 1)', "1"],
    "hours of ranks are those of one": ["hours: tokens / speed / 3600", "hours: tokens / rate / 3600"],
  }),
  ...plant("pipeline/report/training_plan.ts", [
    "pipeline/parallel/stage_plan_test.ts",
    "micro-batches that a run makes",
  ], {
    "a plan has the micro-batches asked for": ["...shareOfStep(asked, pipelineCount(asked)),", ""],
  }),
  ...plant("pipeline/training/memory_budget.ts", ["pipeline/parallel/stage_plan_test.ts", "a run's budget"], {
    "a run's budget is of micro-batches that it does not make": [
      "needsOf(step.batch, step.accumulate / ranks)",
      "needsOf(asked)",
    ],
  }),
  ...plant("pipeline/text/shared_encoding.ts", "pipeline/text/shared_encoding_test.ts", {
    "every rank is sent all texts": [
      "sharesOf(texts, ranks).map(",
      "Array.from({ length: ranks }, () => ({ start: 0, end: texts.length })).map(",
    ],
    "every rank hears all tokens": ["await exchange.collect(own,", "await exchange.gather(own,"],
    "a rank that is not the first finds no tokens": [
      "const own = encodeAll(",
      "const own = exchange.rank > 0 ? texts.map(() => undefined) : encodeAll(",
    ],
    "a share begins where the last one began": ["const start = at;", "const start = Math.max(0, at - 1);"],
    "a new document goes on with the one before": [
      'goesOn = document.kind === "text" && !document.last;',
      "goesOn = true;",
    ],
  }),
  ...plant("pipeline/parallel/mpi.ts", RANKS, {
    "one process alone calls MPI": ["size !== undefined && size > 1", "size !== undefined && size > 0"],
    "a batch script is a rank": ['"SLURM_STEP_NUM_TASKS"', '"SLURM_NTASKS"'],
  }),
  ...plant("pipeline/ranks.ts", RANKS, {
    "a rank checks all that there is": [
      "await atFirst(ranks?.exchange, workload));",
      "(await atFirst(ranks?.exchange, workload), undefined));",
    ],
    "two ranks share a GPU unasked": ["if (other < rank &&", "if (other > rank &&"],
    "ranks have unlike adapters": ["adapter.label !== first.label", "adapter.label === undefined"],
    "ranks have unlike code": ["other.code !== first.code", "other.code === undefined"],
    "ranks have unlike settings": ["other.args[n] !== first.args[n]", "other.args[n] === undefined && n < 0"],
  }),
  ...plant("pipeline/training/trainer.ts", RANK_TRAINING, {
    "ranks draw the noise of the first": [
      "configureGates(step, (first + index) * batch)",
      "configureGates(step, index * batch)",
    ],
    "every rank has the first one's share": [
      "const first = rank * accumulate / size;",
      "const first = 0 * rank;",
    ],
    "edges are counted of one rank": [
      "n === 0 && !stages ? measured : []",
      "n === 0 && !stages ? measured.slice(0, 2) : []",
    ],
  }),
  ...plant("pipeline/training/trainer.ts", ["pipeline/parallel/overlap_test.ts", "to the bit"], {
    "the norm is that of this rank's share": ["await squaresGather?.run();", ""],
    "weights of other ranks' shares stay as they were": ["await weightsGather?.run();", ""],
    "a stretch that ends begins no sum": ["sums!.begin(n, {", "sums!.begin(0 * n, {"],
  }),
  ...plant("pipeline/model/schedule.ts", ["pipeline/parallel/overlap_test.ts", "every gradient stands"], {
    "every gradient stands behind the head": ["if (last.has(name)) last.set(name, at);", "last.has(name);"],
  }),
  ...plant("pipeline/training/moments.ts", ["pipeline/parallel/training_test.ts", "keep all, in rows"], {
    "a checkpoint has one rank's share of the moments": ["await gather.run();", ""],
  }),
  ...plant("pipeline/training/moments.ts", ["pipeline/parallel/training_test.ts", "goes on with as many"], {
    "a share of the moments begins anew": [
      "if (piece.name !== name) continue;",
      "if (piece.name !== name || piece.length > 0) continue;",
    ],
  }),
  ...plant("pipeline/training/evaluate.ts", RANK_TRAINING, {
    "an evaluation over ranks takes one batch for all": [
      "ofStage[Math.floor(part / size)]",
      "ofStage[0]",
    ],
  }),
  // Layers divided among ranks.
  ...plant("pipeline/model/stage.ts", ["pipeline/model/stage_test.ts", "/trained at one|in flight as/"], {
    "a tied head is trained at both ends": ["return tied && count > 1 && head.trainable;", "return false;"],
    "a stage goes backward as soon as it has gone forward": [
      "const ahead = inFlightOf(shape, microBatches) - 1;",
      "const ahead = 0;",
    ],
  }),
  ...plant("pipeline/model/plan.ts", ["pipeline/model/stage_test.ts", "what waits for backward"], {
    "micro-batches in flight share what waits for backward": [
      "inFlight > 1 && held.some",
      "inFlight > 9 && held.some",
    ],
  }),
  ...plant("pipeline/model/network.ts", CUT_IN_STAGES, {
    "all micro-batches in flight are the first": ["tensors = slots[slot];", "tensors = slots[0 * slot];"],
  }),
  ...plant("pipeline/model/head.ts", CUT_IN_STAGES, {
    "each block of logits is all of them": ["if (only !== undefined && block !== only) continue;", ""],
  }),
  ...plant("pipeline/model/schedule.ts", CUT_IN_STAGES, {
    "a stage gives back what its own parameters need alone": [
      "valuesToDifferentiate(stepsOf(model))",
      "valuesToDifferentiate(steps)",
    ],
  }),
  ...plant("pipeline/parallel/exchange.ts", ["pipeline/parallel/stages_test.ts", "the missing tells first"], {
    "all stages lose patience at once": ["1 + PATIENCE_FOR_EACH * between", "1 + 0 * between"],
  }),
  ...plant("pipeline/parallel/device_link.ts", [
    "pipeline/parallel/stages_test.ts",
    "send before they receive",
  ], {
    "a stage sends the first piece again and again": [
      "partsBetween([tensor], from, Math.min(from + piece, tensor.length))",
      "partsBetween([tensor], 0, Math.min(piece, tensor.length - from))",
    ],
  }),
  ...plant("pipeline/parallel/group.ts", ["pipeline/parallel/stages_test.ts", "ranks in a row"], {
    "the same stages of all pipelines leave their own values out": ["placeOf(rank).set(sent(rank));", ""],
  }),
  ...plant("pipeline/model/needs.ts", ["pipeline/parallel/stage_plan_test.ts", "a model with a tied head"], {
    "a head that is trained elsewhere is planned without its gradient": [
      "headIsElsewhere\n    ? [ofHead]",
      "headIsElsewhere\n    ? []",
    ],
  }),
  ...plant("pipeline/training/trainer.ts", STAGES, {
    "stages measure their own gradient's norm": ["exchange && (sharded || stages)", "exchange && sharded"],
    "a head that is the embedding keeps its weights": ["await pipeline?.shareHead(parameters);", ""],
    "what a step measures is that of the first stage": ["await stagesSum?.run();", ""],
  }),
  ...plant("pipeline/training/pipeline.ts", STAGES, {
    "the head has no part in the embedding's gradient": [
      "addition!.add(values, parts.gradients.get(head.name)!, start)",
      "addition!.add(values.fill(0), parts.gradients.get(head.name)!, start)",
    ],
    "the head's part is added twice where there are blocks": ["recorder.clear(dhead);", ""],
  }),
  ...plant("pipeline/training/evaluate.ts", STAGES, {
    "an evaluation counts the last stage's edges alone": [
      "ofRanks.slice(first, first + count)",
      "ofRanks.slice(first + count - 1, first + count)",
    ],
  }),

  // What is said while one waits.
  ...plant("pipeline/training/time_left.ts", "pipeline/training/time_left_test.ts", {
    "time left counts the compiling of the first unit": ["        of.spans = [];\n", ""],
    "time left takes the first unit for all": ["first: !even", "first: false"],
    "time left waits for a second unit where all are even": ["first: !even", "first: true"],
    "time left has no window": ["inWindow - of.spans[0].units >= WINDOW_UNITS", "inWindow < 0"],
    "time left stands still between units": ["seconds - (last === undefined ? 0 : now - last)", "seconds"],
    "time left counts what stands between": [
      "    begin(now) {\n      last = now;",
      "    begin(now) {\n      last ??= now;",
    ],
  }),
  ...plant("pipeline/report/progress.ts", "pipeline/report/progress_test.ts", {
    "off a terminal a stage is silent": [
      "else if (now() - said >= PLAIN_INTERVAL_MS) line(text);",
      "",
    ],
    "on a terminal a stage is silent": ["if (interactive) draw(text);", ""],
    "lines come every ten seconds": ["const PLAIN_INTERVAL_MS = 2_400;", "const PLAIN_INTERVAL_MS = 10_000;"],
    "work is not told from the time left": ["ofRun?.finish(next.work, units, seconds);", "{}"],
  }),
  ...plant("pipeline/command_thread.ts", ["pipeline/command_thread_test.ts", "SIGTERM ends"], {
    "a held thread is waited for": ["      if (activity?.keep) return;\n", "      if (activity) return;\n"],
    "a command leaves its folder": [
      "        Deno.removeSync(path, { recursive });\n",
      "",
    ],
  }),
  ...plant("pipeline/command_thread.ts", ["pipeline/command_thread_test.ts", "worth saving"], {
    "what is saved is not waited for": ["      if (activity?.keep) return;\n", ""],
    "one wish to stop ends what is saved": ["performance.now() - stoppedAt >= ONE_WISH_MS", "true"],
  }),
  ...plant("pipeline/command_thread.ts", ["pipeline/command_thread_test.ts", "what goes on"], {
    "nothing is said while the thread is held": ["guarded(() => progress.tick())", "{}"],
  }),

  // EAP-IG.
  ...plant("pipeline/circuits/engine.ts", EAP_IG, {
    "EAP-IG takes the middle of its parts": ["b: step / steps }", "b: (step - 0.5) / steps }"],
    "EAP-IG takes the beginning of its parts": ["b: step / steps }", "b: (step - 1) / steps }"],
    "EAP-IG starts from zero": ["interpolation.configure({ a: -1,", "interpolation.configure({ a: 0,"],
    "EAP-IG leaves its first part out": ["step = steps; step > 0; step--", "step = steps; step > 1; step--"],
    "EAP-IG is the mean over one point more": ["1 / steps)", "1 / (steps + 1))"],
    "EAP-IG does not interpolate": ["step === steps ? sources.collect : interpolate", "sources.collect"],
  }),

  // Circuits of every family.
  ...plant("pipeline/circuits/engine.ts", ["pipeline/circuits/engine_test.ts", "asked for together"], {
    "an engine's calls overlap": [
      "const inTurn = oneAtATime();",
      "const inTurn = <Result>(work: () => Promise<Result>) => work();",
    ],
  }),
  ...plant(
    "pipeline/circuits/engine_options.ts",
    ["pipeline/circuits/engine_test.ts", "asked for together"],
    {
      "edges are those that are kept when their turn comes": ["return mask.slice();", "return mask;"],
    },
  ),
  ...plant("pipeline/circuits/engine.ts", ["pipeline/circuits/engine_options_test.ts", "before it runs"], {
    "an ablation that there is not is zero": ["      if (by !== undefined) checkAblation(by);\n", ""],
    "a direction that there is not is denoising": ["      checkDirection(direction);\n", ""],
    "a method that there is not is EAP-IG": ["      checkMethod(method);\n", ""],
    "an engine is made whatever it is asked for": ["  checkEngineOptions(options);\n", ""],
  }),
  ...plant("pipeline/circuits/engine_options.ts", "pipeline/circuits/engine_options_test.ts", {
    "edges are kept twice": ["findIndex((one) => one > 1)", "findIndex(() => false)"],
  }),
  ...plant("pipeline/circuits/engine.ts", ["pipeline/circuits/engine_test.ts", "dense: patched nodes"], {
    "a run begins behind the first input that has changed": ["inputs - 1 : next - 1", "inputs - 1 : next"],
  }),
  ...plant("pipeline/circuits/sources.ts", [CIRCUIT_FAMILIES, "gpt_neox, dense"], {
    "of branches that read one stream only the first has it": [
      "if (stream === name) recorder",
      "if (streams.indexOf(name) === n) recorder",
    ],
  }),
  ...plant("pipeline/circuits/ablation.ts", [CIRCUIT_FAMILIES, "gpt_neox, dense"], {
    "a parallel branch reads what it is added to": [
      "write(n, branch.stream)",
      'write(n, stepIn(branch, "add").reads.stream)',
    ],
  }),
  ...plant("pipeline/circuits/patched_run.ts", [CIRCUIT_FAMILIES, "olmo2, dense"], {
    "what is behind attention keeps the scale of the run before": ["normBehind(branch) ? -1 : to", "to"],
  }),
  ...plant("pipeline/circuits/attribution.ts", [CIRCUIT_FAMILIES, "llama, dense"], {
    "an MLP's gradient is not taken through its norm": [
      'branch.kind === "attention" ? normAttention : normOne',
      'branch.kind === "attention" ? normAttention : undefined',
    ],
  }),
  ...plant("pipeline/circuits/discovery.ts", ["pipeline/circuits/discovery_test.ts", "what a key head"], {
    "a key head belongs to one head": ['kind === "query" ? 1 : heads / keyValueHeads', "1"],
    "key heads are dealt out in turn": ["first + head * group + n", "first + head + n * keyValueHeads"],
  }),
  ...plant("pipeline/circuits/graph.ts", [CIRCUIT_FAMILIES, "keys and values are inputs"], {
    "a parallel MLP reads its layer's heads": ["parallel ? before :", "false ? before :"],
  }),
  ...plant("kernels/rms_norm/parts.wgsl", ["kernels/rms_norm/rms_norm_test.ts", "parts of rows"], {
    "parts have no scale": ["* statistics[inside / ELEMENTS] ", ""],
  }),
  ...plant("pipeline/model/reference_model.ts", ["pipeline/model/families_test.ts", "float64 model"], {
    "a value that two steps read has the gradient of one": [
      "before ? before.map((value, n) => value + gradient[n]) : gradient",
      "gradient",
    ],
  }),
  ...plant(
    "pipeline/model/reference_model.ts",
    ["pipeline/model/families_test.ts", "that is rounded there"],
    {
      "the float64 model's values are not rounded": ["half ? y.map(Math.f16round) : y", "y"],
      "the float64 model's weights are not rounded": ["isHalf && readByProducts", "false"],
      "the float64 model's embedding is rounded": ["step === model.embed ? weights : rounded", "rounded"],
    },
  ),
  ...plant(
    "pipeline/model/ops/attention.ts",
    ["pipeline/model/families_test.ts", "gated: the float64 model"],
    {
      "the float64 model's layers draw the same noise": [
        "...sampled.noise, layer }",
        "...sampled.noise, layer: 0 }",
      ],
    },
  ),
  ...plant(
    "pipeline/model/ops/attention.ts",
    ["pipeline/model/families_test.ts", "weighing by distance"],
    {
      "the float64 model's edges weigh alike": ["...sampled, distancePower, noise", "...sampled, noise"],
    },
  ),
  // Generated text.
  ...plant("pipeline/model/decoder.ts", DECODER, {
    "rows of no token count as read": ["filled += tokens.length;", "filled += rows.count;"],
    "more room forgets what was kept": ["recorder.copy(tensor, kept[n][role]);", ";"],
    "the gates of a decoder have no bias": ["hardGates(gateBias, 1)", "hardGates(gateBias && 0, 1)"],
    "a decoder's gates are open": ['gateBias === undefined ? "dense" : "deterministic"', '"dense"'],
    "a layer reads the keys of the first": ["kept[rows.keeping.indexOf(step)]", "kept[0]"],
    "new tokens stand at the first position": ["op.startAt?.(position);", "op.startAt?.(0);"],
  }),
  ...plant("pipeline/model/ops/embed.ts", [DECODER[0], "english: token by token"], {
    "learned positions begin anew with every token": [
      "startAt: (position) => compiled.startAt(position),\n",
      "",
    ],
  }),
  ...plant("kernels/embedding/forward.wgsl", "kernels/embedding/embedding_test.ts", {
    "embedded positions begin at 0 whatever was before them": ["place.start + position % T", "position % T"],
  }),
  ...plant("pipeline/model/decoder.ts", [DECODER[0], "to the bit"], {
    "what was left over is read in other places": [
      "left.splice(0, count)",
      "left.splice(0, count).toReversed()",
    ],
  }),
  ...plant("pipeline/model/decoder.ts", [DECODER[0], "gives back"], {
    "outgrown keys stay on the device": ["    freeKept(before);\n", ""],
  }),
  ...plant("pipeline/training/sparsify.ts", "pipeline/training/yardstick_test.ts", {
    "the sparse phase goes on from its yardstick's weights": [
      "if (control) await begin();",
      "",
    ],
    "batches are held to the dense loss, not the yardstick's": [
      "targetLoss: yardstick.batchCe[index] + offset",
      "targetLoss: denseValidation.batchCe[index] + offset",
    ],
  }),
  ...plant("pipeline/training/work_ahead.ts", "pipeline/training/yardstick_test.ts", {
    "a step that is taught is taken for an evaluation": [
      '{ kind: "control", share: 1 / controlShare }',
      '{ kind: "evaluation", share: stepShare(settings) }',
    ],
  }),
  ...plant("pipeline/runs/metrics.ts", "pipeline/training/yardstick_test.ts", {
    "rows behind a control that came first are left out": [
      'return first === "control" ? CONTROL_FIRST : PHASES;',
      "return PHASES;",
    ],
  }),
  ...plant("pipeline/sweep/run_sweep.ts", "pipeline/sweep/sweep_test.ts", {
    "a sweep runs again what is finished": ['row.status === "finished" || row.diverged', "row.diverged"],
    "a sweep runs again what diverged": [" || row.diverged", ""],
    "a sweep never goes on with a run": ['? "resume" : "begin"', '? "begin" : "begin"'],
    "a sweep does not wait for another process": ['if (row.status === "running") {', "if (false) {"],
    "a sweep forgets a run that another process has": ["held.push(run);", ""],
  }),
  ...plant("pipeline/sweep/results.ts", "pipeline/sweep/sweep_test.ts", {
    "the variance over seeds is over n": ["/ (n - 1);", "/ n;"],
    "the front is of the worst": ["open <= 0 && loss <= 0 && (", "open >= 0 && loss >= 0 && !("],
  }),
  ...plant("pipeline/training/training_run.ts", "pipeline/training/front_test.ts", {
    "a front's levels have one target": ["evaluated, target + above)", "evaluated, target)"],
    "a front's further levels are lost on resume": [
      "...frontOf(checkpoint).map((level) => level ?? undefined)",
      "",
    ],
    "a front's target does not rise in the rows": [
      "target + levels[levelAt(step)];",
      "target;",
    ],
  }),
  ...plant("pipeline/training/trainer.ts", ["pipeline/training/pretrain_test.ts", "switched on"], {
    "gates act from the first step on": ["gates !== undefined && step >= from", "gates !== undefined"],
    "the first step with gates weighs edges as a dense one": [
      "if (gated && step === from && from > 0) writeScales(true);",
      "",
    ],
  }),
  ...plant("pipeline/training/pretrain.ts", ["pipeline/training/pretrain_test.ts", "switched on"], {
    "a dense step is chosen": ["step < from ? undefined : target", "target"],
    "pre-training weighs edges alike": ["distancePower: settings.distancePower", "distancePower: 0"],
    "the last dense step is measured with gates": ["sparse && done > from", "sparse"],
  }),
  ...plant("pipeline/settings.ts", ["pipeline/settings_test.ts", "/no effect|temperature of training/"], {
    "nothing need be drawn for a seed": ["holds: (temperature) => temperature !== 0,", "holds: () => true,"],
    "gates tell the temperature of texts": ["is another.\n    byModel: false,", "is another.\n"],
  }),
  ...plant("pipeline/ranks.ts", ["pipeline/main_test.ts", "/for one/"], {
    "one process has a limit for others": ['"mpi", "rankLimit"] as const', '"mpi"] as const'],
  }),
  ...plant("pipeline/training/sparsify.ts", ["pipeline/advice_test.ts", "no loss comes to"], {
    "of a target below 0 it is not warned": ["if (target < 0 && target !== warnedOf)", "if (target < -100)"],
    "of a target below 0 it is warned at every step": ["      warnedOf = target;\n", ""],
  }),
  ...plant("pipeline/main.ts", ["pipeline/advice_test.ts", "no loss comes to"], {
    "more steps are advised for what none comes to": [
      "summary.target_loss < 0 ?",
      "summary.target_loss < -100 ?",
    ],
  }),
  ...plant("pipeline/runs/run_folder.ts", ["pipeline/runs/run_folder_test.ts", "of a name that is taken"], {
    "another command's run is to be resumed": ["config.command === command && ", ""],
    "an analysis is to be resumed": [' && command !== "circuits" &&', " &&"],
    "what is finished is to be gone on with": [' &&\n        !await exists(join(path, "summary.json"))', ""],
  }),
  ...plant("pipeline/settings/parse.ts", ["pipeline/settings_test.ts", "are refused"], {
    "a list of a name is shown as the name": [": shown(value);", ": String(value);"],
  }),
  ...plant("pipeline/settings/parse.ts", ["pipeline/settings_test.ts", "--data - --data -"], {
    "standard input is read twice": [
      ".length > 1) {\n        throw usageError(`Cannot use ${label} ",
      ".length > 2) {\n        throw usageError(`Cannot use ${label} ",
    ],
  }),
  ...plant("pipeline/runs/run_folder.ts", ["pipeline/runs/run_folder_test.ts", "a disk for runs"], {
    "a disk that cannot be written is a bad flag": [
      "refused.exitCode === EXIT.device",
      "refused.exitCode === 0",
    ],
  }),
  ...plant("pipeline/sweep/sweep_folder.ts", ["pipeline/sweep/sweep_test.ts", "a full disk keeps"], {
    "a sweep that has not begun leaves its folder": [
      "if (!names) await Deno.remove",
      "if (names) await Deno.remove",
    ],
  }),
  ...plant("pipeline/settings/resume.ts", ["pipeline/settings_test.ts", "pretrain has no slack"], {
    "what a run has not may be new": [".filter((each) => each in own)", ""],
  }),
  ...plant("pipeline/runs/resume.ts", "pipeline/training/front_test.ts", {
    "steps of a front are pruned": ["[bestOf(checkpoint), ...frontOf(checkpoint)]", "[bestOf(checkpoint)]"],
  }),
  ...plant("pipeline/training/front.ts", "pipeline/training/front_test.ts", {
    "the saved model is the front's last": [
      "await load(chosen === null",
      "if (chosen === null) await load(chosen === null",
    ],
  }),
  ...plant("pipeline/training/sparsify.ts", "pipeline/training/front_test.ts", {
    "a front is trained at one target": ["targetAt(step) + levels[levelAt(step)] -", "targetAt(step) -"],
  }),
  ...plant("pipeline/studies/from_scratch.ts", "pipeline/studies/study_test.ts", {
    "an arm that misses its target is praised for few edges": [
      "valuesOf(arm, openAtLoss)",
      "valuesOf(arm, openOf)",
    ],
  }),
  ...plant("pipeline/studies/paired.ts", "pipeline/studies/study_test.ts", {
    "seeds that one setting lacks are compared": [
      "return other === undefined ? [] :",
      "return other === null ? [] :",
    ],
    "an interval of ratios is even on the ratios": ["Math.log(value / other)", "value / other"],
    "an interval that holds no difference is told as one": [
      "low > from || high < from",
      "low > from || high > from",
    ],
  }),
  ...plant("pipeline/studies/sensitivity.ts", "pipeline/studies/study_test.ts", {
    "a setting that missed its target counts as better": [
      "measured.filter(({ group }) => group.feasible === group.rows.length)",
      "measured",
    ],
  }),
  ...plant("pipeline/studies/from_scratch.ts", "pipeline/studies/study_test.ts", {
    "circuits of runs that missed their target count": [
      "isAtLoss(summary) ? circuit?.edges : null",
      "circuit?.edges",
    ],
    "circuits of runs that missed their target are looked for": [
      "const wanted = summary && isAtLoss(summary) &&",
      "const wanted = summary &&",
    ],
    "arms are held to the loss without slack": ["validation.ce + slack", "validation.ce"],
    "an arm's share is of all steps": ["share * (1 - POST_TRAINING)", "share"],
    "English from scratch has the bias of addition": ["gateBias: 0,", "gateBias: 3,"],
  }),
  ...plant("pipeline/studies/main.ts", ["pipeline/studies/command_test.ts", "one part"], {
    "a part that was not asked for is run": ["settings.table || !chosen.includes(part)", "settings.table"],
    "a document has the part alone that was asked for": [
      "for (const part of all) {",
      "for (const part of chosen) {",
    ],
  }),
  ...plant("pipeline/studies/main.ts", ["pipeline/studies/command_test.ts", "written over"], {
    "a page of runs is written over by one of none": [
      "for (const path of isEmpty ?",
      "for (const path of !isEmpty ?",
    ],
  }),
  ...plant("pipeline/studies/study_folder.ts", ["pipeline/studies/command_test.ts", "another checkout"], {
    "a study's folder does not tell the project that it was begun from": [
      '"string") return json.project;',
      '"string") return PROJECT;',
    ],
    "the project is not told by a study's runs": ["await projectOfRuns(folder) ?? PROJECT", "PROJECT"],
    "a look at a study marks its folder": ["if (make) await writeJson", "await writeJson"],
  }),
  ...plant("pipeline/studies/long_range.ts", "pipeline/studies/long_range_test.ts", {
    "dense models that have not learnt are named only where none has": [
      "if (seeds.length === 0) return [];",
      "if (seeds.length < dense.length) return [];",
    ],
    "a needed edge may be of any layer": [
      "(edge.layer ?? layer) === layer && edge.query === query",
      "edge.query === query",
    ],
    "precision counts heads": ["union++;", "union += inHeads;"],
    "a window reaches a key too far": ["Math.ceil(perQuery)) - 1)", "Math.ceil(perQuery)))"],
    "far edges begin a class later": ["classBounds(n).from >= least", "classBounds(n).from > least"],
    "models with a penalty by distance count as those without": [
      " && model.arm.power === arm.power",
      "",
    ],
    "models are set beside others of no pair": [
      "bySeed(weighed.models, read), bySeed(alike.models",
      "bySeed(weighed.models, read), bySeed(weighed.models",
    ],
  }),
  ...plant("pipeline/studies/measure_rows.ts", ["pipeline/studies/long_range_test.ts", "float64"], {
    "a model's edges are those of its first head": [
      "gates[(head * length + query)",
      "gates[(0 * length + query)",
    ],
    "an answer is held against the token before it": ["tokens[query + 1]", "tokens[query]"],
  }),
  ...plant("pipeline/studies/long_range_tasks.ts", "pipeline/studies/long_range_test.ts", {
    "the edge to a pair is that to another": ["joined ? asked[n] :", "joined ? n :"],
    "a value is asked for by another key": ["UPPER[keys[asked[n]]]", "UPPER[keys[n]]"],
    "a window's guess is always wrong": ["known + (1 - known) * chance", "known"],
  }),
  ...plant("pipeline/studies/reinforcement.ts", "pipeline/studies/study_test.ts", {
    "policies that missed their constraint are set beside supervision": [
      "pairedRatio(valuesOf(met(arm.runs), read), valuesOf(met(supervised.runs), read))",
      "pairedRatio(valuesOf(arm.runs, read), valuesOf(supervised.runs, read))",
    ],
    "sparse policies begin where the dense one began": [
      'policiesOf(tools, "dense", denseRows)',
      'policiesOf(tools, "start", denseRows)',
    ],
    "a policy begins at the end of pre-training": [
      "startRuns.push(runOf(run.seed!, { steps }))",
      "startRuns.push(runOf(run.seed!))",
    ],
    "τ is the dense reward": ["(KEPT * validation.reward)", "(validation.reward)"],
  }),
  ...plant("pipeline/studies/main.ts", ["pipeline/studies/command_test.ts", "study of reinforcement"], {
    "a policy that is finished is trained again": ['status === "finished" || diverged', "diverged"],
    "a policy that fails ends the study": [
      "if (!(error instanceof UserError)) throw error;\n        say(",
      "throw error;\n        say(",
    ],
  }),
  ...plant("pipeline/training/reinforce.ts", "pipeline/training/reinforce_test.ts", {
    "λ grows with the reward": ["measured: 1 - reward()", "measured: reward()"],
    "a step's reward is that of its last micro-batch": [
      "if (microBatch === 0) rewards = [];",
      "rewards = [];",
    ],
    "completions are always drawn through hard gates": [
      'drawThrough === "hard" ? "deterministic"',
      'drawThrough !== null ? "deterministic"',
    ],
    "a step is chosen by its loss": ["held: ({ expectedExact }) => 1 - expectedExact,", ""],
    "micro-batches draw by the same numbers": ["step, microBatch * batch + row)", "step, row)"],
  }),
  ...plant("pipeline/training/advantages.ts", "pipeline/training/advantages_test.ts", {
    "an answer is held against itself too": ["group / (group - 1)", "1"],
    "GRPO's deviation is over n": ["0) / (group - 1);", "0) / group;"],
  }),
  ...plant("pipeline/training/roll_out.ts", "pipeline/training/roll_out_test.ts", {
    "the right token stands behind what was drawn": [
      "inputs[at + 1] = token",
      "inputs[at + 1] = rows.targets[at]",
    ],
    "the last token alone decides the reward": [
      "!== rows.targets[at]) rewards[row] = 0",
      "!== rows.targets[at]) rewards[row] = 0;\n      else rewards[row] = 1",
    ],
    "the likeliest token is drawn": ["draw(of, streams[row].uniform())", "of.indexOf(Math.max(...of))"],
  }),
  ...plant("pipeline/training/policy.ts", "pipeline/training/roll_out_test.ts", {
    "the divergence is that of the other from the policy": [
      "sum + Math.exp(of) * (of - q[token])",
      "sum + Math.exp(q[token]) * (q[token] - of)",
    ],
    "padding is measured": ["at < batch.rows * context", "at < batch.targets.length"],
  }),
  ...plant("pipeline/training/trainer.ts", ["pipeline/training/roll_out_test.ts", "very gates"], {
    "every micro-batch is drawn through the gates of the first": [
      "configureGates(step, microBatch * batch)",
      "configureGates(step, 0)",
    ],
  }),
  ...plant("pipeline/training/trainer.ts", ["pipeline/training/trainer_test.ts", "measured elsewhere"], {
    "what was measured elsewhere is held against 0": ["targetLoss: target });", "targetLoss: 0 });"],
  }),
  ...plant("kernels/cross_entropy/loss.wgsl", ["kernels/cross_entropy/cross_entropy_test.ts", "own weight"], {
    "weights have no sign": ["weight *= weights[row];", "weight *= abs(weights[row]);"],
  }),
  ...plant("pipeline/text/tokenise.ts", ["pipeline/text/tokenise_test.ts", "several turns"], {
    "the prompts of turns count too": ["(end) => token < end) % 2 === 1", "(end) => token < end) >= 1"],
  }),
  ...plant("pipeline/sweep/check_runs.ts", "pipeline/sweep/sweep_test.ts", {
    "a sweep does not look for a control that it lacks": ["checkControl(settings);", ""],
    "a sweep does not look at adapters": ["checkAdaptation(settings);", ""],
    "a sweep goes on with other settings": ["if (others === 0) return;", "if (others >= 0) return;"],
    "what a user changed on the way counts as begun with": [
      "before[change.setting] = change.before",
      "change",
    ],
  }),
  ...plant("pipeline/sweep/sweep_file.ts", "pipeline/sweep/sweep_test.ts", {
    "a grid's setting is idle in settings": ["name in grid || ", ""],
    "a setting of all of a list is idle in settings": [" || listed.every((values) => name in values)", ""],
    "a sweep's run is named by what varies alone": ["digestOf(JSON.stringify(sorted))", 'digestOf("")'],
  }),
  ...plant("pipeline/generation/sampling.ts", "pipeline/generation/sampling_test.ts", {
    "top-p keeps one token too many": ["kept < topP * total", "kept <= topP * total"],
    "top-p comes before the temperature": ["(logit - most) / temperature", "logit - most"],
    "what top-p keeps has not all of the probability": ["all[token] / kept)", "all[token] / total)"],
    "sorting leaves out what top-p needs": ["total * (1 - topP) / all.length", "total * (1 - topP)"],
    "of equals the last is the highest": ["logits[token] > logits[best]", "logits[token] >= logits[best]"],
    "every token is drawn by the same number": ["stream.uniform()", "randomStream(seed).uniform()"],
  }),
  ...plant("pipeline/generation/text_stream.ts", "pipeline/generation/text_stream_test.ts", {
    "a part of a character is told": ['text === "" || text.endsWith(NOT_YET)', 'text === ""'],
    "a token is decoded without those before it": [
      "let told = before.slice(-BEFORE);",
      "let told: number[] = [];",
    ],
    "what was told is told again": ["if (open.length > 0) told = open;", ""],
  }),
  ...plant("pipeline/generation/generate.ts", [
    "pipeline/generation/generate_test.ts",
    "a text gets the token",
  ], {
    "a text is not continued as the model's begin": [
      'typeof prompt === "string" ? withStart(tokenizer, own)',
      'typeof prompt === "object" ? withStart(tokenizer, own)',
    ],
  }),
  ...plant("pipeline/generation/generate.ts", GENERATED, {
    "the token that ends a text is a part of it": [
      "if (ends.has(token)) {",
      "if (ends.has(token) && tokens.push(token)) {",
    ],
    "the config's end of text does not end it": [
      "...tokenizer.endsOfText, config.endOfText]",
      "...tokenizer.endsOfText]",
    ],
    "of several tokens that end a text only one does": ["...tokenizer.endsOfText,", "tokenizer.endOfText,"],
    "a sparse model's gates are open": ["dense ? undefined : config.gate?.bias", "undefined"],
    "with all gates open some are closed": ["dense ? undefined : config.gate?.bias", "config.gate?.bias"],
    "a text goes on past what was asked for": [
      "if (tokens.length === most) break;",
      "if (tokens.length > most) break;",
    ],
  }),
  ...plant("pipeline/model/decoder.ts", [GENERATED[0], "a seed gives"], {
    "a text begins behind the one before it": [
      "      filled = 0;\n    },\n\n    async read",
      "    },\n\n    async read",
    ],
  }),
  ...plant("pipeline/generation/main.ts", [GENERATED[0], "/the command|with --dense|standard input/"], {
    "with --dense the line holds the gated text": ["...shown } = found.at(-1)!", "...shown } = found[0]"],
    "the line end of an echo is a part of the prompt": ['.replace(/\\r?\\n$/, "")', ""],
  }),
  // The list of runs, and what is said of each.
  ...plant("serve/runs.ts", ["serve/runs_test.ts", "/list|among many|another program|let go|moment/"], {
    "a run that ended is never looked at again": [
      "new Set([...ended.keys()].slice(0, isSame ? LOOKED_AGAIN : LOOKED_AGAIN_BESIDE))",
      "new Set<string>()",
    ],
    "all runs are looked at in every list": [
      "if (!known || again.has(name)) rest.push(name);",
      "if (true) rest.push(name);",
    ],
    "a changed runs folder is not noticed": [
      "const isSame = stamp !== undefined && stamp === seen?.stamp;",
      "const isSame = stamp !== undefined && seen !== undefined;",
    ],
    "the same runs are looked at again in every list": [
      "      ended.delete(name);\n      ended.set(name, {",
      "      ended.set(name, {",
    ],
    "a run that goes on is not noticed by its folder": [
      "!looked.has(name) ||\n",
      "true ||\n",
    ],
    "every folder is looked at after a run has begun": [
      "goesOn ? owed : [...owed]",
      "true ? owed : [...owed]",
    ],
    "what else began beside a run is not noticed": [
      "new Set(goesOn ? owed : [...owed].slice(0, LOOKED_BESIDE))",
      "new Set(goesOn ? owed : [])",
    ],
    "a run that goes on is noticed late": [
      "const goesOn = !isSame && before",
      "const goesOn = false && before",
    ],
    "when a run began is asked of the disk at every list": [
      "names.filter((name) => !begun.has(name))",
      "names",
    ],
    "rows of runs that ended stay": ["if (!entry.watched) entries.delete(name);", ""],
    "rows that somebody looks at are let go": [
      "if (!entry.watched) entries.delete(name);",
      "entries.delete(name);",
    ],
  }),
  ...plant("pipeline/runs/run_folder.ts", ["serve/runs_test.ts", "among many"], {
    "a lock that is taken shows in no folder's time": [
      "for (const folder of [path, dirname(path)])",
      "for (const folder of [])",
    ],
  }),
  ...plant("serve/run_reader.ts", ["serve/runs_test.ts", "/list opens|target|circuits|defaults/"], {
    "a state is read in every list": ["memory.state?.stamp !== stamp", "true"],
    "metrics are opened in every list": ['if (memory.metrics === stamp) return "done";', ""],
    "what is damaged is read again in every list": ["settled: !passing &&", "settled: !problem &&"],
    "the control has a say in what is chosen": [
      'if (phase === "control" || validation_ce === null',
      "if (validation_ce === null",
    ],
    "the last evaluation counts as chosen": ["return chosen ? before : null;", "return measured(row);"],
    "a target that was lowered keeps what was chosen": ["return chosen ? before : null;", "return before;"],
    "every finished run met its target": ['typeof feasible === "boolean" ? feasible : null', "true"],
    "the chosen step is that of the rows, also at the end": [
      "chosenAtEnd(summary, rows) ?? chosen",
      "chosen",
    ],
    "defaults count as changed": [
      "JSON.stringify(value) !== JSON.stringify(defaults[name])",
      "value !== undefined",
    ],
    "circuits never ended": ["updated = summaryInfo.mtime;", "void 0;"],
  }),
  ...plant("serve/app.ts", ["serve/app_test.ts", "/as it was|thinning keeps/"], {
    "a list that changed keeps its tag": ["texts.some((text, n) => text !== before[n])", "false"],
    "a list that is as it was is sent again": [
      'if (namesTag(context.req.header("If-None-Match"), etag)) return context.body(null, 304);\n    return await answered(context, JSON_TYPE',
      "return await answered(context, JSON_TYPE",
    ],
    "a resumption is thinned away": ["rows[n].seconds < rows[n - 1].seconds", "false"],
  }),
  ...plant("pipeline/circuits/results.ts", ["pipeline/circuits/main_test.ts", "one pair by flags"], {
    "one pair is said to be two halves": [
      "pairs.length === 1 ? null : {",
      "pairs.length === 0 ? null : {",
    ],
  }),
  ...plant("pipeline/circuits/model_analysis.ts", ["pipeline/circuits/main_test.ts", "one pair by flags"], {
    "the mean of one prompt is another ablation": [
      'ablation !== "mean" || pairs.length > 1',
      "true || pairs.length > 1",
    ],
  }),
  ...plant("pipeline/circuits/main.ts", ["pipeline/circuits/main_test.ts", "all pairs of a file"], {
    "a file gives no more pairs than a task": [
      "      prompts,\n      length: settings",
      "      prompts: prompts ?? TASK_PROMPTS,\n      length: settings",
    ],
  }),
  ...plant("pipeline/circuits/off_paths.ts", ["pipeline/circuits/off_paths_test.ts", "random models"], {
    "an edge's effect has the wrong sign": [
      "whole - metricOf(without.logits)",
      "metricOf(without.logits) - whole",
    ],
    "edges are closed one by one however many they are": [
      "circuit.mayMatter <= share",
      "circuit.mayMatter >= 0",
    ],
    "an edge that moves a weight has no effect": [
      "if (!edge.mayMatter) continue;",
      "if (!edge.onPath) continue;",
    ],
    "edges are closed of a model without gates": ["if (!gate) {", "if (gate === null) {"],
  }),
  ...plant("pipeline/activations/document_rows.ts", [ACTIVATIONS, "row for each"], {
    "what pads a row is written": ["length / context * tokens.length", "length"],
    "documents are numbered by their rows": ["fill(place)", "fill(first + row)"],
  }),
  ...plant("pipeline/activations/whole_documents.ts", [ACTIVATIONS, "as prompts are"], {
    "a document that fills the limit is left out": ["total + length > limit", "total + length >= limit"],
    "a document that is cut is not counted": ["if (tokens.length > context) found.cut++;", ""],
  }),
  ...plant("pipeline/activations/main.ts", [ACTIVATIONS, "by one word"], {
    "all gates of a model without are written": ["config.gate || storedForm(", "config || storedForm("],
  }),
  ...plant(
    "pipeline/model/safetensors.ts",
    ["pipeline/model/safetensors_test.ts", "whose values are there"],
    {
      "integers are written as of another type": [
        'values instanceof Int32Array && (type === undefined || type === "I32")',
        "values instanceof Int32Array",
      ],
    },
  ),
  ...plant("pipeline/circuits/report.ts", ["pipeline/circuits/analyse_test.ts", "how many answers must"], {
    "whatever is wrong was exchanged": ["correct === 0 && (corrupted.value ?? 0) > 0", "correct === 0"],
  }),
  ...plant("pipeline/text/one_token.ts", ["pipeline/circuits/tasks_test.ts", "user's pairs"], {
    "a word is looked for without its space": ["const spaced = ` ${text}`;", "const spaced = text;"],
  }),
  ...plant("pipeline/model/activation_names.ts", [
    "pipeline/circuits/interventions_test.ts",
    "unknown activation is told",
  ], {
    "a layer that there is not is a slip of the name": ["if (generalOf(name) !== name &&", "if (false &&"],
  }),
  ...plant("pipeline/circuits/results.ts", ["pipeline/circuits/analyse_test.ts", "two circuits"], {
    "what either circuit has counts as shared": ["one && second[n]", "one || second[n]"],
    "what is no circuit is compared": [
      "circuit && circuit[size].value !== null",
      "circuit",
    ],
  }),
  ...plant("pipeline/circuits/results.ts", ["pipeline/circuits/analyse_test.ts", "every pair's metrics"], {
    "a pair's metric is another's": ["metrics?.[scoring.indexOf(n)]", "metrics?.[n]"],
  }),
  ...plant("pipeline/circuits/report.ts", ["pipeline/circuits/analyse_test.ts", "too few for intervals"], {
    "too few pairs that score are enough": [": !enough_pairs.circuit\n", ": !enough_pairs.metric\n"],
    "the sentence is silent about few pairs": [": enough_pairs.circuit\n", ": enough_pairs\n"],
  }),
  ...plant("pipeline/circuits/results.ts", ["pipeline/circuits/analyse_test.ts", "too few for intervals"], {
    "all pairs count as those that score": [
      "circuit: scoring.length >= FEWEST_PROMPTS",
      "circuit: pairs.length >= FEWEST_PROMPTS",
    ],
  }),
  ...plant("pipeline/circuits/results.ts", ["pipeline/circuits/analyse_test.ts", "edges of every prompt"], {
    "query and key change places": [
      "({ tokens, query }) => tokens[query]",
      "({ tokens, key }) => tokens[key]",
    ],
    "a prompt's edges are the first's": ['prompt: integers("prompt")', 'prompt: integers("head")'],
  }),
  ...plant("pipeline/circuits/report.css", [
    "serve/reports_in_browser.ts",
    "axe finds nothing on a page of circuits, light",
  ], {
    "a choice of long names widens the page": [".controls label {\n  max-width: 100%;", ".controls label {"],
  }),
  ...plant("pipeline/circuits/model_names.ts", ["pipeline/circuits/analyse_test.ts", "/of a kind/"], {
    "two dense models have one name": ["new Set(kinds).size === models.length", "true"],
    "a model of a kind is called dense": ["name === (gated", '"dense" === (gated'],
  }),
  ...plant("pipeline/circuits/results.ts", ["pipeline/circuits/analyse_test.ts", "in one style"], {
    "a count is saved in another style": [
      "const token_circuits = { ...others, on_paths,",
      "const token_circuits = { ...others, onPaths: on_paths, on_paths,",
    ],
  }),
  ...plant("pipeline/circuits/analyse.ts", ["pipeline/circuits/analyse_test.ts", "how many answers must"], {
    "the least share of right answers is not the caller's": [
      "mean(correct) >= leastAccuracy",
      "mean(correct) >= LEAST_ACCURACY",
    ],
  }),
  ...plant("pipeline/circuits/tasks/prompt_pairs.ts", ["pipeline/circuits/tasks_test.ts", "user's pairs"], {
    "pairs that are left out are not counted": ["leftOut++;", "leftOut = 0;"],
    "a pair in memory is named by its place from 1": ["`pairs[${n}]`", "`pairs[${n + 1}]`"],
  }),
  ...plant(
    "pipeline/circuits/tasks/prompt_pairs.ts",
    ["pipeline/circuits/tasks_test.ts", "several lengths"],
    {
      "longer pairs alone are of another length": [
        "if (wanted !== undefined && length !== wanted) continue;",
        "if (wanted !== undefined && length > wanted) continue;",
      ],
      "the token before every text has no length": [
        "pair.clean.length + started",
        "pair.clean.length + 0 * started",
      ],
    },
  ),
  ...plant("pipeline/circuits/tasks/pairs_file.ts", ["pipeline/circuits/tasks_test.ts", "user's pairs"], {
    "lines that begin as an array are one": ["!/\\.(jsonl|ndjson)$/i.test(path) && text", "text"],
  }),
  ...plant("pipeline/circuits/results.ts", ["serve/reports_in_browser.ts", "every count is the data's"], {
    "an edge stands in the next larger circuit": ["smallest[edge] = n;", "smallest[edge] = n + 1;"],
  }),
  ...plant("pipeline/circuits/report.ts", ["serve/reports_in_browser.ts", "every count is the data's"], {
    "the page opens with another circuit than the headline's": [
      "first: counted < 0 ? drawn.length - 1 : counted",
      "first: drawn.length - 1",
    ],
    "heads of the whole graph are counted": ["edges.filter(({ kept }) => kept).map(", "edges.map("],
  }),
  ...plant("pipeline/circuits/report.js", ["serve/reports_in_browser.ts", "every count is the data's"], {
    "the weakest edge is not drawn": [
      "([, , , first]) => first <= at)",
      "([, , , first]) => first <= at).slice(0, -1)",
    ],
    "a node without an edge is drawn": [
      "const nodes = new Map();",
      'const nodes = new Map([["m9", { name: "m9", ...placeOf("m9", width), into: [], out: [] }]]);',
    ],
  }),
  ...plant("pipeline/circuits/report.js", ["serve/reports_in_browser.ts", "nodes by keyboard"], {
    "Escape holds on": ['if (key === "Escape") hold("");', 'if (key === "Escape") hold(held);'],
    "what is left stays lit": [
      'addEventListener("blur", () => look(undefined))',
      'addEventListener("blur", () => look(node))',
    ],
  }),
  ...plant("pipeline/circuits/report.js", ["serve/reports_in_browser.ts", "tokens upright"], {
    "a short token is turned": ["width > step - 4", "width > 0"],
  }),
  ...plant("serve/page/charts.js", ["serve/page_modules_test.ts", "speed"], {
    "speed is taken across a resumption": ["rows[n].seconds < rows[n - 1].seconds", "false"],
    "the line of speeds does not break": [
      "return { ...row, speed: null };",
      "return { ...row, speed: undefined };",
    ],
  }),
  ...plant("serve/page/attention_arcs.js", ["serve/page_in_browser.ts", "256 tokens"], {
    "pointing draws every arc anew": ["query === lit || key === lit)", "query >= 0 || key === lit)"],
    "another least weight draws every arc anew": [
      "position = at;\n      reveal();",
      "position = at;\n      drawEvery();",
    ],
    "arcs that are too light stay": ["n >= position && drawn[n] > 0", "drawn[n] > 0"],
    "arcs are drawn at every pixel that is scrolled": [
      "left <= start && Math.min(",
      "left > start && Math.min(",
    ],
  }),
  ...plant("serve/page/head_thumbnails.js", ["serve/page_in_browser.ts", "256 tokens"], {
    "edges are counted for another head": [
      "counts[layer * heads + head]++",
      "counts[head * heads + layer]++",
    ],
    "heads are as large as ever": ["Math.min(MOST_PIXELS, room / heads, HEIGHT / layers)", "MOST_PIXELS"],
  }),
  ...plant("serve/page/plot.js", ["serve/page_in_browser.ts", "least weight"], {
    "a chart that is made anew has no words": [
      'setAttribute("role", "img");\n    describe();',
      'setAttribute("role", "img");',
    ],
  }),
  ...plant("serve/page/compare.js", ["serve/statements_in_browser.ts", "under an address"], {
    "rows of runs that are over are asked for again": ["run.updated === before.run.updated", "false"],
  }),
  ...plant("serve/page/compare.js", ["serve/page_modules_test.ts", "time of a run"], {
    "a resumed run's time begins anew": ["before += last;", ""],
  }),
  ...plant("serve/page/status.js", ["serve/page_modules_test.ts", "/step that counts|stands by/"], {
    "a run that ended stands by its last evaluation": ["run.chosen ?? run.evaluation;", "run.evaluation;"],
    "a missed target is told as met": ["if (!chosen || target_met === false)", "if (!chosen)"],
  }),
  ...plant("pipeline/report/report.ts", ["pipeline/report/report_test.ts", "/target is met|same bits/"], {
    "every report's target is met": [
      'sparse.feasible ? "✓ Target met" : "✕ Target missed"',
      '"✓ Target met"',
    ],
    "a changed slack gives the same bits": [
      "slackChanges.length > 0\n      ?",
      "slackChanges.length > 99\n      ?",
    ],
    "a wish counts as a signature": ["isSignature: false", "isSignature: true"],
  }),
  ...plant("pipeline/circuits/token_circuit.ts", [
    "pipeline/circuits/token_circuit_test.ts",
    "counted from the end",
  ], {
    "an answer below 0 is counted from the start": [
      "fromStart(given, length",
      "fromStart(given.map(Math.abs), length",
    ],
  }),
  ...plant("pipeline/circuits/head_weights.ts", "pipeline/circuits/head_weights_test.ts", {
    "every head has the keys of its own number": ["K: heads + keyHead", "K: heads + head"],
    "a head has its keys for values": ["V: heads + keyValueHeads + keyHead", "V: heads + keyHead"],
    "every head writes as the first": ["head * length, length", "0, length"],
    "queries have no bias": ["b_Q: vector(places.Q)", "b_Q: vector(places.V)"],
  }),
  ...plant("pipeline/circuits/open_edges.ts", "pipeline/circuits/open_edges_test.ts", {
    "every causal edge is listed": ["gate ? activations.get(gates[layer])! : new", "new"],
    "edges of the least weight are left out": ["edge.weight < (", "edge.weight <= ("],
    "open edges begin with the last layer": [".sort((a, b) => a.layer - b.layer)", ""],
    "who looks is who is looked at": ["queryToken: texts[edge.query]", "queryToken: texts[edge.key]"],
    "a dense model's edges are listed unasked": ["gate === undefined && leastWeight === undefined", "false"],
  }),
  ...plant("pipeline/model/attention_pattern.ts", [
    "pipeline/model/attention_pattern_test.ts",
    "own gates",
  ], {
    "attention of a sparse model is read as if it were dense": ["gateBias ?? config.gate?.bias", "gateBias"],
    "attention is read through gates whatever is asked for": [
      "dense ? undefined : gateBias",
      "gateBias",
    ],
  }),
  ...plant("serve/explorer.ts", ["serve/explorer_test.ts", "behind a sparse one"], {
    "a dense model is looked at through the gates of one of its sizes": [
      "gateBias === undefined ? { dense: true } : { gateBias }",
      "{ gateBias }",
    ],
  }),
  ...plant("serve/explorer.ts", ["serve/explorer_test.ts", "go on from a text"], {
    "the explorer goes on through open gates": [
      "gateBias === undefined ? undefined : { bias: gateBias, temperature: 1 }",
      "undefined",
    ],
    "the explorer goes on by another number of tokens": ["{ tokens: wanted, decoder", "{ decoder"],
  }),

  // What tests said that they looked at.
  ...plant("pipeline/model/attention_pattern.ts", [
    "pipeline/model/attention_pattern_test.ts",
    "in the last block",
  ], {
    "the next token's logits are those of the first block": [
      "network.logits(recorder, parameters, block)",
      "network.logits(recorder, parameters, 0)",
    ],
  }),
  ...plant("pipeline/model/needs.ts", ["pipeline/training/memory_budget_test.ts", "what is told of"], {
    "one moment is planned for two": ["[...ofShare, ...ofShare]", "ofShare"],
  }),
  ...plant("pipeline/training/memory_budget.ts", [
    "pipeline/training/memory_budget_test.ts",
    "what a run takes",
  ], {
    "parts of a run that take nothing are told": ["needs[part] > 0", "needs[part] >= 0"],
  }),
  ...plant("pipeline/text/tokenise.ts", ["pipeline/text/tokenise_test.ts", "splits by document"], {
    "test holds validation's documents": [
      'if (place < HELD_OUT.validation) return "validation";',
      'if (place < HELD_OUT.validation) return "test";',
    ],
    "more documents are held out": ["{ validation: 0.05, test: 0.05 }", "{ validation: 0.05, test: 0.07 }"],
  }),
  // Tokenizers.
  ...plant("pipeline/text/bpe.ts", "pipeline/text/tokenizer_test.ts", {
    "of equal pairs in a short word the last is merged first": [
      "if (pairs[at] < rank) rank = pairs[best = at];",
      "if (pairs[at] < NEVER && pairs[at] <= rank) rank = pairs[best = at];",
    ],
    "a pair in a long word that was merged away is merged again": [
      "if (pairs[at] !== rank) continue;",
      "if (next[at] >= count) continue;",
    ],
    "what stands before a merge in a long word is not looked at again": [
      "if (before[at] >= 0) look(before[at]);",
      "",
    ],
    "merges are not ignored": ["if (ignore_merges) {", "if (ignore_merges && word.length > 999) {"],
    "a text may become a special token by merges": [
      "never.has(made) ? [-3, -3] : [left, right]",
      "[left, right]",
    ],
    "a text may become a special token as a word": [" && !never.has(whole)) return", ") return"],
    "long words are cut before every ▁": ["!/[^▁]▁/.test(text)", "text.length > 0"],
  }),
  ...plant("pipeline/text/pieces.ts", "pipeline/text/tokenizer_test.ts", {
    "(?i:s) is ASCII's": ["[sSſ]", "[sS]"],
    "digits are ASCII's": ["const DIGIT = /\\p{N}/gu", "const DIGIT = /[0-9]/gu"],
    "a space is put before what goes on": [
      'place === "continued" || text === "" ? text : prepend + text',
      'text === "" ? text : prepend + text',
    ],
    "a space is put before every part of a text": [
      'scheme === "first" && place === "start"',
      'scheme === "first"',
    ],
    "of added tokens the first listed is found, not the longest": [
      ".sort((a, b) => b.length - a.length)",
      "",
    ],
    "an added token is found inside a word": ["if (single_word && inWord()) continue;", ""],
    "an added token leaves the space before it": ["if (lstrip) start =", "if (lstrip && rstrip) start ="],
    "an added token leaves the space behind it": ["if (rstrip) end +=", "if (rstrip && lstrip) end +="],
  }),
  ...plant("pipeline/text/bpe_trainer.ts", "pipeline/text/tokenizer_test.ts", {
    "white space is JavaScript's": [
      "\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+/gu",
      "\\s+(?!\\S)|\\s+/gu",
    ],
  }),
  ...plant("pipeline/text/decoder.ts", "pipeline/text/tokenizer_test.ts", {
    "broken bytes are one mark": ['"\\ufffd".repeat(bytes.length)', '"\\ufffd"'],
    "a token's space is lost inside a text": ['else if (each.type !== "Strip") inside', "else inside"],
  }),
  ...plant("pipeline/text/tokenizer.ts", "pipeline/text/tokenizer_test.ts", {
    "the library is not asked at loading": [
      "return agree ? { encode } :",
      "return agree || encode ? { encode } :",
    ],
  }),
  ...plant("pipeline/text/special_tokens.ts", "pipeline/text/tokenizer_test.ts", {
    "add_bos_token: false is not heeded": ["if (adds === false) return found;", ""],
    "a text begins with what config.json names, trained with it or not": [
      "listed(template.before);",
      "listed(template.before ?? config.bos_token_id);",
    ],
    "of a list only the first ends a text": [
      "...listed(config.eos_token_id),",
      "...listed(config.eos_token_id).slice(0, 1),",
    ],
    "generation_config.json is not read": ["...listed(generation.eos_token_id),", ""],
    "a template inside a sequence is not read": ['part?.type === "Sequence" &&', 'part?.type === "Chain" &&'],
  }),
  ...plant("pipeline/text/tokenise.ts", "pipeline/text/start_of_text_test.ts", {
    "documents do not begin with the token that begins a text": [
      "continued || startOfText === undefined ? []",
      "!continued || startOfText === undefined ? []",
    ],
    "every piece of a document begins one": [
      "const continued = spilled.length > this.#start;",
      "const continued = false;",
    ],
    "a completion begins as a text does": ["{ continued: n > 0 }", "{ continued: false }"],
    "the token that begins a text counts as one of the completion": [
      "ends.push(tokens.length);",
      "ends.push(tokens.length - (tokenizer.startOfText === undefined ? 0 : 1));",
    ],
    "data keeps the token that began its texts": [
      "...(startOfText === undefined ? {} : { start_of_text: String(startOfText) }),",
      "...(startOfText === undefined ? {} : {}),",
    ],
    "data keeps the token that ended its texts": [
      "end_of_text: String(endOfText),",
      "end_of_text: String(endOfText > 0),",
    ],
    "standard input is read again": [
      "if (identity.sources !== STANDARD_INPUT || made.sources !== STANDARD_INPUT) return undefined;",
      "if (made.format !== undefined) return undefined;",
    ],
  }),
  ...plant("pipeline/text/batches.ts", "pipeline/text/start_of_text_test.ts", {
    "windows begin as they stand": [
      "startOfText !== undefined &&",
      "startOfText === 0 &&",
    ],
    "a window that begins a text begins it twice": [
      "window[0] !== startOfText",
      "window[0] !== undefined",
    ],
    "the first token of a window is no target": ["const target = t + 1 - before;", "const target = t + 1;"],
  }),
  ...plant("pipeline/circuits/prompts.ts", "pipeline/text/start_of_text_test.ts", {
    "answers are asked where they were before the token that begins a text": [
      "position: place.position + 1",
      "position: place.position",
    ],
  }),
  ...plant("pipeline/circuits/tasks/tasks.ts", "pipeline/text/start_of_text_test.ts", {
    "tasks' prompts do not begin as the model's texts": [
      "if (startOfText === undefined) return task",
      "if (startOfText !== 0) return task",
    ],
  }),
  ...plant("pipeline/circuits/tasks/prompt_pairs.ts", "pipeline/text/start_of_text_test.ts", {
    "pairs do not begin as the model's texts": [
      "return startOfText === undefined ? set",
      "return startOfText !== 0 ? set",
    ],
    "the token that begins a text has no position": [
      "startOfText === undefined ? 0 : 1;",
      "startOfText === undefined ? 0 : 0;",
    ],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/load_model_test.ts", "a text gets the token"], {
    "a text does not begin as the model's do": [
      "withStart(tokenizer, tokenizer.encode(prompt))",
      "tokenizer.encode(prompt)",
    ],
  }),
  ...plant("pipeline/model/activation_names.ts", ["pipeline/load_model_test.ts", "what a block ends with"], {
    "what a block ends with has the next block's name alone": [
      "new Set([`blocks.${layer}.hook_resid_post`, y.name])",
      "new Set([y.name])",
    ],
  }),
  ...plant("pipeline/circuits/logit_attribution.ts", ["pipeline/circuits/logits_test.ts", "component adds"], {
    "a direction passes a layer norm as it passes an RMS norm": [
      'config.norm.kind === "layer" ? scaled',
      'config.norm.kind === "rms" ? scaled',
    ],
    "a head writes past the norm behind its layer": [
      "const { direction, bias: ofNorm } = behind",
      "const { direction, bias: ofNorm } = behind && false",
    ],
    "an MLP's bias counts twice": ["stream.direction) - unowned", "stream.direction) - 0"],
  }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/circuits/interventions_test.ts",
    "what tokens and positions add",
  ], {
    "what replaces a part of the embedding is not read": [
      "if (EMBEDDINGS.some(replaces)) embedding.add",
      "if (EMBEDDINGS.every(replaces)) embedding.add",
    ],
  }),
  ...plant("pipeline/circuits/embedding_parts.ts", [
    "pipeline/circuits/interventions_test.ts",
    "what tokens and positions add",
  ], { "positions count on over the batch": ["(_, n) => n % positions", "(_, n) => n % contextLength"] }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/circuits/interventions_test.ts",
    "scores lead to the pattern",
  ], {
    "scores are replaced behind what is made of them": [
      "      intervene(ofScores, pattern, recorder);\n      explicit.pattern(recorder, tensors);\n",
      "      explicit.pattern(recorder, tensors);\n      intervene(ofScores, pattern, recorder);\n",
    ],
    "a gate's logit is replaced and the gate is not": [
      "      intervene(ofLogits, gates, recorder);\n      explicit.open(recorder, tensors);\n",
      "      explicit.open(recorder, tensors);\n      intervene(ofLogits, gates, recorder);\n",
    ],
    "a masked score is told as the least number": [
      "|| shown[start + key] <= MASKED) shown",
      "|| shown[start + key] < MASKED) shown",
    ],
  }),
  ...plant("kernels/explicit_attention/pattern.wgsl", [
    "kernels/explicit_attention/explicit_attention_test.ts",
    "a masked score has no weight",
  ], {
    "what is masked has weight where there is nothing else": [
      "l > MASKED);\n    gates",
      "j <= i);\n    gates",
    ],
  }),
  ...plant("kernels/explicit_attention/open.wgsl", [
    "kernels/explicit_attention/explicit_attention_test.ts",
    "a masked score has no weight",
  ], { "a gate behind its query opens": [" && at % T <= (at / T) % T", ""] }),
  ...plant("pipeline/model/likeliest.ts", "pipeline/model/likeliest_test.ts", {
    "the likeliest tokens have logits for log-probabilities": ["- highest - Math.log(total)", "- highest"],
    "of equally likely tokens the last comes first": [
      "logits[token] > logits[best[place",
      "logits[token] >= logits[best[place",
    ],
    "logits that are no numbers have a likeliest token": ["!Number.isFinite(total)", "false"],
  }),
  ...plant("pipeline/circuits/logit_lens.ts", ["pipeline/circuits/logits_test.ts", "the lens' tokens"], {
    "the lens leaves the embedding out": [
      'name === "blocks.0.hook_resid_pre" ||',
      'name === "blocks.1.hook_resid_pre" ||',
    ],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/load_model_test.ts", "a logit is taken apart"], {
    "a logit is taken apart at another position": [
      "(length + (options.at ?? -1)) % length",
      "(options.at ?? -1) < 0 ? length - 1 : options.at!",
    ],
  }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/circuits/families_test.ts",
    "qwen2: its activations are read",
  ], {
    "a norm's scale is one over what it divides by": [
      "isScale(name) ? values.map((inverse)",
      "isMasked(name) ? values.map((inverse)",
    ],
  }),
  ...plant("pipeline/model/activation_names.ts", [
    "pipeline/circuits/families_test.ts",
    "olmo: its activations are read",
  ], {
    "a layer norm's scale is its mean": ["row, first: row - 1 };", "row, first: 0 };"],
  }),
  ...plant("pipeline/circuits/interventions.ts", [
    "pipeline/circuits/interventions_test.ts",
    "a position below 0",
  ], {
    "logits are read at positions as they were given": [
      "new Float32Array() : await logitsAt(rows, lengths)",
      "new Float32Array() : await logitsAt(lengths.map(() => at as number[]), lengths)",
    ],
  }),
  ...plant("pipeline/model/replacement.ts", [
    "pipeline/circuits/interventions_test.ts",
    "a position below 0",
  ], {
    "the last position is not the last": [
      "position < 0 ? positions + position : position",
      "position < 0 ? (positions + 1 + position) % positions : position",
    ],
  }),
  ...plant("pipeline/model/replacement.ts", ["pipeline/load_model_test.ts", "what a block ends with"], {
    "one activation is replaced under two names": [
      "other !== name && places.get(other) === places.get(name)",
      "other !== name && other.length === 0",
    ],
  }),
  ...plant("serve/explorer.ts", ["serve/explorer_test.ts", "a prompt begins with"], {
    "an explored prompt does not begin as the model's texts": [
      "withStart(tokenizer, known.tokens)",
      "known.tokens",
    ],
    "what lies beside a tokenizer is read wherever it lies": [
      "if (await exists(beside)) await checkReadable(beside,",
      "if (beside === path) await checkReadable(beside,",
    ],
  }),
  ...plant("pipeline/model/save_weights.ts", [
    "pipeline/model/save_weights_test.ts",
    "how the tokenizer is used",
  ], {
    "how a tokenizer is used is not saved": ["if (!await exists(path)) continue;", "continue;"],
  }),
  ...plant(
    "pipeline/training/prepare_run.ts",
    ["pipeline/runs/resume_test.ts", "/another target/"],
    {
      "a target is taken where a slack holds": [
        'if (!("sparse" in table)) await checkTarget',
        'if ("sparse" in table) await checkTarget',
      ],
      "a pre-trained run's target gives way to a slack": [
        'if (!("sparse" in table)) await checkTarget',
        "await checkTarget",
      ],
      "the target that a run began with is refused": ["targetLoss !== own.targetLoss && await", "await"],
      "a slack and a target are taken together": [
        "slack !== undefined && typeof targetLoss",
        "slack === null && typeof targetLoss",
      ],
    },
  ),
  ...plant("pipeline/runs/control.ts", ["pipeline/runs/resume_test.ts", "only where no slack holds"], {
    "a slack that is asked for does not hold": ["return slack !== null;", "return slack === undefined;"],
    "a slack that took effect does not hold": ["(await readSlackChanges(run, id)).length > 0", "run === id"],
  }),
  ...plant("pipeline/training/prepare_run.ts", ["pipeline/runs/resume_test.ts", "own start of texts"], {
    "a run goes on with another token before its texts": [
      "began.startOfText === found.startOfText",
      "true",
    ],
  }),
  ...plant("pipeline/settings/help.ts", ["pipeline/settings_test.ts", "help names every flag"], {
    "help leaves a flag out": [
      "    const key = flagName(name);\n",
      '    const key = flagName(name);\n    if (key === "seed") continue;\n',
    ],
  }),
  ...plant("pipeline/circuits/tasks/greater_than.ts", [
    "pipeline/circuits/tasks_test.ts",
    "greater-than: all",
  ], {
    "the last year is no right answer": ["other > year)", "other > year && other < 99)"],
  }),
  ...plant("pipeline/circuits/tasks/greater_than.ts", [
    "pipeline/circuits/tasks_test.ts",
    "greater-than: where",
  ], {
    "a token of earlier years too is right": ["later(token).every(", "later(token).some("],
    "what is answered stays in the prompt": ["tokens.length - cut.answered", "tokens.length"],
  }),

  // Kernels, whose own tests hold them: a few, as evidence.
  ...plant("kernels/gated_attention/gate.wgsl", ATTENTION, {
    "a gate at 0 is open": ["return g > 0.0;", "return g > -0.25;"],
    "no straight-through gradient": ["if (NOISE) { slope += relaxed_slope(noisy); }", ""],
    "the pull on saturated gates has no sign": ["2.0 * excess * sign(g)", "2.0 * excess"],
  }),
  ...plant("kernels/gated_attention/gate.wgsl", [ATTENTION, "by distance"], {
    "edges weigh alike": ["  of_mean *= distance_weight(i, j);\n", ""],
    "far edges cost more": ["-DISTANCE_POWER", "DISTANCE_POWER"],
    "an edge weighs by its key's position": ["max(i, j) - j + 1u", "j + 1u"],
  }),
  ...plant("kernels/gated_attention/tiled_gate.wgsl", [ATTENTION, "/tiled.*by distance/"], {
    "in tiles edges weigh alike": ["  of_mean *= distance_weight(i, j);\n", ""],
  }),
  ...plant("kernels/gated_attention/tiled_backward_query.wgsl", [ATTENTION, "/tiled.*by distance/"], {
    "in tiles a query's edges weigh as the first query's": ["    i$s,\n", "    first,\n"],
  }),
  ...plant("kernels/gated_attention/distance.ts", [ATTENTION, "by distance"], {
    "an edge to itself weighs 1": ["positions * (positions + 1) / 2 / sum", "sum / sum"],
  }),
  ...plant("kernels/gated_attention/op.ts", [ATTENTION, "a power that is"], {
    "far edges may cost more": ["distancePower >= 0 &&", "distancePower >= -1 &&"],
  }),
  ...plant("kernels/core/random.wgsl", ATTENTION, {
    "rows have the same noise": ["mix((k ^ row) + 0x9e3779b9u)", "mix(k + 0x9e3779b9u)"],
  }),
  ...plant("kernels/core/heads.wgsl", [ATTENTION, GROUPED], {
    "query heads take key heads in turn": ["head / QUERIES_PER_KEY", "head % KEY_HEADS"],
    "values are keys": ["HEADS + KEY_HEADS + key_head", "HEADS + key_head"],
    "rows have as many key heads as heads": ["HEADS + 2u * KEY_HEADS", "3u * HEADS"],
  }),
  ...plant("kernels/gated_attention/backward_key_value.wgsl", [ATTENTION, GROUPED], {
    "a key head has the gradient of one query head": ["of_group < QUERIES_PER_KEY", "of_group < 1u"],
  }),
  ...plant("kernels/gated_attention/tiled_backward_key_value.wgsl", [ATTENTION, GROUPED], {
    "in tiles a key head has the gradient of one query head": ["of_group < QUERIES_PER_KEY", "of_group < 1u"],
  }),
  ...plant("kernels/gated_attention/tiled_gate.wgsl", [ATTENTION, "tiled 4 x 8 by 16"], {
    "in tiles noise opens fewer gates": ["noisy.x < noisy.y", "noisy.x < 0.5 * noisy.y"],
    "in tiles no straight-through gradient": [
      "slope += select(other, noisy.x * of_sum * noisy.y * of_sum, unit);",
      "",
    ],
    "in tiles the temperature is always 1": ["of_sum, unit)", "of_sum, true)"],
  }),
  ...plant("kernels/gated_attention/tile.wgsl", [ATTENTION, "no number"], {
    "a tile of NaN is taken for an empty one": [
      "any((all & vec4u(0x7fffffffu)) != vec4u())",
      "any(bitcast<vec4f>(all) > vec4f())",
    ],
  }),
  ...plant("kernels/gated_attention/tiled_gate.wgsl", [ATTENTION, "in tiles too"], {
    "in tiles saturated gates are pulled outwards": [
      "g - clamp(g, -bound, bound)",
      "clamp(g, -bound, bound) - g",
    ],
  }),
  ...plant("kernels/gated_attention/tiled_forward.wgsl", [ATTENTION, "tiled 4 x 8 by 16"], {
    "in tiles sums do not shrink when the highest score rises": ["result.r$s_$g *= fall$s;", ""],
    "the first part of a row stands for the second": [
      "SHARES * part + $au] = total$a",
      "SHARES * part + $au] = total0",
    ],
  }),
  ...plant("kernels/gated_attention/cached_append.wgsl", CACHED, {
    "new positions are put one over the other": [
      "cache.filled + row % cache.count",
      "cache.filled + row / cache.count",
    ],
  }),
  ...plant("kernels/gated_attention/cached_forward.wgsl", CACHED, {
    "a new query does not see its own key": ["cache.filled + group.x + 1u", "cache.filled + group.x"],
    "all new queries see the last key": ["cache.filled + group.x + 1u", "cache.filled + cache.count"],
    "gates of the cache are open": ["!GATED || l + cache.bias > 0.0", "true"],
  }),
  ...plant("kernels/gated_attention/head_sums.wgsl", ATTENTION, {
    "dead queries are those of the noise": ["row.w == 0.0", "row.y == 0.0"],
  }),
  ...plant("pipeline/main.ts", ["pipeline/main_test.ts", "whose loss is no number"], {
    "a loss that is no number is an evaluation": ["  checkLoss(result, model);\n", ""],
    "what cannot begin is to go on": [
      "cannotBegin(prepared, error) || (error",
      "(error",
    ],
  }),
  ...plant("pipeline/complete_run.ts", ["pipeline/main_test.ts", "whose loss is no number"], {
    "what cannot begin leaves its folder": ["isVain = cannotBegin(run, error);", "isVain = false;"],
  }),
  ...plant("pipeline/complete_run.ts", ["pipeline/main_test.ts", "kernels that do not compile"], {
    "any new run that fails is taken away": [" && error instanceof UnmeasurableError", ""],
  }),
  ...plant("pipeline/training/sparsify.ts", ["pipeline/main_test.ts", "whose loss is no number"], {
    "a run begins from a loss that is no number": ["  checkLoss(denseValidation, settings.model);\n", ""],
  }),
  ...plant("kernels/core/int8.ts", ["kernels/core/int8_test.ts", "a value that is not finite"], {
    "what is no number is 0 in int8": ["!(size < Infinity)", "size === Infinity"],
  }),
  ...plant("kernels/core/half.ts", ["kernels/core/half_test.ts", "what is no number"], {
    "what is no number is float16's lowest number": [
      "return packed | nan.xz | (nan.yw << vec2u(16u));",
      "return packed;",
    ],
    "infinity is no number in float16": ["magnitude > vec4u(0x7f800000u)", "magnitude >= vec4u(0x7f800000u)"],
    "NaN changes places in float16": ["nan.xz | (nan.yw << vec2u(16u))", "nan.xy | (nan.zw << vec2u(16u))"],
  }),
  ...plant("kernels/core/recorder.ts", ["kernels/core/core_test.ts", "more workgroups along an axis"], {
    "a grid may have any number of workgroups": ["count > MAX_WORKGROUPS", "count > 2 ** 32"],
    "only a grid's first axis is looked at": ["grid.some((", "grid.slice(0, 1).some(("],
  }),
  ...plant("kernels/cross_entropy/op.ts", ["kernels/cross_entropy/cross_entropy_test.ts", "is bound to"], {
    "the loss alone has its targets for a scale": [
      "...(backward ? { scale: backward.scale } : {})",
      "scale: backward?.scale ?? targets",
    ],
  }),
  ...plant("kernels/cross_entropy/loss.wgsl", "kernels/cross_entropy/cross_entropy_test.ts", {
    "targets that do not count have a gradient": [
      "select(0.0, loss.weight * scale[0], target_token < V)",
      "loss.weight * scale[0]",
    ],
    "as many rows have a loss as a grid has workgroups": ["row += groups.x)", "row += arrayLength(&rows))"],
  }),
  ...plant("kernels/distillation/backward.wgsl", "kernels/distillation/distillation_test.ts", {
    "KL's gradient with the teacher's sum for the student's": [
      "student[at + v] - sums.z",
      "student[at + v] - sums.y",
    ],
    "a position that does not count weighs 0 times what others do": [
      "select(0.0, loss.weight * scale[0], sums.w != 0.0)",
      "loss.weight * scale[0] * sums.w",
    ],
    "KL has a gradient in as many rows as a grid has workgroups": [
      "row += groups.x)",
      "row += arrayLength(&rows))",
    ],
  }),
  ...plant("kernels/geco/update.wgsl", "kernels/geco/geco_test.ts", {
    "the constraint is not clipped": [
      "clamp(state[2] / controller.scale, -1.0, 1.0)",
      "state[2] / controller.scale",
    ],
  }),
  ...plant("kernels/layer_norm/backward.wgsl", "kernels/layer_norm/layer_norm_test.ts", {
    "a layer norm's gradient passes by its weight": ["  dh *= weight[n];\n", ""],
    "the layer norm's variance has no gradient": [" - h * means.y", ""],
  }),
  ...plant("kernels/rms_norm/forward.wgsl", "kernels/rms_norm/rms_norm_test.ts", {
    "the RMS norm adds up what it should average": [" / f32(N)", ""],
  }),
  ...plant("kernels/rms_norm/backward.wgsl", "kernels/rms_norm/rms_norm_test.ts", {
    "the RMS norm's scale has no gradient": [" - x[x_at + n] * inverse * mean", ""],
    "the RMS norm's other gradients look past the last row of x": ["row % ROWS", "row"],
  }),
  ...plant("kernels/rms_norm/weight_gradient.wgsl", "kernels/rms_norm/rms_norm_test.ts", {
    "the RMS norm's weight keeps its last gradient alone": ["dweight[n] += sum;", "dweight[n] = sum;"],
  }),
  ...plant("kernels/swiglu/forward.wgsl", "kernels/swiglu/swiglu_test.ts", {
    "SwiGLU gates the gate": ["x[of_gate + COLUMNS]", "x[of_gate]"],
    "the sigmoid is always above a half": ["gate > ELEMENT(0.0)", "gate > ELEMENT(-1e30)"],
  }),
  ...plant("kernels/swiglu/backward.wgsl", "kernels/swiglu/swiglu_test.ts", {
    "silu's slope is the sigmoid": [" + gate * e / ((1.0 + e) * (1.0 + e))", ""],
  }),
  ...plant("kernels/clip/backward.wgsl", "kernels/clip/clip_test.ts", {
    "the clip's gradient is 0 at the limit": ["<= ELEMENT", "< ELEMENT"],
    "the clip has a gradient below its limit's negative": ["abs(x[n])", "x[n]"],
  }),
  ...plant("kernels/rotary/rotate.wgsl", "kernels/rotary/rotary_test.ts", {
    "values turn with the keys": [" && head < TURNED", ""],
    "positions count on through the batch": ["(PAIRS * HEADS) % T", "(PAIRS * HEADS)"],
    "positions begin at 0 whatever was before them": ["place.start + position", "position"],
  }),
  ...plant("kernels/rotary/op.ts", "kernels/rotary/rotary_test.ts", {
    "rotary's gradient turns as the values did": ['kernel("backward", -1)', 'kernel("backward", 1)'],
  }),
  ...plant("kernels/rotary/frequencies.ts", "kernels/rotary/rotary_test.ts", {
    "Llama 3 stretches short waves": [
      "(1 - kept) * frequency / factor + kept * frequency",
      "kept * frequency / factor + (1 - kept) * frequency",
    ],
  }),
  ...plant("kernels/query_key_norm/weights.wgsl", "kernels/query_key_norm/query_key_norm_test.ts", {
    "keys have the queries' weight": ["return key_weight[n]", "return query_weight[n]"],
  }),
  ...plant("kernels/query_key_norm/weight_gradient.wgsl", "kernels/query_key_norm/query_key_norm_test.ts", {
    "the weight of keys hears of one head of them": [
      "select(KEYS, QUERIES, is_query)",
      "select(1u, QUERIES, is_query)",
    ],
  }),
  ...plant("kernels/query_key_norm/groups.wgsl", "kernels/query_key_norm/query_key_norm_test.ts", {
    "the width of a group is that of keys": ["select(KEY_WIDTH, QUERY_WIDTH, of_row < QUERIES)", "KEY_WIDTH"],
  }),
  ...plant("pipeline/model/ops/rms_norm.ts", "pipeline/model/model_ops_test.ts", {
    "the stream's gradient is lost at an RMS norm": ["dresidual: plus,", ""],
  }),
  ...plant("pipeline/model/ops/linear.ts", ["pipeline/model/model_ops_test.ts", "a product without a bias"], {
    "a product that ends in exact GELU ends in GPT-2's": [
      'ended(gpu, { gelu: "exact" })',
      'ended(gpu, { gelu: "tanh" })',
    ],
  }),
  ...plant("pipeline/model/trace.ts", [
    "pipeline/model/families_test.ts",
    "larger than a binding, stored as f16",
  ], {
    "no room for the partial sums of an f16 product": [
      "needsPartial({ ...sizes, accumulate: beside !== undefined }, maxBindingBytes) &&",
      "false &&",
    ],
  }),
  ...plant("pipeline/model/config_file.ts", "pipeline/model/model_config_test.ts", {
    "every model of an earlier version's runs is GPT-2": [
      "{ ...gpt2, ...sizes, ...more }",
      "{ ...gpt2, ...sizes }",
    ],
    "a run's model may be of choices that its family does not have": [
      "faultOfSizes(config) === undefined && isBuiltAsRead(config)",
      "faultOfSizes(config) === undefined",
    ],
  }),
  ...plant("pipeline/model/config.ts", "pipeline/training/memory_budget_test.ts", {
    "f16 of heads that turn in part": ["turned % 8 === 0 ?", "turned % 4 === 0 ?"],
  }),
  ...plant("pipeline/report/memory_needs.ts", "pipeline/report/memory_needs_test.ts", {
    "every stage takes what the first does": [
      "memoryNeeds(config, { ...shape, stage, recompute, half }",
      "memoryNeeds(config, { ...shape, stage: stage && shapes[0], recompute, half }",
    ],
    "needs without recomputing": ["{ ...shape, stage, recompute, half }", "{ ...shape, stage, half }"],
  }),
  ...plant("kernels/matmul/linear.ts", "kernels/matmul/linear_test.ts", {
    "every slice of a weight meets the first columns of x": [
      "{ aStride: inputs, aColumn: start } : {}",
      "{ aStride: inputs, aColumn: 0 } : {}",
    ],
    "a bias is added for every slice": ["bias: first && bias", "bias"],
    "the last slice takes the place of the others' sum": [
      "residual: (first && residual) || (last && throughPartial)",
      "residual: first && residual",
    ],
    "slices of dx stand one upon another": ["cStride: inputs, cColumn: start", "cStride: inputs, cColumn: 0"],
    "slices of dweight read the first columns of x": [
      "(sliced && { aStride: inputs, aColumn: start })",
      "(sliced && { aStride: inputs, aColumn: 0 })",
    ],
  }),
  ...plant("kernels/matmul/low_rank.ts", LORA_KERNELS, {
    "columns without an adapter keep what stood there": ["if (covered < outputs) recorder.clear(sum);", ""],
    "every adapter reads the first columns of x A": [
      "aColumn: first,\n        cStride: outputs",
      "cStride: outputs",
    ],
    "a gradient without the scale": ["k: rows,\n        scale,", "k: rows,"],
    "dx of an adapter is left out": ["if (dx) ofX.record", "if (!dx) ofX.record"],
  }),
  ...plant("kernels/matmul/op.ts", LORA_KERNELS, {
    "odd columns overwrite their neighbours": ["!(neighbours && ", "!(false && "],
  }),
  ...plant("kernels/matmul/linear.ts", LORA_KERNELS, {
    "a layer takes the place of its adapters": [
      "accumulate: (accumulate || !first) && ",
      "accumulate: !first && ",
    ],
  }),
  ...plant("pipeline/model/adapter_parameters.ts", LORA_LLAMA, {
    "adapters of all parts add to the first columns": [
      "widths.slice(0, n).reduce((sum, count) => sum + count, 0)",
      "0",
    ],
    "adapters decay": [
      "decayFrom: Infinity,\n    trainable: true",
      "decayFrom: 0,\n    trainable: true",
    ],
  }),
  ...plant("pipeline/model/ops/linear.ts", LORA_FLOAT64, {
    "float64 forgets the gradient through an adapter": [
      "dx.map((value, n) => found.x[n] + value)",
      "found.x",
    ],
  }),
  ...plant("pipeline/model/schedule.ts", ["pipeline/model/lora_test.ts", "gpt_neox, gated: logits"], {
    "backward goes past what is trained to an adapter's layer": ["if (trained || ", "if (trained && "],
  }),
  ...plant("pipeline/model/adapters.ts", LORA_FLOAT64, {
    "ranks are never stabilised": ["rankStabilised ? Math.sqrt(rank) : rank", "rank"],
  }),
  ...plant("pipeline/model/adapter_config.ts", "pipeline/model/adapter_config_test.ts", {
    "every module has the first rank": ["rank: rankOf(path) ?? rank as number", "rank: rank as number"],
    "every module has the first α": ["alpha: alphaOf(path) ?? alpha as number", "alpha: alpha as number"],
    "what is excluded is adapted": ["target(path) && !excluded(path)", "target(path)"],
    "all layers are adapted": ["(!layers || layers.includes(layerOf(path)))", "true"],
  }),
  ...plant("pipeline/model/stored.ts", LORA_FLOAT64, {
    "an adapter's A stands by head": [' && !name.endsWith(".lora_A.weight")', ""],
  }),
  ...plant("pipeline/model/stored.ts", ["pipeline/model/adapter_config_test.ts", "torch.nn.Linear"], {
    "an adapter of Conv1D is not transposed": ["(transposed || adapter === true)", "transposed"],
  }),
  ...plant("pipeline/model/adapter_files.ts", ["pipeline/model/lora_test.ts", "merged weights"], {
    "a part is merged with the As of another": ["first += ranks[n];", ""],
  }),
  ...plant("pipeline/model/needs.ts", LORA_NEEDS, {
    "gradients are planned for what is frozen": [
      "const ofTrained = trained.map(",
      "const ofTrained = parameters.map(",
    ],
    "a teacher has adapters of its own": ["(!adapter || teacherAdapted)", "true"],
  }),
  ...plant(
    "pipeline/training/trained_weights.ts",
    ["pipeline/training/lora_run_test.ts", "begins with an adapter"],
    {
      "an adapter to begin with is forgotten": ["adaptation?.from?.read(name) ??", "undefined ??"],
    },
  ),
  ...plant("pipeline/training/adaptation.ts", [
    "pipeline/training/lora_run_test.ts",
    "begins with an adapter",
  ], {
    "a teacher goes without the adapter that a run began with": ["from !== undefined ||", ""],
  }),
  ...plant("pipeline/training/adaptation.ts", ["pipeline/training/lora_run_test.ts", "killed and goes on"], {
    "a control that teaches leaves its adapters behind": [
      '(teacherOf(settings) === "control" && adapters !== undefined)',
      "false",
    ],
  }),
  ...plant("pipeline/training/sparsify.ts", ["pipeline/training/yardstick_test.ts", "where it teaches"], {
    "the control that teaches is the dense model": [
      'if (teacher === "dense") return await fillDense(own);',
      "if (own) return await fillDense(own);",
    ],
  }),
  ...plant("kernels/adamw/adamw.wgsl", "kernels/adamw/adamw_test.ts", {
    "all columns decay": ["n % COLUMNS >= DECAY_FROM", "true"],
  }),
  ...plant("kernels/gelu/backward.wgsl", "kernels/gelu/gelu_test.ts", {
    "GELU's slope without its 3": ["0.134145", "0.044715"],
  }),
  ...plant("kernels/core/gelu_exact.wgsl", ["kernels/gelu/gelu_test.ts", "off by float32's rounding"], {
    "the normal tail is off in the sixth digit": ["0.0983782932", "0.0983792932"],
  }),
  ...plant("kernels/gelu/backward_exact.wgsl", "kernels/gelu/gelu_test.ts", {
    "exact GELU's slope is Φ": [" + value * 0.3989422804 * e", ""],
  }),
  // The plan of a run.
  ...plant("pipeline/model/needs.ts", [PLANNED, "what is frozen"], {
    "what is trained is called frozen": [
      "trained: needs.weights - needs.frozen",
      "trained: needs.frozen",
    ],
  }),
  ...plant("pipeline/model/arithmetic.ts", [PLANNED, "arithmetic is"], {
    "frozen weights have gradients too": [
      "sum(matrices.filter(({ trainable }) => trainable))",
      "sum(matrices)",
    ],
    "attention over all pairs": ["context * (context + 1) / 2", "context * context"],
    "what is computed anew is not counted": [
      "(flop, step) => flop + forwardOf(step), 0) : 0,",
      "(flop) => flop, 0) : 0,",
    ],
    "a gradient of what has none": [
      "hasDx ? matrices : secondOf(step)",
      "true ? matrices : secondOf(step)",
    ],
  }),
  ...plant("pipeline/report/training_plan.ts", [PLANNED, "/what fits|a plan for people|a size/"], {
    "what fits is below memory, whatever a binding holds": [
      " && largestBinding <= plans.binding",
      "",
    ],
    "the measurement of the constraint at every step": ["forward / constraintEvery", "forward"],
    "GB are GiB": ["gb: 1e9", "gb: 2 ** 30"],
    "the largest is one too few": [
      "else high = middle - 1;\n  }\n  return low;",
      "else high = middle - 1;\n  }\n  return low - 1;",
    ],
  }),
  ...plant("pipeline/model/held_weights.ts", ["pipeline/training/lora_run_test.ts", "frozen as int8"], {
    "an adapter that stands beside is in the weights too": [
      "adapter!.read(name) : base.read(name)",
      "adapter!.read(name) : mergedWeights(base, adapter!).read(name)",
    ],
  }),
  ...plant("pipeline/report/training_plan.ts", [
    "pipeline/report/training_plan_test.ts",
    "plan takes an adapter",
  ], {
    "the plan of an adapter has no teacher of its own": [
      "teacherAdapted: teacherIsAdapted(settings, { adapters, from }) }",
      "teacherAdapted: false }",
    ],
  }),
  ...plant("pipeline/model/decoder.ts", ["pipeline/model/decoder_test.ts", "rows of which"], {
    "there is room for logits that nobody reads": ["held, withLogits: false }", "held, withLogits: true }"],
  }),
  ...plant("pipeline/benchmarks/benchmark.ts", [BENCHMARKED, "items that are cut"], {
    "an item is counted for each of its choices that is cut": [
      "encoded.filter((sequences) => sequences.some(({ cut }) => cut)).length",
      "encoded.flat().filter(({ cut }) => cut).length",
    ],
  }),
  ...plant("kernels/core/device.ts", ["kernels/core/core_test.ts", "a device that is ended"], {
    "a device is destroyed while it works": [
      "    await Promise.race([done, this.device.lost]);\n",
      "    void done;\n",
    ],
  }),
  // What fails on the device.
  ...plant("pipeline/model/runner.ts", "pipeline/model/runner_test.ts", {
    "steps that do not compile go unheard": ["  await Promise.allSettled(compiling.values());\n", ""],
  }),
  ...plant("kernels/core/kernel.ts", ["pipeline/main_test.ts", "do not compile"], {
    "an error tells a shader's whole source": ['${said.split("\\n")[0]}`', "${said}\\n${numbered}`"],
  }),
  ...plant("pipeline/model/network.ts", [
    "pipeline/failed_preparations_test.ts",
    "a network that is too large",
  ], {
    "a network that fails is left in part": [
      "return allOrNothing(() => prepare(gpu, config, shape));",
      "return prepare(gpu, config, shape);",
    ],
  }),
  ...plant("pipeline/training/trainer.ts", ["pipeline/failed_preparations_test.ts", "trained with it"], {
    "a trainer that fails is left in part": [
      "return allOrNothing(() => create(gpu, options));",
      "return create(gpu, options);",
    ],
  }),
  ...plant("pipeline/circuits/engine.ts", ["pipeline/failed_preparations_test.ts", "looks into"], {
    "an engine that fails is left in part": [
      "return await allOrNothing(() => create(gpu, model, options));",
      "return await create(gpu, model, options);",
    ],
  }),
  ...plant("kernels/core/all_or_nothing.ts", "kernels/core/all_or_nothing_test.ts", {
    "a part that stands is left where the whole fails": [
      "enter(account.within, buffer, free);",
      "enter(undefined, buffer, free);",
    ],
    "what was freed in the middle is freed again": ["  accounts.get(buffer)?.held.delete(buffer);\n", ""],
    "what goes on behind a failure makes more": [
      'if (account?.state === "freed") {',
      "if (account === null) {",
    ],
  }),
  // Reading by texture.
  ...plant("kernels/core/textures.ts", ["kernels/core/textures_test.ts", "several layers"], {
    "of a texture's last layer the rows are copied into the first": [
      "Math.floor(first / (ROW * LAYER))];",
      "0];",
    ],
    "elements of a texture's second layer are read from the first": [
      "at >> ${layer}u`;",
      "0u`;",
    ],
    "the elements behind a texture's last whole row are not copied": [
      "    copy(inWholeRows, texels - inWholeRows);\n",
      "",
    ],
    "the rows behind a texture's last whole layer are those of the first": [
      "copy(inWholeLayers, ROW,",
      "copy(0, ROW,",
    ],
  }),
  ...plant("kernels/core/textures.ts", ["kernels/core/textures_test.ts", "what cannot be read"], {
    "a kernel reads more by texture than it can": ["    if (reads.size === most) break;\n", ""],
    "a kernel reads a texture of a format that there is not": [
      "    if (!formats.has(texel.format)) continue;\n",
      "",
    ],
  }),
  ...plant("pipeline/command_line.ts", ["pipeline/command_line_test.ts", "what Mesa reads"], {
    "what a user has set for Mesa is overwritten": ["if (!Deno.env.get(name)) Deno.env", "Deno.env"],
  }),
  ...plant("kernels/core/kernel.ts", ["pipeline/destroyed_test.ts", "a tensor"], {
    "a kernel takes what was destroyed": ["      checkTensor(tensor);\n", ""],
  }),
  ...plant("kernels/core/uniform.ts", ["pipeline/destroyed_test.ts", "a tensor"], {
    "a uniform takes values when it was destroyed": ["      checkTensor(tensor);\n", ""],
  }),
  ...plant("kernels/core/tensor.ts", ["pipeline/destroyed_test.ts", "freed once"], {
    "what is destroyed twice counts twice": ["  if (destroyed.has(tensor.buffer)) return;\n", ""],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/run_options_test.ts", "of another type"], {
    "types of what is run are not looked at": ["        checkRun(prompts, options);\n", ""],
    "what a hook gives back is not looked at": ["      checkGivenBack(activation, changed);\n", ""],
  }),
  ...plant("pipeline/option_checks.ts", "pipeline/run_options_test.ts", {
    "any array is values": ["value instanceof Float32Array]", "isList(value)]"],
    "keys of a patch are not looked at": [
      "checkKeys(what, patch, OF_PATCH, doing);",
      "checkKeys(what, patch, Object.keys(patch ?? {}), doing);",
    ],
    "a slip is an option": ["checkKeys(what, options, Object.keys(kinds), doing);", ""],
  }),
  ...plant("pipeline/load_model.ts", ["pipeline/run_options_test.ts", "before they do anything"], {
    "a model is loaded with whatever is given": ["  checkLoad(options);\n", ""],
  }),
  ...plant("pipeline/generation/generate.ts", ["pipeline/run_options_test.ts", "before they do anything"], {
    "a text is continued with whatever is given": ["  checkGeneration(options);\n", ""],
  }),
  // Benchmarks.
  ...plant("pipeline/benchmarks/requests.ts", [BENCHMARKED, "/a request is cut|windows count/"], {
    "white space stays with the context": ["const before = stripEnd(context);", "const before = context;"],
    "the continuation is encoded by itself": [
      "const first = withStart(tokenizer, tokenizer.encode(before)).length;",
      "const first = withStart(tokenizer, tokenizer.encode(before + behind)).length - tokenizer.encode(behind).length;",
    ],
    "a long request is cut at its end": [
      "tokens.slice(-(contextLength + 1))",
      "tokens.slice(0, contextLength + 1)",
    ],
    "what is cut is not counted": [
      "const isCut = tokens.length > contextLength + 1;",
      "const isCut = false;",
    ],
    "a continuation that is too long is measured in part": [
      "if (counted > contextLength) {",
      "if (counted < 0) {",
    ],
    "the last window is not filled up": [
      "tokens.slice(done - contextLength - 1, done)",
      "tokens.slice(done - counted - 1, done)",
    ],
  }),
  ...plant("pipeline/benchmarks/tasks.ts", [BENCHMARKED, "/a row of|a gap/"], {
    "no space before a choice": ["continuation: ` ${text}` })", "continuation: text })"],
    "the rest of a sentence keeps its capitals": [
      ".slice(first.length).toLowerCase()",
      ".slice(first.length)",
    ],
    "brackets stay": ['.replace(/\\[.*?\\]/g, "").replaceAll("  ", " ")', '.replaceAll("  ", " ")'],
    "one right answer of several": ["several ? right : only(", "only("],
  }),
  ...plant("pipeline/benchmarks/items.ts", [BENCHMARKED, "a gap"], {
    "lengths in JavaScript's units": ["[...text].length", "text.length"],
  }),
  ...plant("kernels/core/gpu_adapters.ts", ["kernels/core/gpu_adapters_test.ts", "OpenGL"], {
    "OpenGL is asked with the others": ["filter((backend) => backend !== LAST)", "filter(() => true)"],
    "a CPU driver before a GPU": ["fastest && !fastest.description.software", "fastest"],
  }),
  ...plant("kernels/core/gpu_adapters.ts", ["kernels/core/gpu_adapters_test.ts", "at once"], {
    "adapters are asked for at once": [
      "const inTurn = oneAtATime();",
      "const inTurn = <Result>(work: () => Promise<Result>) => work();",
    ],
  }),
  ...plant("kernels/core/one_at_a_time.ts", ["kernels/core/gpu_adapters_test.ts", "at once"], {
    "nobody is asked behind one that failed": ["last = result.catch(() => {});", "last = result;"],
  }),
  ...plant("pipeline/report/stage_time.ts", "pipeline/report/stage_time_test.ts", {
    "stages wait for nobody": ["Math.max(queue.free, begins) +", "queue.free +"],
    "a tied embedding costs nothing": [
      "index === last && last > 0 ? blocks * embedding : 0",
      "index === last && last > 0 ? 0 : 0",
    ],
    "gradients come behind the last stage's end": [
      "const ends = queues.map(({ free }, index) => free +",
      "const ends = queues.map((_, index) => passes +",
    ],
  }),
  ...plant("pipeline/model/arithmetic.ts", "pipeline/report/stage_time_test.ts", {
    "every stage has the head": [
      "flop + forwardOf(step), hasHead ? headForward : 0)",
      "flop + forwardOf(step), headForward)",
    ],
  }),
  ...plant("pipeline/model/self_check.ts", ["pipeline/model/self_check_test.ts", "what is checked"], {
    "training is not checked": ["...training ? OF_TRAINING : []", "...[]"],
    "kept keys are not checked": ["...generation ?", "...!generation ?"],
    "edges that weigh by distance are not checked": ["{ ...shape, distancePower }", "shape"],
    "operations are not checked": ["flatMap(({ op }) => op.checks)", "flatMap(() => [])"],
    "what is fused is not checked": ["group.length > 1 ?", "group.length > 2 ?"],
    "interventions are not checked": ["...interventions ? OF_INTERVENTIONS : []", "...[]"],
  }),
  ...plant("pipeline/model/self_check.ts", CHECK_OF_STORED, {
    "the head of half precision is not checked": ['if (!half && stored !== "f16") return [];', "return [];"],
    "how models are stored is not checked": ["stored[n] ?? {}", "{}"],
  }),
  ...plant("pipeline/model/ops/linear.ts", CHECK_OF_STORED, {
    "products of what is stored are not checked": ["      ...checksOfStored(),\n", ""],
    "adapters are not checked": ["...isAdapted\n        ?", "...!isAdapted\n        ?"],
  }),
  ...plant("kernels/matmul/workgroup.wgsl", CHECK_OF_GPU, {
    "each later slab is the first again": ["min(slab + $pu + 1u, SLABS - 1u) * DEPTH", "0u * DEPTH"],
  }),
  ...plant("kernels/gated_attention/tiled_forward.wgsl", CHECK_OF_GPU, {
    "what was summed up does not fall": ["let fall = exp(highest - higher);", "let fall = 1.0;"],
  }),
  ...plant("kernels/matmul/check.ts", CHECK_OF_GPU, {
    "products are checked in one slab": ["k: 140", "k: 8"],
    "one variant of a product is checked": [
      "variant, m, n) < Infinity);",
      "variant, m, n) < Infinity).slice(0, 1);",
    ],
  }),
  ...plant("kernels/gated_attention/check.ts", CHECK_OF_GPU, {
    "attention is checked in one tile": [": { positions: 130, headSize }", ": { positions: 5, headSize }"],
    "one variant of attention is checked": [
      "variants: (AttentionVariant | undefined)[] = tuned",
      "variants: (AttentionVariant | undefined)[] = !tuned",
    ],
  }),
  ...plant("pipeline/benchmarks/likelihood.ts", [BENCHMARKED, "log-likelihoods dense"], {
    "the context must be the likeliest too": [
      "let position = tokens.length - 1 - counted;",
      "let position = 0;",
    ],
    "each is likeliest if the last is": [
      "greedy &&= lossRows[at + 1] === 1;",
      "greedy = lossRows[at + 1] === 1;",
    ],
    "scores in the order of the batches": [
      "found[index] = likelihoods[row]",
      "found[row] = likelihoods[row]",
    ],
  }),
  ...plant("pipeline/benchmarks/likelihood.ts", [BENCHMARKED, "log-likelihoods through"], {
    "gates that are open": ['gate ? "deterministic" : "dense"', '"dense"'],
    "benchmarks through gates without their bias": ["hardGates(gate?.bias, rows)", "hardGates(0, rows)"],
  }),
  ...plant("pipeline/benchmarks/metrics.ts", [BENCHMARKED, "/means, standard|of equals|interval/"], {
    "the deviation of all": ["(count - 1) / count", "count / count"],
    "of equals the last": ["value > values[best]", "value >= values[best]"],
    "a test of one side": ["Math.min(1, 2 * tail)", "Math.min(1, tail)"],
    "a share that underflows": ["Math.exp(each - most)", "Math.exp(each)"],
    "the middle half": ["0.025 * (RESAMPLES", "0.25 * (RESAMPLES"],
  }),
  ...plant("pipeline/benchmarks/passkey.ts", [PASSKEY, "/in one place|are spread|the same seed/"], {
    "a text is one token too long": ["tokens.length - 1;", "tokens.length - 2;"],
    "half of the room is left empty": [
      "if (isAllowed(middle)) most = middle;",
      "if (!isAllowed(1)) most = middle;",
    ],
    "the needle's depth is what stands behind it": [
      "filler.length * depth / 100",
      "filler.length * (100 - depth) / 100",
    ],
    "the distance counts the number too": [
      "    encode(request).counted;",
      "    0;",
    ],
    "each length has one depth": ["(n + Math.floor(n / turn))", "(n + 0 * turn)"],
    "items are those of their place in the list": ["depth, Math.floor(n / cells));", "depth, n);"],
    "one number for all": ["LOWEST + below(NUMBERS)", "10_000 + below(1)"],
    "all copies are the first": ["Math.floor(n / cells)", "0 * cells"],
  }),
  ...plant("pipeline/benchmarks/passkey.ts", [PASSKEY, "lengths are the powers"], {
    "lengths by the first model": [
      "b.contextLength < a.contextLength ? b : a",
      "b.contextLength < 0 ? b : a",
    ],
    "a length as long as the model is too long": [
      "length <= Math.min(LONGEST, contextLength)",
      "length < Math.min(LONGEST, contextLength)",
    ],
  }),
  ...plant("pipeline/benchmarks/passkey.ts", [PASSKEY, "a length without room"], {
    "a text without filler is an item": ["if (sentences === 0)", "if (sentences < 0)"],
    "the least room is of any number": ["if (length > most)", 'if (widest === "")'],
    "the least room is of any sentence": ["return Math.max(...rooms);", "return rooms[0];"],
  }),
  ...plant("pipeline/benchmarks/scores.ts", [PASSKEY, "/right answers|scores dense/"], {
    "means by depth in the order of the items": [".toSorted(([a], [b]) => a - b)", ""],
    "means by length are those of all": ["reported(of.map(({ score }) => score))", "reported(scores)"],
    "the distance of all": [
      "meanOf(of.map(({ distance }) => distance))",
      "meanOf(placed.map(({ distance }) => distance))",
    ],
  }),
  ...plant("pipeline/command_thread.ts", ["pipeline/command_thread_test.ts", "outgrows its limit"], {
    "a limit on files ends a command without a word": ["  surviveFileLimit();\n", ""],
  }),
  ...plant("pipeline/command_line.ts", ["pipeline/command_line_test.ts", "outgrows its limit"], {
    "a limit on files ends a sweep without a word": ["  surviveFileLimit();\n", ""],
  }),
  ...plant("pipeline/errors.ts", ["pipeline/files_test.ts", "/a path is free|keeps programs from/"], {
    "a path of the system's own is a bug": [
      "error instanceof Deno.errors.NotCapable",
      "error instanceof RangeError",
    ],
    "a path below a file is a full disk": [
      "IN_THE_WAY.some((kind) => error instanceof kind) ? EXIT.usage : EXIT.device",
      "EXIT.device",
    ],
  }),
  ...plant("pipeline/files.ts", ["pipeline/files_test.ts", "/a path is free|keeps programs from/"], {
    "what cannot be looked at is taken": [
      "    throw storageError(path, error);\n  });\n  if",
      "    return true;\n  });\n  if",
    ],
    "a link to nothing is free": ["await Deno.lstat(path).then(", "await Deno.stat(path).then("],
  }),
  ...plant("pipeline/benchmarks/output_folder.ts", "pipeline/benchmarks/output_folder_test.ts", {
    "two benchmarks write one folder": ["if (lock.tryLockSync(true)) {", "if (lock) {"],
    "results of another since are written over": [
      "    await checkOutputFolder(output);\n  } catch",
      "  } catch",
    ],
    "a folder of no results is left": ["keepFolder: !isNew", "keepFolder: true"],
  }),
  ...plant("pipeline/benchmarks/main.ts", [PASSKEY, "/needs no data|cannot be/"], {
    "what is read is the first that was given": ["read.indexOf(each)", "tasks.indexOf(each)"],
    "data for a task that has none is not looked at": [
      "data.length > 0 && !tasks.some(isRead)",
      "data.length < 0",
    ],
    "lengths for tasks that have none are not looked at": [
      "lengths !== undefined && tasks.every(isRead)",
      'lengths === "" && tasks.every(isRead)',
    ],
    "only the first model must be long enough": [
      "lengthsFor(models, given)",
      "lengthsFor(models.slice(0, 1), given)",
    ],
  }),
  ...plant("pipeline/benchmarks/results.ts", [PASSKEY, "/a table|needs no data/"], {
    "by length and depth one model stands twice": [
      "others.map((rows) => rows[n][1])",
      "others.map(() => mean)",
    ],
    "Arrow does not tell where a number stands": ["needleOf(item) ?? {", "undefined ?? {"],
  }),
  ...plant("pipeline/benchmarks/scores.ts", [BENCHMARKED, "/acc takes|of several sets/"], {
    "by the character is by the token": ["each / lengths[n]", "each / 1"],
    "sets weigh by their size": ["acc: finite(meanOf(values).value)", "acc: whole.acc"],
    "who alone is right": [
      "alone(first, second), alone(second, first)",
      "alone(first, second), alone(first, second)",
    ],
  }),
  ...plant("pipeline/activations/shards.ts", [ACTIVATIONS, "on the same rows"], {
    "the edges of a row that begins a file are counted from the file before": [
      "parts = partsOf(row, 0);",
      "",
    ],
    "a file may be larger by a row": ["bytes + more > most", "bytes > most"],
  }),
  ...plant("pipeline/activations/stored_form.ts", [ACTIVATIONS, "on the same rows"], {
    "a map stays by head": ["(query * heads + head) * positions);", "from);"],
    "the last key of a query is left out": ["k <= q; k++", "k < q; k++"],
  }),
  ...plant("pipeline/activations/read_rows.ts", [ACTIVATIONS, "stands before every window"], {
    "documents are not shifted with their tokens": ["=== window[0] ? 0 : 1", "=== window[0] ? 0 : 0"],
  }),
  ...plant("pipeline/activations/documents.ts", [ACTIVATIONS, "documents are counted"], {
    "documents before a split are not counted": [
      "place += await countEnds(other, endOfText);",
      "place += 0 * await countEnds(other, endOfText);",
    ],
  }),
  ...plant("pipeline/activations/output_folder.ts", [ACTIVATIONS, "what fails leaves nothing"], {
    "what failed is left": ["await removeOwn(partial, OWN);", ""],
    "two processes write a folder": ["!lock.tryLockSync(true)", "!lock.tryLockSync(true) && false"],
  }),
  ...plant("pipeline/activations/rows_that_fit.ts", [ACTIVATIONS, "as many rows"], {
    "rows are counted by patterns alone": ["while (batch > 0 && !fits(batch)) batch--;", "fits(batch);"],
  }),
  ...plant("pipeline/activations/main.ts", [ACTIVATIONS, "float64"], {
    "activations with --dense go through the gates": [
      "dense ? { ...stored, gate: undefined } : stored",
      "dense ? { ...stored } : stored",
    ],
  }),
  ...plant("pipeline/export/export_step.ts", [EXPORT, "byte for byte"], {
    "a damaged checkpoint is exported": ["await checkpoint.verify();", ""],
    "a level has what the chosen step measured": ["isObject(of) && of.step === step", "isObject(of)"],
  }),
  ...plant("pipeline/export/export_step.ts", [EXPORT, "exported as adapters"], {
    "the rest of another model is exported": [
      "if (await weights.hash() !== hash) {",
      "if (hash === undefined) {",
    ],
    "an adapter names the place that its model has left": [
      'isThere || await exists(join(place, "config.json"))',
      "isThere",
    ],
  }),
  ...plant("pipeline/export/export_step.ts", [EXPORT, "gates from the step on"], {
    "a step before the constraint has gates": ["!own.sparse || step <= gatesFrom(own)", "!own.sparse"],
  }),
  ...plant("pipeline/export/kept_steps.ts", [EXPORT, "byte for byte"], {
    "a stopped run's levels begin behind its own target": [
      "[bestOf(ofRun), ...frontOf(ofRun)]",
      "frontOf(ofRun)",
    ],
  }),

  // Where a run goes on, and its ends.
  ...plant("pipeline/training/resumed_inputs.ts", MOVED, {
    "the run's own copy is not taken": ["return { folder: dense, name: model };", "return located!;"],
    "the tokenizer beside the run's own copy is looked for": [
      "? undefined : kept;",
      "? undefined : undefined;",
    ],
  }),
  ...plant("pipeline/training/prepare_run.ts", MOVED, {
    "where the model lies now is not kept": ["...Object.fromEntries(read) };", "data: now.settings.data };"],
  }),
  ...plant(
    "pipeline/settings/resolve.ts",
    ["pipeline/settings_test.ts", "/no effect|left idle|idle in it/"],
    {
      "a flag without an effect is taken": [
        "checkNeeds(table, { ...Object.fromEntries(fromFile), ...given }, settings);",
        "checkNeeds(table, Object.fromEntries(fromFile), settings);",
      ],
      "a file's setting without an effect is taken": [
        "filter(([name]) => !inForceAnyway(name))",
        "filter(() => false)",
      ],
      "what a model recommends is held to be given": [
        "checkNeeds(table, { ...Object.fromEntries(fromFile), ...given }, settings);",
        "checkNeeds(table, settings, settings);",
      ],
    },
  ),
  ...plant("pipeline/report/report.ts", ["pipeline/report/report_test.ts", "makes a run again"], {
    "a report's command has flags without an effect": [
      "!(name in table && faultOfNeed",
      "!(name in {} && faultOfNeed",
    ],
  }),
  ...plant("pipeline/benchmarks/tasks.ts", [BENCHMARKED, "refused by its line"], {
    "a choice has two spaces": ["/^\\s/.test(text)", "/^\\t/.test(text)"],
  }),
  ...plant("pipeline/main.ts", COMMANDS, {
    "evaluate has names of its own": ["exact_rows: result.exactRows,", "exactRows: result.exactRows,"],
  }),
  ...plant("pipeline/training/memory_budget.ts", [
    "pipeline/training/memory_budget_test.ts",
    "fits on no device",
  ], {
    "what fits on no device is found out on one": ["if (total <= limit) return;", "if (total >= 0) return;"],
  }),
  ...plant("pipeline/training/prepare_run.ts", ["pipeline/advice_test.ts", "before it is tokenised"], {
    "a memory that is too little is judged behind the data": [
      "  checkLeastMemory(model.config, settings, resumed !== undefined, trained, pipelines);\n",
      "",
    ],
  }),
  ...plant("pipeline/training/prepare_run.ts", ["pipeline/advice_test.ts", "an adapter that there is not"], {
    "an adapter is looked for behind the data": [
      "if (settings.gpu !== undefined && !openGpu)",
      "if (settings.gpu === undefined && !openGpu)",
    ],
  }),
  ...plant("serve/app.ts", ["serve/app_test.ts", "/refused/"], {
    "a key that is not known is not named": ["Unknown key ${shown(unknown)};", "Unknown key;"],
  }),
  ...plant("serve/main.ts", ["serve/server_test.ts", "does not exist yet"], {
    "a folder of runs that does not exist passes for one": [
      'await findRuns(runs) ? "" :',
      'await findRuns(runs) || true ? "" :',
    ],
  }),
  ...plant("serve/main.ts", ["serve/server_test.ts", "the command line"], {
    "what stands in the way of runs is waited for": [
      "? undefined : fail(reasonOf(error))",
      "? undefined : undefined",
    ],
    "a file passes for a folder of runs": ["if (info && !info.isDirectory)", "if (info && info.isSymlink)"],
  }),
  ...plant("pipeline/training/sparsify.ts", "pipeline/runs/time_spent_test.ts", {
    "a summary has the seconds of its last process": [
      "seconds: before + (performance",
      "seconds: (performance",
    ],
  }),
  ...plant("pipeline/training/signatures.ts", ["pipeline/training/signatures_test.ts", "run away"], {
    "a loss runs away within a step": ["worseFor >= DIVERGENCE_STEPS", "worseFor > 0"],
    "a target is no sign of what a model should do": [
      "target ?? Infinity) < guessing",
      "Infinity) < guessing",
    ],
  }),
  ...plant("pipeline/main.ts", ["pipeline/main_test.ts", "runs away"], {
    "whose loss ran away is to go on for longer": [
      "summary.signatures.some(tellsDivergence)",
      "summary.signatures.length < 0",
    ],
  }),
];

/** How often `part` stands in `text`. */
export function occurrences(text: string, part: string): number {
  return text.split(part).length - 1;
}

/** What a fault did to its test. */
type Outcome = { kind: "caught" } | { kind: "survived" } | { kind: "not tried"; why: string };

const ROOT = new URL("../", import.meta.url).pathname;
/** What a copy of the tree goes without, at its top. */
const LEFT_OUT = [".git", ".gpu", "coverage", "node_modules", "runs"];
/** Milliseconds after which a test that hangs is given up. */
const LIMIT = 10 * 60_000;

/** Copies the tree but for what is made anew; what is installed is linked. */
async function copyTree(from: string, to: string, leftOut: readonly string[] = []): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const { name, isDirectory, isFile } of Deno.readDir(from)) {
    if (leftOut.includes(name)) continue;
    if (isDirectory) await copyTree(join(from, name), join(to, name));
    if (isFile) await Deno.copyFile(join(from, name), join(to, name));
  }
}

/** Runs a test in a tree. */
async function runTest(tree: string, { test, filter }: Pick<Mutant, "test" | "filter">) {
  // As page_test.ts runs them.
  const [permissions, behind] = test.endsWith("_in_browser.ts")
    ? [["--allow-all"], ["--", CHROMIUM ?? ""]]
    : [TEST_PERMISSIONS, []];
  const only = filter === undefined ? [] : ["--filter", filter];
  const args = ["--fail-fast", ...permissions, ...only, test, ...behind];
  return await testProcess(args, { cwd: tree, limit: LIMIT });
}

/** What went wrong, in one line. */
const firstError = (output: string): string =>
  output.split("\n").find((line) => /^error: (?!XDG_RUNTIME_DIR)/.test(line)) ?? "no test ran";

/** Plants one fault in the tree, runs its test, and takes it out again. */
async function tryMutant(tree: string, mutant: Mutant): Promise<Outcome> {
  const path = join(tree, mutant.file);
  const text = await Deno.readTextFile(path);
  const count = occurrences(text, mutant.find);
  if (count !== 1) {
    return { kind: "not tried", why: `stale: what it replaces stands ${count} times in ${mutant.file}` };
  }
  await Deno.writeTextFile(path, text.replace(mutant.find, () => mutant.replace));
  try {
    const { code, failed, passed, output } = await runTest(tree, mutant);
    if (code === 0 && passed > 0) return { kind: "survived" };
    // A fault that cannot be run, or throws on its way, shows nothing about the test.
    if (failed > 0 && output.includes("error: AssertionError")) return { kind: "caught" };
    return { kind: "not tried", why: firstError(output) };
  } finally {
    await Deno.writeTextFile(path, text);
  }
}

/** Tries all whose name or file holds one of the words, and returns how many were not caught. */
async function main(words: readonly string[]): Promise<number> {
  const chosen = MUTANTS.filter(({ name, file }) =>
    words.length === 0 || words.some((word) => name.includes(word) || file.includes(word))
  );
  if (chosen.length === 0) {
    console.error(`There is no fault whose name or file holds ${words.join(" or ")}`);
    return 1;
  }
  await using folder = await temporaryFolder();
  const tree = join(folder.path, "tree");
  await copyTree(ROOT, tree, LEFT_OUT);
  await Deno.symlink(join(ROOT, "node_modules"), join(tree, "node_modules"));
  const tests = new Map(chosen.map(({ test, filter }) => [`${test} ${filter ?? ""}`, { test, filter }]));
  for (const [name, test] of tests) {
    const { code, passed, output } = await runTest(tree, test);
    if (code === 0 && passed > 0) continue;
    console.error(`Cannot try faults as ${name.trim()} must pass without one: ${firstError(output)}`);
    return 1;
  }
  console.log(`${tests.size} tests pass without a fault`);
  const counts = { caught: 0, survived: 0, "not tried": 0 };
  for (const mutant of chosen) {
    const started = performance.now();
    const outcome = await tryMutant(tree, mutant);
    counts[outcome.kind]++;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const why = outcome.kind === "not tried" ? `: ${outcome.why}` : "";
    console.log(
      `${outcome.kind.padEnd(9)} ${mutant.name} (${dirname(mutant.file)}, ${seconds} s)${why}`,
    );
  }
  const untried = counts["not tried"];
  console.log(
    `${counts.caught} caught, ${counts.survived} survived${untried > 0 ? `, ${untried} not tried` : ""}`,
  );
  return counts.survived + untried;
}

if (import.meta.main) Deno.exit(await main(Deno.args) > 0 ? 1 : 0);
