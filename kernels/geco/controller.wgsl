// The controller's settings, for both kernels.
struct Controller {
  target_loss: f32,
  scale: f32,
  alpha: f32,
  rate: f32,
  gain: f32,
  lowest: f32,
  highest: f32,
}
@group(0) @binding(0) var<uniform> controller: Controller;
