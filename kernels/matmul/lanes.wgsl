// C[m,n] = sum over k of A[m,k] B[k,n], or B[n,k] (B_ALONG_K), for CPU drivers. A workgroup is one vector of LANES lanes,
// which compute ROWS rows of 4 columns each of C in registers. What all lanes need, rows of A, each loads a part of, and
// hands it to the others by subgroup operations, which cost less than a load (docs/log.md). Loads out of range
// are clamped to the last row or column, stores are guarded. Where K is no multiple of 4, A's columns K.. must be zero.

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  $if BATCHED {
  batch = group.z;
  $}
  let row = group.y * ROWS;
  let column = group.x * LANES + lane;
  let b_column = min(column, N4 - 1u);
  $if B_ALONG_K {
  $for s in 0..4 {
  let b_row$s = min(4u * b_column + $su, N - 1u) * B_STRIDE4 + b_first();
  $}
  $}
  $for i in 0..A_LOADS {
  let a_row$i = min(row + LANES * $iu + lane, M - 1u) * A_STRIDE4 + a_first();
  $for s in 0..LANES {
  var c$i_$s = vec4f();
  $}
  $}
  for (var k = 0u; k < K4; k++) {
    $for i in 0..A_LOADS {
    let loaded$i = a[a_row$i + k];
    $for s in 0..LANES {
    let a$i_$s = subgroupBroadcast(loaded$i, $su);
    $}
    $}
    $if B_ALONG_K {
    $for s in 0..4 {
    let along$s = b[b_row$s + k];
    $}
    $}
    $for k in 0..4 {
    $if B_ALONG_K {
    let b$k = vec4f(along0[$k], along1[$k], along2[$k], along3[$k]);
    $}
    $if B_ALONG_N {
    let b$k = b[min(4u * k + $ku, K - 1u) * B_STRIDE4 + b_first() + b_column];
    $}
    $}
    // A row's terms one after the other: there are more sums than registers, and each is loaded and stored once so.
    $for i in 0..A_LOADS {
    $for s in 0..LANES {
    $for k in 0..4 {
    c$i_$s = fma(vec4f(a$i_$s[$k]), b$k, c$i_$s);
    $}
    $}
    $}
  }
  // A loop, so that what is done to an element before it is stored is compiled once.
  var sums: array<vec4f, ROWS>;
  $for i in 0..A_LOADS {
  $for s in 0..LANES {
  sums[LANES * $iu + $su] = c$i_$s;
  $}
  $}
  for (var r = row; r < min(row + ROWS, M); r++) { store(r, column, sums[r - row]); }
}
