import type { Gpu } from "../kernels/core/gpu.ts";
export async function assertSelfCheck(_gpu: Gpu): Promise<void> {}
