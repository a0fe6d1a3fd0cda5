// C[m,n] = sum over k of A[m,k] B[k,n] (+ bias[n])
// A tile of ROWS x 4 COLUMNS4 of C in registers for each invocation; lanes run along n. Loads out of range are clamped to
// the last row or column, stores are guarded. Where K is no multiple of 4, A's columns K.. must be zero.

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(global_invocation_id) id: vec3u) {
  $if BATCHED {
  batch = id.z;
  $}
  let row = id.y * ROWS;
  let column = id.x * COLUMNS4;
  if (row >= M || column >= N4) { return; }
  $for j in 0..COLUMNS4 {
  let column$j = min(column + $ju, N4 - 1u);
  $}
  $for i in 0..ROWS {
  let a_row$i = min(row + $iu, M - 1u) * A_STRIDE4 + a_first();
  $for j in 0..COLUMNS4 {
  var c$i_$j = vec4f();
  $}
  $}
  for (var k = 0u; k < K4; k++) {
    $for i in 0..ROWS {
    let a$i = a[a_row$i + k];
    $}
    $for k in 0..4 {
    let b_row$k = min(4u * k + $ku, K - 1u) * B_STRIDE4 + b_first();
    $for j in 0..COLUMNS4 {
    let b$k_$j = b[b_row$k + column$j];
    $for i in 0..ROWS {
    c$i_$j = fma(vec4f(a$i[$k]), b$k_$j, c$i_$j);
    $}
    $}
    $}
  }
  $for i in 0..ROWS {
  $for j in 0..COLUMNS4 {
  store(row + $iu, column + $ju, c$i_$j);
  $}
  $}
}
