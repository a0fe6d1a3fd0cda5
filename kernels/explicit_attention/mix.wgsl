// y_i = sum over all keys j of gates_ij pattern_ij v_j, whatever stands in gates and pattern.
//
// qkv (batch, position, 3, head, D); pattern, gates (batch, head, query, key); y (batch, position, head, D)
@group(0) @binding(0) var<storage, read> qkv: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> pattern: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < BATCH * T * WIDTH; at += groups.x * 64u) {
    let column = at % WIDTH;
    let i = (at / WIDTH) % T;
    let b = at / (WIDTH * T);
    let row = ((b * HEADS + column / CHUNKS) * T + i) * T;
    var sum = ELEMENT();
    for (var j = 0u; j < T; j++) {
      sum += (gates[row + j] * pattern[row + j]) * qkv[(b * T + j) * 3u * WIDTH + 2u * WIDTH + column];
    }
    y[at] = sum;
  }
}
