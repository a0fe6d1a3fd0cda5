/** The norm of queries and keys. @module */
import { queryKeyNormChecks } from "../../../kernels/query_key_norm/check.ts";
import { prepareQueryKeyNorm, type QueryKeyNormConfig } from "../../../kernels/query_key_norm/op.ts";
import {
  queryKeyNormGradientReference,
  queryKeyNormReference,
} from "../../../kernels/query_key_norm/reference.ts";
import type { Op } from "../op.ts";

/**
 * y [rows, (H + 2 K) · D] from x of the same shape, by the parameters `queryWeight` and `keyWeight`, the heads of values
 * unchanged; `statistics` are [rows, H + K], or [rows, 2] where all heads are normed together.
 */
export function queryKeyNorm(of: QueryKeyNormConfig): Op {
  return {
    key: `query key norm ${JSON.stringify(of)}`,
    kind: "queryKeyNorm",
    checks: [queryKeyNormChecks[of.per]],
    keeps: ["x", "statistics"],
    reference: {
      forward: ({ x, queryWeight: query, keyWeight: key }) => queryKeyNormReference(x, { query, key }, of),
      backward({ x, queryWeight: query, keyWeight: key, dy }) {
        const { dx, dweights } = queryKeyNormGradientReference(x, { query, key }, dy, of);
        return { x: dx, queryWeight: dweights.query, keyWeight: dweights.key };
      },
    },
    async compile(gpu) {
      const compiled = await prepareQueryKeyNorm(gpu, of);
      return {
        forward: (recorder, { x, queryWeight, keyWeight, y, statistics }) =>
          compiled.forward(recorder, { x, queryWeight, keyWeight, y, statistics }),
        backward: (recorder, { x, queryWeight, keyWeight, statistics, dy, dx }, gradients) =>
          compiled.backward(recorder, {
            x,
            queryWeight,
            keyWeight,
            statistics,
            dy,
            dx: dx!,
            // Both are trained, or neither.
            parameters: gradients?.queryWeight && gradients.keyWeight &&
              { dqueryWeight: gradients.queryWeight, dkeyWeight: gradients.keyWeight },
          }),
      };
    },
  };
}
