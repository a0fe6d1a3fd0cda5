// parts = parts * statistics * weight + residual: with the statistics of x, what each part of x gives of its norm.
//
// parts, residual (part, STRIDE) of which the first ROWS * ELEMENTS are (row, ELEMENTS); statistics (row)
@group(0) @binding(0) var<storage, read> statistics: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> residual: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> parts: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < PARTS * ROWS * ELEMENTS; n += groups.x * 64u) {
    let inside = n % (ROWS * ELEMENTS);
    let at = n / (ROWS * ELEMENTS) * STRIDE + inside;
    parts[at] = parts[at] * statistics[inside / ELEMENTS] * weight[inside % ELEMENTS] + residual[at];
  }
}
