/**
 * Addition of two numbers of two digits, as data/addition's model does it: `12+34=` is followed by 640, the low digit
 * first, and each digit is told what the ones before it are.
 *
 * @module
 */
import { inputError } from "../../errors.ts";
import { type Task, type TaskOptions } from "./task.ts";

const digits = (value: number, count: number): number[] =>
  Array.from({ length: count }, (_, n) => Math.floor(value / 10 ** n) % 10);

/** The task. */
export const addition: Task = {
  name: "addition",
  purpose:
    "the three digits of the sum of two numbers of two digits; corrupted by other numbers whose sum differs in each digit",
  generate({ tokenizer, contextLength, prompts, random }: TaskOptions) {
    const encode = (left: number, right: number): number[] => {
      const two = (value: number): string => String(value).padStart(2, "0");
      const sum = digits(left + right, 3).join("");
      // The last digit is only answered, never read.
      return tokenizer.encode(`${two(left)}+${two(right)}=${sum}`).slice(0, -1);
    };
    const digit = (value: number): number => tokenizer.encode(String(value))[0];
    const length = encode(12, 34).length;
    if (length !== 8 || contextLength < 8) {
      throw inputError(
        `Cannot make prompts of addition as 12+34=64 must be 8 tokens of ${tokenizer.path}, one a character: ${length}`,
      );
    }
    const draw = (): [number, number] => [random.below(100), random.below(100)];
    const pairs = Array.from({ length: prompts }, () => {
      const clean = draw();
      const sum = digits(clean[0] + clean[1], 3);
      let other = draw();
      let otherSum = digits(other[0] + other[1], 3);
      while (otherSum.some((value, n) => value === sum[n])) {
        other = draw();
        otherSum = digits(other[0] + other[1], 3);
      }
      return {
        clean: encode(...clean),
        corrupted: encode(...other),
        places: sum.map((value, n) => ({
          position: 5 + n,
          right: [digit(value)],
          wrong: [digit(otherSum[n])],
        })),
        template: sum[2] === 1 ? "three digits" : "two digits",
      };
    });
    return { task: "addition", metric: "logit_difference" as const, pairs };
  },
};
