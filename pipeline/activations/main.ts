/**
 * `deno task activations`: what a model computes on a text, as files that numpy and torch read.
 *
 * @module
 */
import { join } from "node:path";
import project from "../../deno.json" with { type: "json" };
import { prepareInterventions } from "../circuits/interventions.ts";
import { prepareMesa, userFolder } from "../command_line.ts";
import { type CommandThread, inCommandThread, performCommand, superviseCommand } from "../command_thread.ts";
import { usageError } from "../errors.ts";
import { locateHere, locateModel, openData } from "../fetch_named.ts";
import { writeJson } from "../files.ts";
import { activationAxes, noActivation } from "../model/activation_names.ts";
import type { ModelConfig } from "../model/config.ts";
import { readModelConfig } from "../model/config_file.ts";
import { openWeights } from "../model/load_weights.ts";
import { loadParameters } from "../model/parameters.ts";
import { requireOneProcess } from "../parallel/one_process.ts";
import { ACTIVATIONS, type ActivationsSettings } from "../settings.ts";
import { checkContext, requireData } from "../settings/checks.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand } from "../settings/parse.ts";
import { fromModelLine, resolveFully } from "../settings/resolve.ts";
import { TEXT_COLUMN } from "../text/documents.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { tokeniseSplits } from "../tokenise_splits.ts";
import { openCheckedGpu } from "../training/prepare_run.ts";
import { checkOutputFolder, makeOutputFolder, MANIFEST } from "./output_folder.ts";
import type { ReadRow } from "./read_rows.ts";
import { rowsThatFit } from "./rows_that_fit.ts";
import { createShards, type Shard } from "./shards.ts";
import { type StoredForm, storedForm } from "./stored_form.ts";
import { rowsOfDocuments, rowsOfSplits, type TextRows } from "./texts.ts";

const PURPOSE = "Writes what a model computes on a text, its activations and open edges, as safetensors.";
const MEGABYTE = 1e6;
/** Stands for every activation. */
const ALL = "all";

/** Names as they were given, one by one or with commas between them; and where they go. */
function readWish({ read = [], output }: Partial<ActivationsSettings>): { names: string[]; output: string } {
  const names = [...new Set(read.flatMap((list) => list.split(",")).map((name) => name.trim()))]
    .filter((name) => name !== "");
  if (names.length === 0) {
    throw usageError(
      "Cannot write activations without knowing which: give --read NAME[,NAME], such as blocks.0.hook_resid_pre, or --read all",
    );
  }
  if (output === undefined) {
    throw usageError("Cannot write activations without a folder: give --output FOLDER");
  }
  return { names, output };
}

/**
 * How the activations of these names are stored; of all, gates are left out where the model has none.
 *
 * @throws {UserError} on a name that the model has not, and where the open edges would be all that there are
 */
function formsOf(
  names: readonly string[],
  config: ModelConfig,
  { model, dense }: Pick<ActivationsSettings, "model" | "dense">,
): StoredForm[] {
  const axes = activationAxes(config);
  const all = [...axes.keys()].filter((name) =>
    config.gate || storedForm(name, axes.get(name)!).kind !== "edges"
  );
  const unknown = names.find((name) => name !== ALL && !axes.has(name));
  if (unknown !== undefined) throw usageError(noActivation(unknown, axes.keys()).message);
  return (names.includes(ALL) ? all : names).map((name) => {
    const own = axes.get(name)!;
    const form = storedForm(name, own);
    if (form.kind !== "edges" || config.gate) return form;
    const why = dense ? "--dense leaves the gates out" : `${model} has no gates`;
    throw usageError(`Cannot write the open edges of ${name} as ${why}: all are open`);
  });
}

/** The data with a row for each document; gives up the net as soon as all is there. */
async function openEachDocument(
  thread: CommandThread,
  { data, ...options }: {
    data: readonly string[];
    textColumn: string;
    tokenizer: Tokenizer;
    context: number;
    limit: number;
  },
): Promise<TextRows> {
  const { reporter } = thread;
  const { sources, names, fetches } = await openData(data, thread);
  if (!fetches) thread.leaveNet();
  reporter.activity({ name: "tokenising" });
  const rows = await rowsOfDocuments(sources, names, {
    ...options,
    onMessage: reporter.message,
    onWarning: reporter.warning,
  });
  thread.leaveNet();
  return rows;
}

