// sum = of_a a + of_b b
struct Weights { of_a: f32, of_b: f32 }
@group(0) @binding(0) var<uniform> weights: Weights;
@group(0) @binding(1) var<storage, read> a: array<ELEMENT>;
@group(0) @binding(2) var<storage, read> b: array<ELEMENT>;
@group(0) @binding(3) var<storage, read_write> sum: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) { sum[n] = weights.of_a * a[n] + weights.of_b * b[n]; }
}
