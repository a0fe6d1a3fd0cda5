// With y = x sigmoid(u):  dx = dy (sigmoid(u) + x sigmoid(u) (1 - sigmoid(u)) du/dx), du/dx = c (1 + 3 * 0.044715 x^2)
@group(0) @binding(0) var<storage, read> x: array<ELEMENT>;
@group(0) @binding(1) var<storage, read> dy: array<ELEMENT>;
@group(0) @binding(2) var<storage, read_write> dx: array<ELEMENT>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var n = id.x; n < N; n += groups.x * 64u) {
    // Past 10 the slope is 0 or 1 to all digits; x^2 must not overflow, as infinity times e = 0 is NaN.
    let value = clamp(x[n], ELEMENT(-10.0), ELEMENT(10.0));
    let u = 1.5957691216 * (value + 0.044715 * value * value * value);
    // s (1 - s) as e / (1 + e)^2: where s is near 1, 1 - s has lost its digits.
    let e = exp(-abs(u));
    let s = select(e, ELEMENT(1.0), u > ELEMENT(0.0)) / (1.0 + e);
    let slope = 1.5957691216 * (1.0 + 0.134145 * value * value);
    dx[n] = dy[n] * (s + value * e / ((1.0 + e) * (1.0 + e)) * slope);
  }
}
