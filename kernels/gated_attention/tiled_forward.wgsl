// forward.wgsl's result for 64 queries a workgroup, by tiles of 64 keys, each visited once: sums are kept relative to the
// highest score so far and shrink when it rises (online softmax). After the scores are in the tile, four invocations
// share a row's edges.
//
// A tile whose weights are all zero, with all of its gates closed or its scores too far below, is not multiplied with
// its values. Neither is one whose weights together are below 2^-24 / (tiles of a row) of the softmax's mass so far: all
// that is left out so changes no element of y by more than 2^-24 of the largest value.
@group(0) @binding(0) var<uniform> gate: Gate;
@group(0) @binding(1) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> y: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> log_sum_exp: array<f32>;
@group(0) @binding(4) var<storage, read_write> row_sums: array<vec4f>;

const NEGLIGIBLE = 5.9604645e-8 / f32((T + 63u) / 64u);
var<workgroup> of_lane: array<f32, 256>;
var<workgroup> of_row: array<f32, SIDE>;

// The four invocations' values of a row.
fn of_row_lanes(index: u32) -> vec4f {
  let first = index & ~3u;
  return vec4f(of_lane[first], of_lane[first + 1u], of_lane[first + 2u], of_lane[first + 3u]);
}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let place = Place(group.z, group.y, index, lane.x, lane.y);
  let first = group.x * SIDE;
  let last = min(first + SIDE, T) - 1u;
  let stream = gate.first_row + place.batch * HEADS + place.head;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, stream), NOISE);
  let i = first + index / 4u;
  let part = index % 4u;
  let noise_row = random_row(key, i);
  var highest = -3.0e38;
  var total = 0.0;
  var sums = vec4f();
  var result = Rows();
  for (var j0 = 0u; j0 <= last; j0 += SIDE) {
    let scores = products(QUERY, first, KEY, j0, place);
    if (index == 0u) { atomicStore(&present, 0u); }
    put(Edges(scores.r0 * SCALE, scores.r1 * SCALE, scores.r2 * SCALE, scores.r3 * SCALE), place);
    workgroupBarrier();
    $for n in 0..4 {
    let at$n = (index / 4u) * ROW + part + 4u * $nu;
    let columns$n = j0 + 4u * (part + 4u * $nu) + vec4u(0u, 1u, 2u, 3u);
    let l$n = select(vec4f(-3.0e38), tile[at$n], columns$n <= vec4u(i));
    $}
    let most = max(max(l0, l1), max(l2, l3));
    of_lane[index] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    let of_tile = of_row_lanes(index);
    let higher = max(highest, max(max(of_tile.x, of_tile.y), max(of_tile.z, of_tile.w)));
    let fall = exp(highest - higher);
    highest = higher;
    total *= fall;
    var kept = 0.0;
    $for n in 0..4 {
    var weight$n = exp(l$n - higher);
    total += dot(weight$n, vec4f(1.0));
    if (GATED) {
      $for c in 0..4 {
      if (columns$n[$c] <= i) {
        let g = l$n[$c] + gate.bias;
        let odds = closed_odds(g);
        let open = is_open(g, noisy_odds(odds, noise_row, key, columns$n[$c]));
        let excess = max(abs(g) - gate.saturation_bound, 0.0);
        sums += vec4f(open_probability(odds), select(0.0, 1.0, open), excess * excess, select(0.0, 1.0, g > 0.0));
        weight$n[$c] = select(0.0, weight$n[$c], open);
      }
      $}
    }
    kept += dot(weight$n, vec4f(1.0));
    tile[at$n] = weight$n;
    $}
    if (part == 0u) { of_row[index / 4u] = fall; }
    if (index == 0u) { atomicStore(&present, 0u); }
    workgroupBarrier();
    // Each of the row's four lanes holds its share of both sides.
    if (kept > NEGLIGIBLE * total) { atomicStore(&present, 1u); }
    workgroupBarrier();
    $for s in 0..4 {
    let fall$s = of_row[4u * lane.y + $su];
    $for g in 0..GROUPS {
    result.r$s_$g *= fall$s;
    $}
    $}
    if (workgroupUniformLoad(&present) != 0u) { result = add_product(VALUE, j0, place, result); }
  }
  workgroupBarrier();
  of_lane[index] = total;
  tile[index] = sums;
  workgroupBarrier();
  let mass = dot(of_row_lanes(index), vec4f(1.0));
  if (part == 0u) {
    of_row[index / 4u] = 1.0 / mass;
    if (i < T) {
      let row = (place.batch * HEADS + place.head) * T + i;
      log_sum_exp[row] = highest + log(mass);
      let keys = f32(i + 1u);
      let counted = tile[index] + tile[index + 1u] + tile[index + 2u] + tile[index + 3u];
      row_sums[row] = select(vec4f(keys, keys, 0.0, keys), counted, GATED);
    }
  }
  workgroupBarrier();
  $for s in 0..4 {
  let row$s = first + 4u * lane.y + $su;
  if (row$s < T) {
    let scale = of_row[4u * lane.y + $su];
    $for g in 0..GROUPS {
    if (lane.x + 16u * $gu < CHUNKS) {
      y[result_at(place.batch * T + row$s, place.head) + lane.x + 16u * $gu] = result.r$s_$g * scale;
    }
    $}
  }
  $}
}
