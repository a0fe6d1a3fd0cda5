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
 * `dense` and `sparse` where there are not two of a kind; else what of their labels is not the same: `a` and `b` of
 * `runs/a/model` and `runs/b/model`.
 *
 * @param models one or two, with different labels
 */
export function modelNames(models: readonly NamedModel[]): string[] {
  const kinds = models.map(({ gated }) => gated ? "sparse" : "dense");
  if (new Set(kinds).size === models.length) return kinds;
  const parts = models.map(({ label }) => label.split(/[/\\]/).filter((part) => part !== "" && part !== "."));
  const shared = (at: 0 | -1): boolean =>
    parts.every((of) => of.length > 1) && new Set(parts.map((of) => of.at(at))).size === 1;
  while (shared(0)) for (const of of parts) of.shift();
  while (shared(-1)) for (const of of parts) of.pop();
  return parts.map((of) => of.join("/"));
}

/** A model as a sentence has it: `the dense model`, or the name that tells it from another of its kind. */
export function calledModel({ name, gated }: { name: string; gated: boolean }): string {
  return name === (gated ? "sparse" : "dense") ? `the ${name} model` : name;
}
