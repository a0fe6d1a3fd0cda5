// dx = dy (Phi(x) + x phi(x)), phi(x) = exp(-x^2 / 2) / sqrt(2 pi); Phi is of kernels/core/gelu_exact.wgsl
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> dx: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) {
    let value = x[n];
    let e = gelu_exponential(value);
    dx[n] = dy[n] * (gelu_phi(value, e) + value * 0.3989422804 * e);
  }
}
