// y = x, but no further from 0 than LIMIT
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) { y[n] = clamp(x[n], ELEMENT(-LIMIT), ELEMENT(LIMIT)); }
}
