// With s = sigmoid(gate):  dup = dy gate s,  dgate = dy up (s + gate s (1 - s))
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> dx: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var at = id.x; at < N; at += groups.x * 64u) {
    let of_gate = at + at / COLUMNS * COLUMNS;
    let of_up = of_gate + COLUMNS;
    let gate = x[of_gate];
    let gradient = dy[at];
    // s (1 - s) as e / (1 + e)^2: where s is near 1, 1 - s has lost its digits.
    let e = exp(-abs(gate));
    let s = select(e, ELEMENT(1.0), gate > ELEMENT(0.0)) / (1.0 + e);
    dx[of_gate] = gradient * x[of_up] * (s + gate * e / ((1.0 + e) * (1.0 + e)));
    dx[of_up] = gradient * gate * s;
  }
}
