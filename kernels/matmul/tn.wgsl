// C[m,n] = sum over k of A[k,m] B[k,n] (+ bias[n])
// As nn.wgsl; both operands are read along their columns, so K may be anything. ROWS is a multiple of 4.

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
  $for i in 0..ROWS4 {
  let a_column$i = a_first() + min(row / 4u + $iu, M4 - 1u);
  $for s in 0..4 {
  $for j in 0..COLUMNS4 {
  var c$i_$s_$j = vec4f();
  $}
  $}
  $}
  for (var k = 0u; k < K; k++) {
    $for i in 0..ROWS4 {
    let a$i = a[k * A_STRIDE4 + a_column$i];
    $}
    $for j in 0..COLUMNS4 {
    let b$j = b[k * B_STRIDE4 + b_first() + column$j];
    $for i in 0..ROWS4 {
    $for s in 0..4 {
    c$i_$s_$j = fma(vec4f(a$i[$s]), b$j, c$i_$s_$j);
    $}
    $}
    $}
  }
  $for i in 0..ROWS4 {
  $for s in 0..4 {
  $for j in 0..COLUMNS4 {
  store(row + 4u * $iu + $su, column + $ju, c$i_$s_$j);
  $}
  $}
  $}
}
