// dquery_weight[n] += sum over rows and groups of queries of dy x inverse, and dkey_weight[n] over those of keys. One
// workgroup an element of either weight.
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> statistics: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> dquery_weight: array<ELEMENT>;
@group(0) @binding(4) var<storage, read_write> dkey_weight: array<ELEMENT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let is_query = group.x < QUERY_WIDTH;
  let n = select(group.x - QUERY_WIDTH, group.x, is_query);
  let first = select(QUERIES, 0u, is_query);
  let count = select(KEYS, QUERIES, is_query);
  var of_lane = ELEMENT();
  for (var i = lane; i < ROWS * count; i += LANES) {
    let row = i / count;
    let of_row = first + i % count;
    let at = row * COLUMNS + first_of(of_row) + n;
    of_lane += dy[at] * (x[at] * statistics[row * GROUPS + of_row]);
  }
  let sum = element_over_lanes(lane, of_lane);
  if (lane > 0u) { return; }
  if (is_query) { dquery_weight[n] += sum; } else { dkey_weight[n] += sum; }
}
