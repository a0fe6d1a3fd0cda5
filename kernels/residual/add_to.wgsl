// sum += a
@group(0) @binding(0) var<storage, read> a: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> sum: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) { sum[n] += a[n]; }
}
