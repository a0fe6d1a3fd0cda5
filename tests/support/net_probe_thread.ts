/** A command's thread that says what it may reach when it looks for a device; started by net_probe.ts. */
import { sayReach } from "./net_probe.ts";

const thread = self as unknown as Worker;
thread.addEventListener("message", async ({ data }: MessageEvent<{ module: string }>) => {
  const { requestAdapter } = GPU.prototype;
  GPU.prototype.requestAdapter = function (options) {
    sayReach("the command");
    return requestAdapter.call(this, options);
  };
  await import(data.module);
}, { once: true });
