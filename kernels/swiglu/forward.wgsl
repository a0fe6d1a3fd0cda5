// y = silu(gate) up, silu(g) = g sigmoid(g)
//
// x (row, 2 COLUMNS) the gate's columns, then up's; y (row, COLUMNS)
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < N; at += groups.x * 64u) {
    let of_gate = at + at / COLUMNS * COLUMNS;
    let gate = x[of_gate];
    // The sigmoid from an exponential that cannot overflow.
    let e = exp(-abs(gate));
    let s = select(e, ELEMENT(1.0), gate > ELEMENT(0.0)) / (1.0 + e);
    y[at] = gate * s * x[of_gate + COLUMNS];
  }
}
