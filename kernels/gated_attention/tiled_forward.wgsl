// forward.wgsl's result for 64 queries a workgroup, by tiles of 64 keys, each visited once: sums are kept relative to the
// highest score so far and shrink when it rises (online softmax). After the scores are in the tile, ROW_LANES invocations
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
// Each row's edges are summed up in four parts, whatever number of invocations shares them: SHARES parts for each.
var<workgroup> of_part: array<array<f32, 4>, SIDE>;
var<workgroup> of_row: array<f32, SIDE>;

// The n-th vector of a row's edges that an invocation has. Eight invocations, of 2 SHARES rows after one another, read
// different banks.
fn chunk_of(part: u32, n: u32) -> u32 { return 8u * (n / (2u * SHARES)) + 2u * SHARES * part + n % (2u * SHARES); }

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
  let place = place_of(group.y, group.x, index);
  let first = (TILES - 1u - group.z) * SIDE;
  let last = min(first + SIDE, T) - 1u;
  let stream = gate.first_row + place.batch * HEADS + place.head;
  let key = select(0u, stream_key(gate.seed, gate.step, gate.layer, stream), NOISE);
  let own = index / ROW_LANES;
  let i = first + own;
  let part = index % ROW_LANES;
  let noise_row = random_row(key, i);
  var highest = -3.0e38;
  $for a in 0..SHARES {
  var total$a = 0.0;
  var sums$a = vec4f();
  $}
  var result = Rows();
  for (var j0 = 0u; j0 <= last; j0 += SIDE) {
    var scores = products(QUERY, first, KEY, j0, place);
    $for s in 0..4 {
    $for j in 0..COLUMNS {
    scores.r$s_$j *= SCALE;
    $}
    $}
    if (index == 0u) { atomicStore(&present[0], 0u); }
    let values = load_rows(VALUE, j0, place);
    workgroupBarrier();
    put(scores, place);
    workgroupBarrier();
    var most = vec4f(-3.0e38);
    for (var n = 0u; n < 4u * SHARES + none(); n += 4u) {
      $for q in 0..4 {
      let chunk$q = chunk_of(part, n + $qu);
      let columns$q = j0 + 4u * chunk$q + vec4u(0u, 1u, 2u, 3u);
      most = max(most, select(vec4f(-3.0e38), tile_at(own, chunk$q), columns$q <= vec4u(i)));
      $}
    }
    of_part[own][part] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    var higher = highest;
    $for n in 0..ROW_LANES {
    higher = max(higher, of_part[own][$n]);
    $}
    let fall = exp(highest - higher);
    highest = higher;
    $for a in 0..SHARES {
    total$a *= fall;
    var kept$a = 0.0;
    $}
    for (var n = 0u; n < 4u * SHARES + none(); n += 4u) {
      $for q in 0..4 {
      let chunk$q = chunk_of(part, n + $qu);
      let columns$q = j0 + 4u * chunk$q + vec4u(0u, 1u, 2u, 3u);
      let l$q = select(vec4f(-3.0e38), tile_at(own, chunk$q), columns$q <= vec4u(i));
      var weight$q = exp(l$q - higher);
      total$[$q / ROW_LANES] += dot(weight$q, vec4f(1.0));
      if (GATED) {
        $for c in 0..4 {
        let g$c = l$q[$c] + gate.bias;
        let odds$c = closed_odds(g$c);
        let open$c = is_open_in_tile(g$c, noisy_fraction(odds$c, noise_row, key, columns$q[$c]));
        let excess$c = max(abs(g$c) - gate.saturation_bound, 0.0);
        let of_gate$c =
          vec4f(open_probability(odds$c), select(0.0, 1.0, open$c), excess$c * excess$c, select(0.0, 1.0, g$c > 0.0));
        sums$[$q / ROW_LANES] += select(vec4f(), of_gate$c, columns$q[$c] <= i);
        weight$q[$c] = select(0.0, weight$q[$c], open$c);
        $}
      }
      kept$[$q / ROW_LANES] += dot(weight$q, vec4f(1.0));
      set_tile(own, chunk$q, weight$q);
      $}
    }
    if (part == 0u) { of_row[own] = fall; }
    // Each of the row's parts is a share of both sides.
    $for a in 0..SHARES {
    if (kept$a > NEGLIGIBLE * total$a) { atomicStore(&present[0], 1u); }
    $}
    let some = workgroupUniformLoad(&present[0]) != 0u;
    $for s in 0..4 {
    let fall$s = of_row[row_of(place, $su)];
    $for g in 0..GROUPS {
    result.r$s_$g *= fall$s;
    $}
    $}
    if (some) { result = add_product(VALUE, j0, values, place, result); }
  }
  workgroupBarrier();
  $for a in 0..SHARES {
  of_part[own][SHARES * part + $au] = total$a;
  set_tile(own, SHARES * part + $au, sums$a);
  $}
  workgroupBarrier();
  let mass = (of_part[own][0] + of_part[own][1]) + (of_part[own][2] + of_part[own][3]);
  if (part == 0u) {
    of_row[own] = 1.0 / mass;
    if (i < T) {
      let row = (place.batch * HEADS + place.head) * T + i;
      log_sum_exp[row] = highest + log(mass);
      let keys = f32(i + 1u);
      let counted = (tile_at(own, 0u) + tile_at(own, 1u)) + (tile_at(own, 2u) + tile_at(own, 3u));
      row_sums[row] = select(vec4f(keys, keys, 0.0, keys), counted, GATED);
    }
  }
  workgroupBarrier();
  $for s in 0..4 {
  let row$s = first + row_of(place, $su);
  if (row$s < T) {
    let scale = of_row[row_of(place, $su)];
    $for g in 0..GROUPS {
    if (place.x + LANES_X * $gu < CHUNKS) {
      y[result_at(place.batch * T + row$s, place.head) + place.x + LANES_X * $gu] = result.r$s_$g * scale;
    }
    $}
  }
  $}
}
