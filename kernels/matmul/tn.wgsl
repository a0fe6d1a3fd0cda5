// C[m,n] = sum over k of A[k,m] B[k,n] (+ bias[n])
// As nn.wgsl; both operands are read along their columns, so K may be anything.

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 8u;
  let column = id.x * 2u;
  if (row >= M || column >= N4) { return; }
  let column0 = column;
  let column1 = min(column + 1u, N4 - 1u);
  let a_column0 = A_COLUMN4 + row / 4u;
  let a_column1 = A_COLUMN4 + min(row / 4u + 1u, M4 - 1u);
  $for i in 0..8 {
  var c0_$i = vec4f();
  var c1_$i = vec4f();
  $}
  for (var k = 0u; k < K; k++) {
    let a0 = a[k * A_STRIDE4 + a_column0];
    let a1 = a[k * A_STRIDE4 + a_column1];
    let b0 = b[k * B_STRIDE4 + column0];
    let b1 = b[k * B_STRIDE4 + column1];
    $for i in 0..4 {
    c0_$i = fma(vec4f(a0[$i]), b0, c0_$i);
    c1_$i = fma(vec4f(a0[$i]), b1, c1_$i);
    $}
    $for i in 4..8 {
    c0_$i = fma(vec4f(a1[$i - 4]), b0, c0_$i);
    c1_$i = fma(vec4f(a1[$i - 4]), b1, c1_$i);
    $}
  }
  $for i in 0..8 {
  store(row + $iu, column, c0_$i, c1_$i);
  $}
}
