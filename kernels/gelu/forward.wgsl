// y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), written with u = 2 sqrt(2/pi) (x + 0.044715 x^3):
// (1 + tanh(u/2)) / 2 = sigmoid(u), whose exponential overflows to a harmless 1 / infinity where tanh would be NaN on
// drivers that build it from two exponentials.
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> y: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) {
    let value = x[n];
    let u = 1.5957691216 * (value + 0.044715 * value * value * value);
    y[n] = value / (1.0 + exp(-clamp(u, ELEMENT(-80.0), ELEMENT(80.0))));
  }
}
