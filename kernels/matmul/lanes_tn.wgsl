// C[m,n] = sum over k of A[k,m] B[k,n], for CPU drivers. As lanes.wgsl, but what is loaded of A together is ROWS elements
// of each of TERMS_EACH rows k, of which one vector of A holds four. K may be anything: A is zero past it.

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  $if BATCHED {
  batch = group.z;
  $}
  let row = group.y * ROWS;
  let column = group.x * LANES + lane;
  let b_at = min(column, N4 - 1u) + b_first();
  let a_at = min(row / 4u + lane % ROWS4, M4 - 1u) + a_first();
  $for q in 0..ROWS4 {
  $for s in 0..4 {
  var c$q_$s = vec4f();
  $}
  $}
  for (var k = 0u; k < K; k += 4u) {
    $for i in 0..A_LOADS {
    let k$i = k + $iu * TERMS_EACH + lane / ROWS4;
    var loaded$i = a[min(k$i, K - 1u) * A_STRIDE4 + a_at];
    if (K % 4u > 0u) { loaded$i = select(vec4f(), loaded$i, k$i < K); }
    $for t in 0..TERMS_EACH {
    let b$i_$t = b[min(k + $iu * TERMS_EACH + $tu, K - 1u) * B_STRIDE4 + b_at];
    $for q in 0..ROWS4 {
    let a$i_$t_$q = subgroupBroadcast(loaded$i, $tu * ROWS4 + $qu);
    $}
    $}
    $}
    // A row's terms one after the other, as in lanes.wgsl.
    $for q in 0..ROWS4 {
    $for s in 0..4 {
    $for i in 0..A_LOADS {
    $for t in 0..TERMS_EACH {
    c$q_$s = fma(vec4f(a$i_$t_$q[$s]), b$i_$t, c$q_$s);
    $}
    $}
    $}
    $}
  }
  var sums: array<vec4f, ROWS>;
  $for q in 0..ROWS4 {
  $for s in 0..4 {
  sums[4u * $qu + $su] = c$q_$s;
  $}
  $}
  for (var r = row; r < min(row + ROWS, M); r++) { store(r, column, sums[r - row]); }
}
