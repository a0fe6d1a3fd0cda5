/**
 * A year that is later than another (Hanna et al., arXiv 2305.00586): `The war lasted from the year 1732 to the year 17`
 * is followed by two digits above 32.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import { pairsOfOneLength, type Task, type TaskOptions } from "./task.ts";

// deno-fmt-ignore
const NOUNS = ["war", "siege", "voyage", "reign", "debate", "strike", "famine", "project", "treaty", "drought",
  "alliance", "expedition", "plague", "trial", "festival", "campaign", "dispute", "journey"];

const two = (value: number): string => String(value).padStart(2, "0");

/** The task. */
export const greaterThan: Task = {
  name: "greater-than",
  purpose: "two digits above those of the year before; corrupted to the year 1701, which any are above",
  generate({ tokenizer, contextLength, prompts, random }: TaskOptions) {
    // A year that is cut as 17 and two digits, and those two digits as a token.
    const tokenOf = new Map<number, number>();
    for (let year = 0; year < 100; year++) {
      const { tokens: encoded, lost } = tokenizer.encodeKnown(` 17${two(year)}`, { continued: true });
      const { tokens: century } = tokenizer.encodeKnown(" 17", { continued: true });
      if (
        lost === 0 && encoded.length === century.length + 1 &&
        tokenizer.spell(encoded.at(-1)!) === two(year) &&
        century.every((token, n) => token === encoded[n])
      ) tokenOf.set(year, encoded.at(-1)!);
    }
    const usable = [...tokenOf.keys()].filter((year) => year >= 2 && year <= 98);
    if (!tokenOf.has(1) || usable.length < 10) {
      throw inputError(
        `Cannot make prompts of greater-than as years must be cut as 17 and two digits by ${tokenizer.path}: ` +
          `${tokenOf.size} of 100 are`,
      );
    }
    const pairs = pairsOfOneLength("greater-than", { prompts, contextLength }, () => {
      const noun = NOUNS[random.below(NOUNS.length)];
      const year = usable[random.below(usable.length)];
      const text = (from: number): number[] =>
        tokenizer.encode(`The ${noun} lasted from the year 17${two(from)} to the year 17`);
      const clean = text(year);
      const later = [...tokenOf].filter(([other]) => other > year).map(([, token]) => token);
      const earlier = [...tokenOf].filter(([other]) => other <= year).map(([, token]) => token);
      return {
        clean,
        corrupted: text(1),
        places: [{ position: clean.length - 1, right: later, wrong: earlier }],
        template: noun,
      };
    });
    return { task: "greater-than", metric: "probability_difference" as const, pairs };
  },
};
