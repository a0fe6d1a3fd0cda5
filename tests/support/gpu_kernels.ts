/**
 * Whether kernels that only GPUs take are tried. A module of its own, as whoever loads it asks for an adapter.
 *
 * @module
 */
import { findAdapter } from "../../kernels/core/gpu_adapters.ts";

/**
 * Whether kernels that only GPUs take are tried: not on a CPU driver that compiles each for up to a minute. Mesa 25 does,
 * 22 does not; WebGPU tells no version, but the newer takes a hundred thousand textures and the older 37. GPU_KERNELS says
 * otherwise, by "try" or "leave out".
 */
export const WITH_GPU_KERNELS: boolean = await triesGpuKernels(Deno.env.get("GPU_KERNELS"));

async function triesGpuKernels(wish: string | undefined): Promise<boolean> {
  if (wish) return wish !== "leave out";
  const { adapter, description } = await findAdapter();
  return !description.software || adapter.limits.maxSampledTexturesPerShaderStage < 1000;
}
