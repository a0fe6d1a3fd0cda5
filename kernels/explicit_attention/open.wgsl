// In place of the logits of gates 1 where one is open, above 0, and 0 elsewhere and for keys behind the query.
//
// gates (batch, head, query, key)
@group(0) @binding(0) var<storage, read_write> gates: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < BATCH * HEADS * T * T; at += groups.x * 64u) {
    gates[at] = select(0.0, 1.0, gates[at] > 0.0 && at % T <= (at / T) % T);
  }
}
