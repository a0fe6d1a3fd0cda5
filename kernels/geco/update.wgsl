// One step of the multiplier, from the sums of a measured cross-entropy:
//   c = clip((CE - target) / scale, -1, 1);  average <- alpha average + (1 - alpha) c;
//   lambda <- clip(lambda exp(rate average), lowest, highest)
// and the two factors that keep the gradient's scale steady: lambda / (1 + lambda) on the loss, 1 / (1 + lambda) on the
// edges. A CE that is not finite, told by its bits, changes nothing.
struct Controller {
  target_loss: f32,
  scale: f32,
  alpha: f32,
  rate: f32,
  lowest: f32,
  highest: f32,
}
@group(0) @binding(0) var<uniform> controller: Controller;
// (sum of losses, correct, 0, counted positions)
@group(0) @binding(1) var<storage, read> totals: array<f32>;
// (lambda, average, CE - target as last measured, 0)
@group(0) @binding(2) var<storage, read_write> state: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss_scale: array<f32>;
@group(0) @binding(4) var<storage, read_write> edge_scale: array<f32>;

@compute @workgroup_size(1)
fn main() {
  let violation = totals[0] / totals[3] - controller.target_loss;
  if ((bitcast<u32>(violation) & 0x7f800000u) == 0x7f800000u) { return; }
  let constraint = clamp(violation / controller.scale, -1.0, 1.0);
  let average = controller.alpha * state[1] + (1.0 - controller.alpha) * constraint;
  let lambda = clamp(state[0] * exp(controller.rate * average), controller.lowest, controller.highest);
  state[0] = lambda;
  state[1] = average;
  state[2] = violation;
  loss_scale[0] = lambda / (1.0 + lambda);
  edge_scale[0] = 1.0 / (1.0 + lambda);
}
