// Of each head of queries and keys the first 2 HALF elements are turned, element i together with element HALF + i, by an
// angle of the position and i:  y1 = x1 cos - x2 sin,  y2 = x2 cos + x1 sin.  The other REST + REST elements of those
// heads, and the heads of values, are copied. Backward is the same by the opposite angle, DIRECTION = -1.
//
// x, y (batch, position, head, HALF + REST + HALF + REST) with TURNED heads of queries and keys before those of values
// table (position, 2, HALF) cosines, then sines; position 0 of x is its row `start`
struct Place { start: u32 }
@group(0) @binding(0) var<uniform> place: Place;
@group(0) @binding(1) var<storage, read> table: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  const PAIRS = HALF + REST;
  for (var pair = id.x; pair < ROWS * HEADS * PAIRS; pair += groups.x * 64u) {
    let i = pair % PAIRS;
    let head = pair / PAIRS % HEADS;
    let position = pair / (PAIRS * HEADS) % T;
    let turned = i < HALF;
    let first = pair / PAIRS * 2u * PAIRS + select(HALF + i, i, turned);
    let second = first + select(REST, HALF, turned);
    let x1 = x[first];
    let x2 = x[second];
    var y1 = x1;
    var y2 = x2;
    if (turned && head < TURNED) {
      let angle = (place.start + position) * 2u * HALF + i;
      let cosine = table[angle];
      let sine = DIRECTION * table[angle + HALF];
      y1 = x1 * cosine - x2 * sine;
      y2 = x2 * cosine + x1 * sine;
    }
    y[first] = y1;
    y[second] = y2;
  }
}
