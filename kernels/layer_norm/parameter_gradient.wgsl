// dweight[n] += sum over rows of dy h, dbias[n] += sum over rows of dy. One workgroup a column, then a tree of fixed
// shape.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> statistics: array<vec2f>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbias: array<f32>;

var<workgroup> partial: array<vec2f, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group.x;
  var sums = vec2f();
  for (var row = lane; row < ROWS; row += LANES) {
    let h = (x[row * N + n] - statistics[row].x) * statistics[row].y;
    let gradient = dy[row * N + n];
    sums += vec2f(gradient * h, gradient);
  }
  partial[lane] = sums;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  if (lane == 0u) {
    dweight[n] += partial[0].x;
    dbias[n] += partial[0].y;
  }
}
