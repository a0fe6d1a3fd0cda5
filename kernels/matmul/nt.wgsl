// C[m,n] = sum over k of A[m,k] B[n,k] (+ bias[n])
// As nn.wgsl; both operands are read along k. K must be a multiple of 4.

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
  store(row + $iu, column, c0_$i, c1_$i);
  $}
}
