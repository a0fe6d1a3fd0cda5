/**
 * A kernel that takes as long as it is told to.
 *
 * @module
 */

/** WGSL: TURNS multiply-adds for each of 8 invocations of a workgroup, one after the other. */
export const LOOP = `
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = y[id.x];
  for (var n = 0u; n < TURNS; n++) { sum = fma(sum, 0.5, f32(n)); }
  y[id.x] = sum;
}`;
