// dx = dy where x is within the limit, which itself is, and 0 beyond
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> dx: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) {
    dx[n] = select(ELEMENT(0.0), dy[n], abs(x[n]) <= ELEMENT(LIMIT));
  }
}