async function activationsCommand(args: string[], thread: CommandThread): Promise<boolean> {
  await requireOneProcess("activations");
  const parsed = parseCommand(ACTIVATIONS, args, userFolder());
  const printed = await printedInstead("activations", PURPOSE, ACTIVATIONS, parsed, locateHere);
  if (printed !== undefined) {
    thread.print(printed);
    return true;
  }
  const { reporter, signal } = thread;
  if (parsed.given.quiet) thread.beQuiet();
  // Before a model is fetched for it.
  if (!parsed.config) await checkOutputFolder(readWish(parsed.given).output);
  const resolved = await resolveFully(ACTIVATIONS, parsed, locateModel(thread));
  const { settings } = resolved;
  const folder = resolved.modelFolder!;
  const { model, dense, dtype } = settings;
  if (settings.quiet) thread.beQuiet();
  const { names, output } = readWish(settings);
  await checkOutputFolder(output);
  requireData(settings.data);
  const stored = await readModelConfig(folder, settings.adapter);
  const config = dense ? { ...stored, gate: undefined } : stored;
  const forms = formsOf(names, config, settings);
  const most = settings.context || config.contextLength;
  checkContext(most, config.contextLength, model);
  const weights = await openWeights(folder, stored, settings.adapter);
  await weights.verify();
  const tokenizer = await loadTokenizer(settings.tokenizer ?? folder, stored, reporter.message);
  checkTokenizer(tokenizer, config, model);
  await checkOwnTokenizer(tokenizer, folder);
  const fromModel = fromModelLine(resolved);
  if (fromModel !== undefined) reporter.message(fromModel);
  await using temporary = await thread.temporaryFolder();
  const reading = { ...settings, context: most, tokenizer, limit: settings.tokens };
  const text = settings.eachDocument
    ? await openEachDocument(thread, reading)
    : rowsOfSplits(await tokeniseSplits(thread, { ...reading, folder: temporary.path }), {
      ...reading,
      endOfText: tokenizer.endOfText,
    });
  const { context } = text;
  const manifest = {
    model,
    ...(settings.adapter === undefined ? {} : { adapter: settings.adapter }),
    model_sha256: await weights.hash(),
    mode: config.gate ? "gated" : "dense",
    tokenizer_sha256: tokenizer.hash,
    data: text.data,
    data_sha256: text.sha256,
    ...(settings.textColumn === TEXT_COLUMN ? {} : { text_column: settings.textColumn }),
    split: settings.eachDocument ? "documents" : settings.split,
    ...text.told,
    context,
    dtype,
    activations: Object.fromEntries(forms.map(({ name, axes }) => [name, { axes }])),
    version: project.version,
  };
  signal.throwIfAborted();
  // Before the device is opened, since it may not be possible.
  const shards = await makeOutputFolder(output, async (partial) => {
    thread.removeIfStopped(partial, { recursive: true });
    const gpu = await openCheckedGpu(reporter, settings, { models: [config], interventions: true });
    try {
      const told = { ...manifest, device: gpu.adapter.name };
      const wanted = Math.min(settings.batch, text.rows ?? Infinity);
      const batch = rowsThatFit(config, { batch: wanted, context }, gpu.maxBindingBytes);
      if (batch === 0) {
        throw usageError(
          `Cannot read a row of ${context} tokens as one activation of it, such as a layer's pattern, is larger than a binding ` +
            `of this device, which holds ${gpu.maxBindingBytes} bytes: give a lower --context`,
        );
      }
      if (batch < wanted) {
        reporter.message(
          `${batch} rows at a time, not ${wanted}: no binding holds an activation of more`,
        );
      }
      reporter.activity({ name: "loading the model" });
      const parameters = await loadParameters(gpu, weights.parameters, (name) => weights.read(name));
      reporter.activity({ name: "compiling kernels" });
      const runs = await prepareInterventions(gpu, { config, parameters }, { batch, positions: context });
      const shards: Shard[] = [];
      const lost = new Map<string, number>();
      const of = text.parts.reduce((sum, part) => sum + part.batches(batch), 0);
      let before = 0;
      for (const part of text.parts) {
        const writer = createShards(partial, {
          split: part.name,
          forms,
          shapes: runs.names,
          type: dtype === "f16" ? "F16" : "F32",
          bytes: settings.shardSize * MEGABYTE,
          metadata: asTexts(told),
          onShard: (shard) => shards.push(shard),
        });
        const rows = part.rows(runs, forms, {
          batch,
          signal,
          onBatch: (done) => reporter.activity({ name: "reading activations", done: before + done, of }),
        });
        for await (const row of rows) {
          countLost(row, lost);
          await writer.add(row);
        }
        await writer.end();
        before += part.batches(batch);
      }
      if (lost.size > 0) reporter.warning(lostLine(lost, [...runs.names.keys()]));
      await writeJson(join(partial, MANIFEST), { ...told, tokens: total(shards, "tokens"), shards });
      return shards;
    } finally {
      await gpu.end();
    }
  });
  const [written, bytes] = [total(shards, "tokens"), total(shards, "bytes")];
  const { mode } = manifest;
  const files = shards.length === 1 ? "a file" : `${shards.length} files`;
  thread.print(
    settings.json
      ? JSON.stringify({ output, model, mode, ...text.told, tokens: written, bytes, shards: shards.length })
      : `${written.toLocaleString("en-US")} tokens in ${files}, ${
        (bytes / MEGABYTE).toFixed(1)
      } MB: ${output}`,
  );
  return true;
}

/** Adds, by activation, how many of a row's values are no number. */
function countLost({ activations }: ReadRow, lost: Map<string, number>): void {
  for (const [name, values] of activations) {
    const count = values.reduce((sum, value) => sum + (Number.isNaN(value) ? 1 : 0), 0);
    if (count > 0) lost.set(name, (lost.get(name) ?? 0) + count);
  }
}

/** That values are no number, and of which activation first, in the order in which a model computes them. */
function lostLine(lost: ReadonlyMap<string, number>, computed: readonly string[]): string {
  const name = computed.find((one) => lost.has(one))!;
  const count = lost.get(name)!;
  const others = lost.size === 1 ? "" : `, and some of ${lost.size - 1} others`;
  return `${count} values of ${name}${others} are no number: the model's weights are broken, or its activations too large`;
}

/** What a file of safetensors can say of itself: texts alone. */
const asTexts = (values: object): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).map((
      [name, value],
    ) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  );

const total = (shards: readonly Shard[], of: "tokens" | "bytes"): number =>
  shards.reduce((sum, shard) => sum + shard[of], 0);

if (inCommandThread()) {
  const args = [...Deno.args];
  performCommand((thread) => activationsCommand(args, thread), { debug: args.includes("--debug") });
} else if (import.meta.main) {
  prepareMesa();
  await superviseCommand(import.meta.url);
}
