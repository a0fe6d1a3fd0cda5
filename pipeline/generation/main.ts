/**
 * `deno task generate`: continues a text with a model, dense or sparse or both.
 *
 * @module
 */
import { prepareMesa, userFolder } from "../command_line.ts";
import { type CommandThread, inCommandThread, performCommand, superviseCommand } from "../command_thread.ts";
import { inputError, usageError } from "../errors.ts";
import { locateHere, locateModel } from "../fetch_named.ts";
import { reasonOf } from "../files.ts";
import { readModelConfig } from "../model/config_file.ts";
import { loadHeld, openHeld } from "../model/held_weights.ts";
import { GENERATE, type GenerateSettings } from "../settings.ts";
import { printedInstead } from "../settings/help.ts";
import { parseCommand } from "../settings/parse.ts";
import { resolveFully } from "../settings/resolve.ts";
import { STANDARD_INPUT } from "../text/data_files.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer } from "../text/tokenizer.ts";
import { openCheckedGpu } from "../training/prepare_run.ts";
import { type Continuation, generate, type GeneratingModel, promptTokens } from "./generate.ts";
import { readSteering, type Steering } from "./steering.ts";
import { requireOneProcess } from "../parallel/one_process.ts";

const PURPOSE = "Continues a text with a model, dense or sparse.";

/** The text that is to be continued. */
async function readPrompt(prompt: string | undefined): Promise<string> {
  if (prompt === undefined) {
    throw usageError(
      `Cannot generate without a prompt: give --prompt TEXT, or ${STANDARD_INPUT} for standard input`,
    );
  }
  if (prompt !== STANDARD_INPUT) return prompt;
  const bytes = await new Response(Deno.stdin.readable).bytes();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).replace(/\r?\n$/, "");
  } catch (error) {
    throw inputError(
      `Cannot read the prompt from standard input as it must be UTF-8: ${reasonOf(error as Error)}`,
    );
  }
}

/** What ended a continuation before it had as many tokens as were asked for. */
function endOf({ ended, prompt, tokens }: Continuation): string {
  const positions = prompt.length + tokens.length;
  if (ended === "end of text") return ", to the end of the text";
  return ended === "positions" ? `, to the end of the model's positions, with the prompt ${positions}` : "";
}

async function generateCommand(args: string[], thread: CommandThread): Promise<boolean> {
  await requireOneProcess("generate");
  const parsed = parseCommand(GENERATE, args, userFolder());
  const printed = await printedInstead("generate", PURPOSE, GENERATE, parsed, locateHere);
  if (printed !== undefined) {
    thread.print(printed);
    return true;
  }
  const { reporter } = thread;
  if (parsed.given.quiet) thread.beQuiet();
  // Before a model is fetched for it.
  const given = parsed.config ? undefined : await readPrompt(parsed.given.prompt);
  const { settings, modelFolder } = await resolveFully(GENERATE, parsed, locateModel(thread));
  thread.leaveNet();
  if (settings.quiet) thread.beQuiet();
  const folder = modelFolder!;
  const text = given ?? await readPrompt(settings.prompt);
  const config = await readModelConfig(folder, settings.adapter);
  const weights = await openHeld(folder, config, settings);
  await weights.verify();
  const tokenizer = await loadTokenizer(settings.tokenizer ?? folder, config, reporter.message);
  checkTokenizer(tokenizer, config, folder);
  await checkOwnTokenizer(tokenizer, folder);
  const prompt = promptTokens(text, { config, tokenizer });
  const steer = settings.steer === undefined
    ? []
    : await readSteering(settings.steer, config, settings.steerScale);
  const gpu = await openCheckedGpu(reporter, settings, {
    models: [config],
    stored: [weights.shape],
    generation: true,
  });
  try {
    reporter.activity({ name: "loading the model" });
    const parameters = await loadHeld(gpu, weights, reporter.message);
    const model = { gpu, config, parameters, tokenizer, held: weights.shape };
    await continueText(model, prompt, { ...settings, steering: steer }, thread);
  } finally {
    await gpu.end();
  }
  return true;
}

/** Continues a prompt as the settings say, shows it as it comes, or the whole as JSON. */
async function continueText(
  model: GeneratingModel,
  prompt: readonly number[],
  settings: GenerateSettings & { steering: readonly Steering[] },
  { reporter, signal, write, print }: CommandThread,
): Promise<void> {
  const { json, tokens, temperature, topP, seed, steering, steerScale } = settings;
  const gated = model.config.gate !== undefined;
  // A sparse model's own comes first, beside that with all gates open where that is asked for.
  const kinds = gated && settings.dense ? [false, true] : [!gated];
  const found = [];
  for (const dense of kinds) {
    const mode = dense ? "dense" : "gated";
    const title = dense ? "all gates open" : "with its gates";
    reporter.activity({ name: "reading the prompt" });
    let last = "";
    let started: number | undefined;
    if (!json && kinds.length > 1) print(`${dense ? "\n" : ""}${title}:`);
    const continuation = await generate(model, prompt, {
      tokens,
      dense,
      temperature,
      topP,
      seed,
      steer: steering,
      signal,
      onToken(done) {
        started ??= performance.now();
        if (json) {
          reporter.activity({
            name: kinds.length > 1 ? `generating, ${title},` : "generating",
            done,
            of: tokens,
          });
        }
      },
      onText(text) {
        last = text;
        if (!json) write(text);
      },
    });
    if (!json && !last.endsWith("\n")) write("\n");
    // From the first token to the last: what came before was the prompt's.
    const seconds = (performance.now() - (started ?? NaN)) / 1000;
    const more = continuation.tokens.length - 1;
    const speed = more > 0 ? `, ${(more / seconds).toFixed(1)} tokens/s` : "";
    reporter.message(`${continuation.tokens.length} tokens${speed}${endOf(continuation)}`);
    found.push({ mode, ...continuation });
  }
  if (!json) return;
  const { mode, ...shown } = found.at(-1)!;
  const beside = found.length > 1
    ? { gated: { tokens: found[0].tokens, text: found[0].text, ended: found[0].ended } }
    : {};
  const steered = steering.length > 0
    ? { steer: steering.map(({ activation }) => activation), steer_scale: steerScale }
    : {};
  print(
    JSON.stringify({
      model: settings.model,
      mode,
      temperature,
      top_p: topP,
      seed,
      ...steered,
      ...shown,
      ...beside,
    }),
  );
}

if (inCommandThread()) {
  const args = [...Deno.args];
  performCommand((thread) => generateCommand(args, thread), { debug: args.includes("--debug") });
} else if (import.meta.main) {
  prepareMesa();
  await superviseCommand(import.meta.url);
}
