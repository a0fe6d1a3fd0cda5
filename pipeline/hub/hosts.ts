/**
 * The hosts that a command which fetches from the hub may reach. As a program it prints them for `--allow-net`; the tasks
 * in deno.json do so before they start a command, so that no other host can be reached.
 *
 * @module
 */

/** Where the hub is where HF_ENDPOINT does not say it. */
export const HUB = "https://huggingface.co";

/** The hub, and the hosts that it sends a client on to for large files. */
const HUB_HOSTS = ["huggingface.co", "*.huggingface.co", "*.hf.co"];

/**
 * The hosts, each as `--allow-net` takes it.
 *
 * @param endpoint HF_ENDPOINT; what is no address adds none, and is refused when the hub is asked
 */
export function hubHosts(endpoint: string | undefined): string[] {
  const own = endpoint && URL.canParse(endpoint) ? new URL(endpoint).hostname : "";
  return own === "" || HUB_HOSTS.includes(own) ? HUB_HOSTS : [...HUB_HOSTS, own];
}

if (import.meta.main) console.log(hubHosts(Deno.env.get("HF_ENDPOINT")).join());
