/**
 * A year that is later than another (Hanna et al., arXiv 2305.00586): `The war lasted from the year 1732 to the year 17`
 * is followed by two digits above 32. Where the tokenizer cuts years elsewhere, the answer is the token in which they
 * first differ: of single digits the third, above 3; of three digits together 174 or more.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { pairsOfOneLength, type Task, type TaskOptions } from "./task.ts";

// deno-fmt-ignore
const NOUNS = ["war", "siege", "voyage", "reign", "debate", "strike", "famine", "project", "treaty", "drought",
  "alliance", "expedition", "plague", "trial", "festival", "campaign", "dispute", "journey"];

const two = (value: number): string => String(value).padStart(2, "0");

/** Where the years stand. */
const INSIDE = { continued: true };

/** How a tokenizer cuts the years of a century. */
interface Cut {
  /** The token that answers with each year: the first in which they differ. */
  tokenOf: Map<number, number>;
  /** Tokens of ` 17` that are part of the answer, and not of the prompt. */
  answered: number;
}

/** A year's right answers, all of whose years are later, and wrong ones, none of whose are. */
function answersOf({ tokenOf }: Cut, year: number): { right: number[]; wrong: number[] } {
  const tokens = [...new Set(tokenOf.values())];
  const later = (token: number) =>
    [...tokenOf].filter(([, of]) => of === token).map(([other]) => other > year);
  return {
    right: tokens.filter((token) => later(token).every((is) => is)),
    wrong: tokens.filter((token) => !later(token).some((is) => is)),
  };
}

/** Years from 2 on that have right and wrong answers. */
const usableYears = (cut: Cut): number[] =>
  [...cut.tokenOf.keys()].filter((year) => {
    const { right, wrong } = answersOf(cut, year);
    return year >= 2 && right.length > 0 && wrong.length > 0;
  });

/** The years that begin with as much of ` 17` as can be, all of one number of tokens. */
function cutOf(tokenizer: Tokenizer): Cut {
  const century = tokenizer.encodeKnown(" 17", INSIDE).tokens;
  const years = Array.from({ length: 100 }, (_, year) => tokenizer.encodeKnown(` 17${two(year)}`, INSIDE));
  const cuts = Array.from({ length: century.length }, (_, answered): Cut => {
    const before = century.slice(0, century.length - answered);
    const tokenOf = new Map<number, number>();
    for (const [year, { tokens, lost }] of years.entries()) {
      const begins = before.every((token, n) => token === tokens[n]);
      if (lost > 0 || !begins || tokens.length !== years[1].tokens.length) continue;
      if (tokens.length > before.length) tokenOf.set(year, tokens[before.length]);
    }
    return { tokenOf, answered };
  });
  const found = cuts.find((cut) => cut.tokenOf.has(1) && usableYears(cut).length >= 10);
  if (found) return found;
  throw inputError(
    `Cannot make prompts of greater-than as at least 10 years must be cut as part of 17 and what tells them apart by ` +
      `${tokenizer.path}: ${Math.max(0, ...cuts.map((cut) => usableYears(cut).length))} of 100 are`,
  );
}

/** The task. */
export const greaterThan: Task = {
  name: "greater-than",
  purpose: "what makes a year later than the one before; corrupted to the year 1701, which any are above",
  generate({ tokenizer, contextLength, prompts, random }: TaskOptions) {
    const cut = cutOf(tokenizer);
    const usable = usableYears(cut);
    const pairs = pairsOfOneLength("greater-than", { prompts, contextLength }, () => {
      const noun = NOUNS[random.below(NOUNS.length)];
      const year = usable[random.below(usable.length)];
      const text = (from: number): number[] => {
        const tokens = tokenizer.encode(`The ${noun} lasted from the year 17${two(from)} to the year 17`);
        return tokens.slice(0, tokens.length - cut.answered);
      };
      const clean = text(year);
      return {
        clean,
        corrupted: text(1),
        places: [{ position: clean.length - 1, ...answersOf(cut, year) }],
        template: noun,
      };
    });
    return { task: "greater-than", metric: "probability_difference" as const, pairs };
  },
};
