/**
 * The command line on a device that refuses every shader once a file is there: `deno run broken_shaders.ts COMMAND …`, the
 * file's path in the variable BROKEN_ONCE.
 *
 * @module
 */
import { inCommandThread, superviseCommand } from "../../pipeline/command_thread.ts";

if (inCommandThread()) {
  const file = Deno.env.get("BROKEN_ONCE")!;
  const { createShaderModule } = GPUDevice.prototype;
  GPUDevice.prototype.createShaderModule = function (descriptor) {
    const code = isThere(file) ? `${descriptor.code}\nfn` : descriptor.code;
    return createShaderModule.call(this, { ...descriptor, code });
  };
  await import("../../pipeline/main.ts");
} else if (import.meta.main) await superviseCommand(import.meta.url);

function isThere(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
