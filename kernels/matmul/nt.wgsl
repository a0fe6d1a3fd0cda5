// C[m,n] = sum over k of A[m,k] B[n,k] (+ bias[n])
// As nn.wgsl; both operands are read along k. K must be a multiple of 4.

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(global_invocation_id) id: vec3u) {
  $if BATCHED {
  batch = id.z;
  $}
  let row = id.y * ROWS;
  let column = id.x * COLUMNS4;
  if (row >= M || column >= N4) { return; }
  $for j in 0..COLUMNS4 {
  $for s in 0..4 {
  let b_row$j_$s = min(4u * (column + $ju) + $su, N - 1u) * B_STRIDE4 + b_first();
  $}
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
    $for j in 0..COLUMNS4 {
    $for s in 0..4 {
    let b$j_$s = b[b_row$j_$s + k];
    $}
    $for k in 0..4 {
    let b_of$j_$k = vec4f(b$j_0[$k], b$j_1[$k], b$j_2[$k], b$j_3[$k]);
    $for i in 0..ROWS {
    c$i_$j = fma(vec4f(a$i[$k]), b_of$j_$k, c$i_$j);
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
