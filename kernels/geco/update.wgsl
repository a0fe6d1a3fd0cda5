// One step of the multiplier, from the violation as last measured:
//   c = clip(violation / scale, -1, 1);  average <- alpha average + (1 - alpha) c;
//   lambda <- clip(lambda exp(rate average), lowest, highest);  acting = clip(lambda exp(gain average), lowest, highest)
// and the two factors that keep the gradient's scale steady: acting / (1 + acting) on the loss, 1 / (1 + acting) on the
// edges. Nothing changes before the first measurement.
// (lambda, average, violation as last measured, 1 once measured)
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss_scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> edge_scale: array<f32>;

@compute @workgroup_size(1)
fn main() {
  if (state[3] == 0.0) { return; }
  let constraint = clamp(state[2] / controller.scale, -1.0, 1.0);
  let average = controller.alpha * state[1] + (1.0 - controller.alpha) * constraint;
  let lambda = clamp(state[0] * exp(controller.rate * average), controller.lowest, controller.highest);
  state[0] = lambda;
  state[1] = average;
  let acting = clamp(lambda * exp(controller.gain * average), controller.lowest, controller.highest);
  loss_scale[0] = acting / (1.0 + acting);
  edge_scale[0] = 1.0 / (1.0 + acting);
}
