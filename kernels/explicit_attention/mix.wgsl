// y_i = sum over all keys j of gates_ij pattern_ij v_j, whatever stands in gates and pattern.
//
// qkv (batch, position, H + 2 K, D), as heads.wgsl has it; pattern, gates (batch, head, query, key);
// y (batch, position, head, D)
@group(0) @binding(0) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> pattern: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < BATCH * T * HEADS * CHUNKS; at += groups.x * 64u) {
    let chunk = at % CHUNKS;
    let head = (at / CHUNKS) % HEADS;
    let i = (at / (CHUNKS * HEADS)) % T;
    let b = at / (CHUNKS * HEADS * T);
    let row = ((b * HEADS + head) * T + i) * T;
    var sum = ELEMENT();
    for (var j = 0u; j < T; j++) {
      let v_at = value_at(b * T + j, key_head_of(head));
      sum += (gates[row + j] * pattern[row + j]) * qkv[v_at + chunk];
    }
    y[at] = sum;
  }
}
