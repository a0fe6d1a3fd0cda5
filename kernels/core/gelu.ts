/**
 * GELU's two forms, for the kernel of its own and for products that end in it.
 *
 * @module
 */
import exactSource from "./gelu_exact.wgsl" with { type: "text" };
import tanhSource from "./gelu.wgsl" with { type: "text" };

/** GPT-2's `gelu_new`, by a tanh, or the one that Hendrycks and Gimpel (arXiv 1606.08415) define, by erf. */
export type GeluForm = "tanh" | "exact";

/** WGSL of `gelu(ELEMENT) -> ELEMENT`; goes behind the declaration of `ELEMENT`. */
export const GELU_SOURCES: Readonly<Record<GeluForm, string>> = { tanh: tanhSource, exact: exactSource };
