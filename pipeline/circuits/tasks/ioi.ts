/**
 * Indirect object identification (Wang et al., arXiv 2211.00593): of two people one does something to the other, whose
 * name comes next. The subject stands second in ABBA and first in BABA.
 *
 * @module
 */
import { needSingleTokens, pairsOfOneLength, sample, type Task, type TaskOptions } from "./task.ts";

// deno-fmt-ignore
const NAMES = ["Alice", "Anna", "Adam", "Charles", "Daniel", "David", "Edward", "Emily", "Emma", "Frank", "George",
  "Grace", "Henry", "Jack", "Jacob", "James", "Jane", "John", "Joseph", "Kate", "Laura", "Lewis", "Lucy", "Mark",
  "Martin", "Mary", "Michael", "Paul", "Peter", "Richard", "Robert", "Rose", "Sam", "Samuel", "Sarah", "Simon", "Susan",
  "Thomas", "Tom", "William"].map((name) => " " + name);
const PLACES = ["house", "river", "school", "town", "market", "office", "station", "garden"];
const OBJECTS = ["book", "letter", "ring", "paper", "picture", "gift", "key", "map"];

/** Two people in the order of the first clause, and who acts in the second. */
const TEMPLATES: Record<
  string,
  (first: string, second: string, subject: string, place: string, object: string) => string
> = {
  went: (a, b, s, place, object) => `Then${a} and${b} went to the ${place}, and${s} gave a ${object} to`,
  met: (a, b, s, place, object) => `When${a} and${b} met at the ${place},${s} handed a ${object} to`,
  walked: (a, b, s, place, object) => `After${a} and${b} walked to the ${place},${s} brought a ${object} to`,
  stayed: (a, b, s, place, object) => `While${a} and${b} stayed at the ${place},${s} sent a ${object} to`,
};

/** The task. */
export const ioi: Task = {
  name: "ioi",
  purpose:
    "the name of the one to whom something is done, not of the one who does it; corrupted by three other names",
  generate({ tokenizer, contextLength, prompts, random }: TaskOptions) {
    const names = needSingleTokens("ioi", tokenizer, { what: "first names", words: NAMES, least: 5 });
    const templates = Object.keys(TEMPLATES);
    const pairs = pairsOfOneLength("ioi", { prompts, contextLength }, () => {
      const template = templates[random.below(templates.length)];
      const [place] = sample(random, PLACES, 1);
      const [object] = sample(random, OBJECTS, 1);
      const [io, subject, ...fresh] = sample(random, [...names.keys()], 5);
      const subjectFirst = random.below(2) === 1;
      const [first, second] = subjectFirst ? [subject, io] : [io, subject];
      const text = (a: string, b: string, s: string): number[] =>
        tokenizer.encode(TEMPLATES[template](a, b, s, place, object));
      const clean = text(first, second, subject);
      return {
        clean,
        corrupted: text(fresh[0], fresh[1], fresh[2]),
        places: [{ position: clean.length - 1, right: [names.get(io)!], wrong: [names.get(subject)!] }],
        template: `${template} ${subjectFirst ? "BABA" : "ABBA"}`,
      };
    });
    return { task: "ioi", metric: "logit_difference" as const, pairs };
  },
};
