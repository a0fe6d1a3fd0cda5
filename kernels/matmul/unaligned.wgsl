// The same three products where a row does not start at a multiple of four elements: one element of C for each
// invocation. Slow and for any shape; real models come here only by adapters of a rank that is no multiple of 4.
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  $if BATCHED {
  batch = id.z;
  $}
  let m = id.y;
  let n = id.x;
  if (m >= M || n >= N) { return; }
  var sum = 0.0;
  for (var k = 0u; k < K; k++) {
    let at_a = a_first() + select(m * A_STRIDE + k, k * A_STRIDE + m, TRANSPOSE_A);
    let at_b = b_first() + select(k * B_STRIDE + n, n * B_STRIDE + k, TRANSPOSE_B);
    sum = fma(a[at_a], b[at_b], sum);
  }
  store_at(m * C_STRIDE + c_first() + n, batch * N + n, sum);
}
