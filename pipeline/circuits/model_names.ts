/**
 * What models are called beside each other.
 *
 * @module
 */

/** A model as it was named, and whether it has gates. */
export interface NamedModel {
  /** Its folder, or its name on the hub. */
  label: string;
  /** Whether it has gates. */
  gated: boolean;
}

/**
 * `dense` and `sparse` where there are not two of a kind; else the last part of their labels that is not the same: `a` and
 * `b` of `runs/a/model` and `runs/b/model`.
 *
 * @param models one or two, with different labels
 */
export function modelNames(models: readonly NamedModel[]): string[] {
  const kinds = models.map(({ gated }) => gated ? "sparse" : "dense");
  if (new Set(kinds).size === models.length) return kinds;
  const labels = models.map(({ label }) => label);
  const parts = labels.map((label) => label.split(/[/\\]/).filter((part) => part !== "" && part !== "."));
  const end = (): string[] => parts.map((of) => of.at(-1) ?? "");
  const isShared = (): boolean => new Set(end()).size === 1;
  while (isShared() && parts.every((of) => of.length > 1)) for (const path of parts) path.pop();
  // Two of a kind in folders called dense and sparse are not a dense and a sparse one.
  const isPlain = end().some((name) => name === "dense" || name === "sparse");
  return isShared() || isPlain ? labels : end();
}

/** A model as a sentence has it: `the dense model`, or the name that tells it from another of its kind. */
export function calledModel({ name, gated }: { name: string; gated: boolean }): string {
  return name === (gated ? "sparse" : "dense") ? `the ${name} model` : name;
}
