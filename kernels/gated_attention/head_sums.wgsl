// Adds the row sums of one layer to its heads' totals: sum over (batch row, query) of the four row sums, and the
// number of queries with no open gate, as used and without noise. One workgroup a head.
//
// row_sums   (batch, head, query) of vec4, as forward.wgsl writes them
// head_sums  (layer, head, 2) of vec4; the second holds (dead queries as used, dead queries without noise, 0, 0)
struct Rows { layer: u32, batch: u32 }
@group(0) @binding(0) var<uniform> rows: Rows;
@group(0) @binding(1) var<storage, read> row_sums: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> head_sums: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let head = group.x;
  var sum = vec4f();
  var none = vec4f();
  for (var b = 0u; b < rows.batch; b++) {
    for (var i = lane; i < T; i += LANES) {
      let row = row_sums[(b * HEADS + head) * T + i];
      sum += row;
      none += vec4f(select(0.0, 1.0, row.y == 0.0), select(0.0, 1.0, row.w == 0.0), 0.0, 0.0);
    }
  }
  let sums = sum_over_lanes(lane, sum);
  let dead = sum_over_lanes(lane, none);
  if (lane == 0u) {
    let at = 2u * (rows.layer * HEADS + head);
    head_sums[at] += sums;
    head_sums[at + 1u] += dead;
  }
}
