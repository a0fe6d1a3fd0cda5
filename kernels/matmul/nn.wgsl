// C[m,n] = sum over k of A[m,k] B[k,n] (+ bias[n])
// An 8 x 8 tile of C in registers for each invocation; lanes run along n. Loads out of range are clamped to the last
// row or column, stores are guarded. Where K is no multiple of 4, A's columns K.. must be zero.

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y * 8u;
  let column = id.x * 2u;
  if (row >= M || column >= N4) { return; }
  let column0 = column;
  let column1 = min(column + 1u, N4 - 1u);
  $for i in 0..8 {
  let a_row$i = min(row + $iu, M - 1u) * A_STRIDE4 + A_COLUMN4;
  var c0_$i = vec4f();
  var c1_$i = vec4f();
  $}
  for (var k = 0u; k < K4; k++) {
    $for i in 0..8 {
    let a$i = a[a_row$i + k];
    $}
    $for k in 0..4 {
    let b_row$k = min(4u * k + $ku, K - 1u) * B_STRIDE4;
    let b0_$k = b[b_row$k + column0];
    let b1_$k = b[b_row$k + column1];
    $for i in 0..8 {
    c0_$i = fma(vec4f(a$i[$k]), b0_$k, c0_$i);
    c1_$i = fma(vec4f(a$i[$k]), b1_$k, c1_$i);
    $}
    $}
  }
  $for i in 0..8 {
  store(row + $iu, column, c0_$i, c1_$i);
  $}
}
