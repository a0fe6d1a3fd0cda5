// C[m,n] = sum over k of A[m,k] B[n,k] (+ bias[n])
// As nn.wgsl; both operands are read along k. K must be a multiple of 4.
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4f>;

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 8u;
  let column = id.x * 2u;
  if (row >= M || column >= N4) { return; }
  $for i in 0..8 {
  let a_row$i = min(row + $iu, M - 1u) * A_STRIDE4 + A_COLUMN4;
  let b_row$i = min(4u * column + $iu, N - 1u) * B_STRIDE4;
  var c0_$i = vec4f();
  var c1_$i = vec4f();
  $}
  for (var k = 0u; k < K4; k++) {
    $for j in 0..8 {
    let b$j = b[b_row$j + k];
    $}
    $for i in 0..8 {
    let a$i = a[a_row$i + k];
    c0_$i += vec4f(dot(a$i, b0), dot(a$i, b1), dot(a$i, b2), dot(a$i, b3));
    c1_$i += vec4f(dot(a$i, b4), dot(a$i, b5), dot(a$i, b6), dot(a$i, b7));
    $}
  }
  $for i in 0..8 {
  if (row + $iu < M) {
    let at = (row + $iu) * C_STRIDE4 + C_COLUMN4 + column;
    if (BIAS) { c0_$i += bias[column]; c1_$i += bias[min(column + 1u, N4 - 1u)]; }
    if (ACCUMULATE) { c0_$i += c[at]; }
    c[at] = c0_$i;
    if (column + 1u < N4) {
      if (ACCUMULATE) { c1_$i += c[at + 1u]; }
      c[at + 1u] = c1_$i;
    }
  }
  $}
}
