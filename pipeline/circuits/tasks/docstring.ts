/**
 * The next parameter in a docstring (Heimersheim and Janiak, 2023): parameters are documented in the order in which the
 * function's signature has them.
 *
 * @module
 */
import { needSingleTokens, pairsOfOneLength, sample, type Task, type TaskOptions } from "./task.ts";

// deno-fmt-ignore
const ARGUMENTS = ["name", "value", "key", "index", "size", "width", "height", "path", "file", "line", "text", "page",
  "user", "date", "time", "state", "result", "source", "order", "limit", "count", "start", "end", "mode", "type", "data",
  "table", "field", "point", "group", "level", "number"].map((name) => " " + name);
// deno-fmt-ignore
const WORDS = ["first", "old", "new", "next", "last", "small", "large", "main", "full", "short", "long", "whole"];
const FUNCTIONS = ["load", "make", "find", "move", "read", "open"];

/** The task. */
export const docstring: Task = {
  name: "docstring",
  purpose:
    "the parameter that the docstring has to name next, as the signature has them; corrupted by other names in the signature",
  generate({ tokenizer, contextLength, prompts, random }: TaskOptions) {
    const names = needSingleTokens("docstring", tokenizer, {
      what: "parameter names",
      words: ARGUMENTS,
      least: 9,
    });
    const pairs = pairsOfOneLength("docstring", { prompts, contextLength }, () => {
      const [own, fresh] = [sample(random, [...names.keys()], 6), []] as [string[], string[]];
      fresh.push(...sample(random, [...names.keys()].filter((name) => !own.includes(name)), 3));
      const [a, b, c, d, e, f] = own;
      const [verb] = sample(random, FUNCTIONS, 1);
      const [first, second] = sample(random, WORDS, 2);
      const text = (x: string, y: string, z: string): number[] =>
        tokenizer.encode(
          `def ${verb}(self,${d},${x},${y},${z},${e}):\n    """${verb} the${f}\n\n` +
            `    :param${a}: ${first}\n    :param${b}: ${second}\n    :param`,
        );
      const clean = text(a, b, c);
      const others = [a, b, d, e, ...fresh];
      return {
        clean,
        corrupted: text(fresh[0], fresh[1], fresh[2]),
        places: [{
          position: clean.length - 1,
          right: [names.get(c)!],
          wrong: others.map((name) => names.get(name)!),
        }],
        template: verb,
      };
    });
    return { task: "docstring", metric: "logit_difference" as const, pairs };
  },
};
