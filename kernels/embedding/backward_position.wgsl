// dposition_embedding[t] += sum over the batch of dx[b, t]
@group(0) @binding(0) var<storage, read> dx: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> dposition_embedding: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < T * ELEMENTS; at += groups.x * 64u) {
    var sum = ELEMENT();
    for (var first = at; first < ROWS * ELEMENTS; first += T * ELEMENTS) { sum += dx[first]; }
    dposition_embedding[at] += sum;
  }
}
